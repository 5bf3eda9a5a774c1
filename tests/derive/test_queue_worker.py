"""Events of a bucket, from a queue to renditions."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from rich.console import Console

from special import settings
from special.catalogue.catalogue import Catalogue
from special.catalogue.http import HttpKind, HttpOptions
from special.catalogue.sqlite import SqliteKind, SqliteOptions
from special.derive.concurrency import BatchOptions
from special.derive.events import Touched, below, parse
from special.derive.inputs import InputImage
from special.derive.outcome import Outcome
from special.derive.plan import Target
from special.derive.queue_worker import QueueWorker, VisibilityOptions
from special.derive.run import Options, derive_images
from special.derive.sqs import Message, MessageQueue, SqsQueue
from special.errors import ConfigurationError, Malformed, Missing, Unreachable
from special.geometry import Size
from special.images import KeyTemplates
from special.storage import Blob, Sources, open_source
from tests.support.policies import policy
from tests.support.servers import S3Server

pytestmark = pytest.mark.service

MASTERS = Path(__file__).parents[2] / "fixtures" / "masters"


def notification(*keys: str, bucket: str = "b", event: str = "ObjectCreated:Put") -> str:
    return json.dumps(
        {
            "Records": [
                {"eventVersion": "2.1", "eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}
                for key in keys
            ]
        }
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(notification("a.tif"), (Touched("b", "a.tif"),), id="S3"),
        pytest.param(notification("1/b+c%2B%C3%BC.tif"), (Touched("b", "1/b c+ü.tif"),), id="keys are quoted"),
        pytest.param(notification("a", "b"), (Touched("b", "a"), Touched("b", "b")), id="several"),
        pytest.param(
            json.dumps({"Type": "Notification", "Message": notification("a")}), (Touched("b", "a"),), id="through SNS"
        ),
        pytest.param(
            json.dumps(
                {
                    "detail-type": "Object Created",
                    "source": "aws.s3",
                    "detail": {"bucket": {"name": "b"}, "object": {"key": "1/b+c%2B.tif"}},
                }
            ),
            (Touched("b", "1/b+c%2B.tif"),),
            id="EventBridge: keys are not quoted",
        ),
        pytest.param('{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}', (), id="a test"),
    ],
)
def test_notification(body: str, expected: tuple[Touched, ...]) -> None:
    assert parse(body) == expected


@pytest.mark.parametrize(
    "body",
    ["", "hello", "[]", "{}", '{"Records":[{}]}', '{"Records":[{"s3":[]}]}', '{"Type":"Notification","Message":"x"}'],
)
def test_what_is_no_notification_is_said(body: str) -> None:
    with pytest.raises(ValueError, match=r"no notification|Expecting value"):
        parse(body)


def test_key_in_its_source() -> None:
    assert below("s3://b/", Touched("b", "x/a")) == "x/a"
    assert below("s3://b/x/", Touched("b", "x/a")) == "a"
    assert below("s3://b/x/", Touched("b", "y/a")) is None
    assert below("s3://b/", Touched("c", "a")) is None
    assert below("file:///b/", Touched("b", "a")) is None


@dataclass
class RecordingQueue:
    """A queue in memory: what is taken stays hidden until it is given back."""

    waiting: list[Message]
    stop: asyncio.Event
    held: list[tuple[str, int]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def take(self, most: int, *, hold_s: int) -> list[Message]:
        if self.failures:
            raise self.failures.pop()
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        if not taken:
            self.stop.set()
        return taken

    async def hold(self, message: Message, seconds: int) -> None:
        self.held.append((message.id, seconds))

    async def delete(self, message: Message) -> None:
        self.deleted.append(message.id)


def message(id_: str, body: str, times: int = 1) -> Message:
    return Message(id_, body, f"receipt of {id_}", times)


async def followed(
    work: Any, *messages: Message, failures: tuple[Exception, ...] = (), catalogue: Catalogue | None = None
) -> tuple[RecordingQueue, list[Outcome]]:
    stop = asyncio.Event()
    queue = RecordingQueue(list(messages), stop, failures=list(failures))

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    batching, visibility = BatchOptions(4, retries=0, sleep=sleep), VisibilityOptions(again_s=10)
    worker = QueueWorker(queue, work, "s3://b/", KeyTemplates(), batching, visibility, catalogue)
    return queue, [outcome async for outcome in worker.run(stop)]


async def well(image: InputImage) -> Outcome:
    return Outcome(image.identifier, "made")


async def badly(image: InputImage) -> Outcome:
    if image.identifier == "bad":
        raise Malformed("it is bad")
    return Outcome(image.identifier, "made")


async def test_message_is_deleted_when_all_of_it_is_done() -> None:
    queue, outcomes = await followed(well, message("1", notification("a", "b", "a")))

    assert [it.identifier for it in outcomes] == ["a", "b"]
    assert queue.deleted == ["1"]
    assert queue.held == []


async def test_message_of_another_place_or_of_no_image_is_deleted() -> None:
    queue, outcomes = await followed(
        well, message("1", notification("a", bucket="c")), message("2", notification("a.txt"))
    )

    assert outcomes == []
    assert queue.deleted == ["1", "2"]


@pytest.mark.parametrize(("times", "seconds"), [(1, 10), (2, 20), (3, 40), (20, 900)])
async def test_message_that_fails_comes_again_later_each_time(times: int, seconds: int) -> None:
    queue, outcomes = await followed(badly, message("1", notification("good", "bad"), times))

    assert [it.result for it in outcomes] == ["made", "failed"]
    assert queue.deleted == []
    assert queue.held == [("1", seconds)]


async def test_message_that_nobody_can_read_is_left_to_the_queue() -> None:
    queue, outcomes = await followed(well, message("1", "hello"), message("2", notification("a")))

    assert {it.identifier: it.result for it in outcomes} == {"message 1": "failed", "a": "made"}
    assert queue.deleted == ["2"]
    assert queue.held == [("1", 10)]  # longer each time, until the queue itself sets it aside


async def test_message_that_is_nested_without_end_is_no_notification() -> None:
    bombs = ["[" * 100_000, '{"Records":[{"s3":' + '{"a":' * 50_000, '{"Records":' + "[" * 3000 + "]" * 3000 + "}"]
    queue, outcomes = await followed(well, *(message(str(number), bomb) for number, bomb in enumerate(bombs)))

    assert {it.result for it in outcomes} == {"failed"}
    assert len(queue.held) == len(bombs)


async def test_message_comes_again_while_the_catalogue_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE images (identifier TEXT PRIMARY KEY, url TEXT)")
    source = open_source(str(tmp_path))
    catalogue = Catalogue([SqliteKind(SqliteOptions(file))], Sources([source]), ttl_s=60)
    file.unlink()
    queue, outcomes = await followed(
        well, message("1", notification("a")), message("2", notification("b"), 2), catalogue=catalogue
    )
    await catalogue.close()

    assert {it.identifier: it.result for it in outcomes} == {"message 1": "failed", "message 2": "failed"}
    assert "c.sqlite cannot be read" in outcomes[0].detail
    assert queue.deleted == []
    assert sorted(queue.held) == [("1", 10), ("2", 20)]


async def test_a_catalogue_that_knows_no_objects_follows_no_queue(tmp_path: Path) -> None:
    catalogue = Catalogue(
        [HttpKind(HttpOptions("http://127.0.0.1/{id}"))], Sources([open_source(str(tmp_path))]), ttl_s=60
    )
    problems: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["message"]))
    try:
        await followed(well, message("1", notification("a")), message("2", notification("b")), catalogue=catalogue)
    except ConfigurationError as error:
        said = str(error)
    gc.collect()
    assert "cannot tell which images" in said
    assert problems == []  # the other message fails as well, and is no traceback
    await catalogue.close()


async def test_queue_that_does_not_answer_is_asked_again() -> None:
    queue, outcomes = await followed(well, message("1", notification("a")), failures=(Unreachable("it is away"),))

    assert [it.result for it in outcomes] == ["made"]
    assert queue.deleted == ["1"]


async def test_two_messages_of_one_image_take_turns() -> None:
    under_way: list[str] = []

    async def work(image: InputImage) -> Outcome:
        assert under_way == []
        under_way.append(image.identifier)
        await asyncio.sleep(0.001)
        under_way.clear()
        return Outcome(image.identifier, "made")

    queue, outcomes = await followed(work, message("1", notification("a")), message("2", notification("a")))

    assert [it.result for it in outcomes] == ["made", "made"]
    assert sorted(queue.deleted) == ["1", "2"]


async def test_message_is_held_while_it_is_worked_on() -> None:
    release = asyncio.Event()

    class Watched(RecordingQueue):
        async def hold(self, message: Message, seconds: int) -> None:
            await super().hold(message, seconds)
            if len(self.held) == 2:
                release.set()

    async def slowly(image: InputImage) -> Outcome:
        await release.wait()
        return Outcome(image.identifier, "made")

    stop = asyncio.Event()
    queue = Watched([message("1", notification("a"))], stop)
    visibility = VisibilityOptions(hold_s=0)  # a third of nothing: as often as the loop comes round
    stream = QueueWorker(queue, slowly, "s3://b/", KeyTemplates(), BatchOptions(1), visibility).run(stop)
    outcomes = [outcome async for outcome in stream]

    assert [it.result for it in outcomes] == ["made"]
    assert len(queue.held) >= 2
    assert queue.deleted == ["1"]


async def test_stop_finishes_what_is_under_way_and_takes_no_more() -> None:
    stop = asyncio.Event()

    async def stopping(image: InputImage) -> Outcome:
        stop.set()
        await asyncio.sleep(0)
        return Outcome(image.identifier, "made")

    queue = RecordingQueue([message(str(n), notification(str(n))) for n in range(9)], stop)
    stream = QueueWorker(queue, stopping, "s3://b/", KeyTemplates(), BatchOptions(2), VisibilityOptions()).run(stop)
    outcomes = [outcome async for outcome in stream]

    assert sorted(it.identifier for it in outcomes) == sorted(queue.deleted)
    assert len(outcomes) < 9
    assert len(outcomes) + len(queue.waiting) == 9


async def test_closing_leaves_messages_to_come_again() -> None:
    async def never(image: InputImage) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    stop = asyncio.Event()
    queue = RecordingQueue([message("1", notification("a"))], stop)
    async with aclosing(
        QueueWorker(queue, never, "s3://b/", KeyTemplates(), BatchOptions(1), VisibilityOptions()).run(stop)
    ) as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert queue.deleted == []
    assert len(asyncio.all_tasks()) == 1


# Amazon's own protocol, by moto


@dataclass
class Queues:
    client: Any
    url: str
    dead: str

    def send(self, body: str) -> None:
        self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def left(self, url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)


@pytest.fixture
def queues(moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Queues]:
    for name, value in moto_s3.environ.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("sqs")
    name = request.node.name.replace("[", "-").replace("]", "")[:60]
    dead = client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    url = client.create_queue(QueueName=name, Attributes={"RedrivePolicy": redrive})["QueueUrl"]
    yield Queues(client, url, dead)
    client.close()


async def test_sqs_redelivers_what_failed_and_puts_poison_aside(queues: Queues) -> None:
    for body in ("hello", notification("good"), notification("bad"), notification("twice")):
        queues.send(body)
    results: list[tuple[str, str]] = []
    stop = asyncio.Event()

    async def work(image: InputImage) -> Outcome:
        name = image.identifier
        if name == "bad" or (name == "twice" and ("twice", "failed") not in results):
            raise Malformed("it is bad")
        return Outcome(name, "made")

    queue: MessageQueue = SqsQueue(queues.url, wait_s=1)
    worker = QueueWorker(
        queue, work, "s3://b/", KeyTemplates(), BatchOptions(1, retries=0), VisibilityOptions(hold_s=1, again_s=0)
    )
    async for outcome in worker.run(stop):
        results.append((outcome.identifier[:7], outcome.result))
        if len(results) == 7:
            stop.set()

    assert sorted(results) == [
        ("bad", "failed"),
        ("bad", "failed"),
        ("good", "made"),
        ("message", "failed"),
        ("message", "failed"),
        ("twice", "failed"),
        ("twice", "made"),
    ]
    # The queue counts when it is asked once more; nothing is hidden any longer by then.
    for _ in range(3):
        assert await queue.take(10, hold_s=1) == []
    assert queues.left(queues.url) == 0
    assert queues.left(queues.dead) == 2


async def test_queue_that_is_not_there_is_said(queues: Queues) -> None:
    with pytest.raises(ConfigurationError, match="'nowhere' is no queue"):
        SqsQueue("nowhere")
    with pytest.raises(Missing, match="answered receive_message with"):
        await SqsQueue(queues.url + "-not").take(1, hold_s=1)


async def test_events_of_a_bucket_reach_its_renditions(queues: Queues, moto_s3: S3Server) -> None:
    """Written, overwritten, removed; told late and twice; stopped by SIGTERM."""
    masters, thumbs, client = moto_s3.bucket(), moto_s3.bucket(), moto_s3.client()
    for name in ("moon.jpg", "rosette.png"):
        client.upload_file(str(MASTERS / name), masters, name)
    client.put_object(Bucket=thumbs, Key="gone.jpg/open/100.jpg", Body=b"x")
    client.put_object(Bucket=thumbs, Key="gone.jpg/s.json", Body=b'{"o":[[100,100]],"a":[]}')
    gone = Target.of("gone.jpg", Blob("", "gone.jpg", "1", 1), Size(100, 100), policy("100"))
    client.put_object(Bucket=thumbs, Key="gone.jpg/special.json", Body=gone.sidecar(None, settled=True).dump())
    theirs = {"theirs.jpg/auth/100.jpg": b"x", "theirs.jpg/s.json": b'{"o":[],"a":[[100,100]]}'}
    for key, data in theirs.items():
        client.put_object(Bucket=thumbs, Key=key, Body=data)
    created = notification("moon.jpg", "rosette.png", bucket=masters)
    removed = notification("gone.jpg", "theirs.jpg", bucket=masters, event="ObjectRemoved:Delete")
    for body in (created, removed, created):
        queues.send(body)
    chosen = settings.load(source=f"s3://{masters}", thumbs=f"s3://{thumbs}", sizes="100", decoders=1)
    out = io.StringIO()
    options = Options(queue=queues.url, json=True)

    def stop_when_done() -> None:
        while queues.left(queues.url):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    watching = threading.Thread(target=stop_when_done)
    watching.start()
    code = await derive_images(chosen, [], options, out=out, console=Console(file=io.StringIO()))
    watching.join()

    assert code == 0
    results = sorted((it["identifier"], it["result"]) for it in map(json.loads, out.getvalue().splitlines()))
    assert results == [
        ("gone.jpg", "removed"),
        ("moon.jpg", "made"),
        ("moon.jpg", "stood"),
        ("rosette.png", "made"),
        ("rosette.png", "stood"),
        ("theirs.jpg", "foreign"),
    ]
    files = ("open/100.jpg", "s.json", "special.json")
    ours = [f"{name}/{file}" for name in ("moon.jpg", "rosette.png") for file in files]
    assert sorted(it["Key"] for it in client.list_objects_v2(Bucket=thumbs)["Contents"]) == [*ours, *theirs]
