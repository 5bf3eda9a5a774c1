"""The proxy itself: it lets everything through, or spoils it as it was told to, and its log is exact."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic, sleep

import httpx
import pytest

from special.errors import Unreachable
from special.storage import RetryPolicy, open_source
from special.storage.blob import Span
from tests.soak.proxy import (
    ALL_FAULTS,
    BlackHole,
    Delay,
    Drip,
    Exchange,
    Fault,
    Held,
    Long,
    Proxy,
    Refused,
    Reset,
    Short,
    Weather,
    Whole,
    WrongRange,
    proxy,
)
from tests.support.servers import S3Server
from tests.support.waiting import until

KEY = "a b/ü+c.tif"
DATA = bytes(n * n % 251 for n in range(200_000))
ASKED = Span(1000, 101_000)


@pytest.fixture(scope="module")
def bucket(seaweed_s3: S3Server) -> str:
    name = seaweed_s3.bucket()
    seaweed_s3.client().put_object(Bucket=name, Key=KEY, Body=DATA)
    return name


@pytest.fixture
def between(seaweed_s3: S3Server) -> Iterator[Proxy]:
    with proxy(seaweed_s3.endpoint) as between:
        yield between


def signed(between: Proxy, s3: S3Server, bucket: str) -> str:
    """A URL that says for itself who asks, made for the proxy's own address."""
    client = replace(s3, endpoint=between.endpoint).client()
    url: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": KEY})
    return url


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers={"Range": f"bytes={ASKED.start}-{ASKED.stop - 1}", **headers}, timeout=5)


def test_all_passes_and_is_taken_down(between: Proxy, seaweed_s3: S3Server, bucket: str) -> None:
    client = replace(seaweed_s3, endpoint=between.endpoint).client()
    client.put_object(Bucket=bucket, Key="new", Body=DATA)
    whole = client.get_object(Bucket=bucket, Key=KEY)
    part = client.get_object(Bucket=bucket, Key=KEY, Range="bytes=1000-1999", IfMatch=whole["ETag"])
    assert whole["Body"].read() == client.get_object(Bucket=bucket, Key="new")["Body"].read() == DATA
    assert part["Body"].read() == DATA[1000:2000]
    assert [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]] == sorted([KEY, "new"])
    with pytest.raises(client.exceptions.ClientError):
        client.get_object(Bucket=bucket, Key=KEY, IfMatch='"another"')
    log = [(each.method, each.key, each.span, each.match, each.status, each.sent_bytes) for each in between.log]
    assert log[:4] == [
        ("PUT", "new", None, None, 200, 0),
        ("GET", KEY, None, None, 200, len(DATA)),
        ("GET", KEY, Span(1000, 2000), whole["ETag"], 206, 1000),
        ("GET", "new", None, None, 200, len(DATA)),
    ]
    assert (log[-1][0], log[-1][1], log[-1][4]) == ("GET", KEY, 412)
    deadline = monotonic() + 5
    while between.running and monotonic() < deadline:  # the client has it all before the proxy has counted it
        sleep(0.01)
    assert between.running == []


SPOILT: list[tuple[Fault, int, int, slice]] = [
    (Delay(0.1), 206, len(ASKED), slice(1000, 101_000)),
    (Short(10), 206, len(ASKED) - 10, slice(1000, 100_990)),
    (Whole(), 200, len(DATA), slice(0)),
    (Long(7), 206, len(ASKED) + 7, slice(0)),
    (WrongRange(5), 206, len(ASKED), slice(1000, 101_000)),
    (Refused(), 503, 0, slice(0)),
]


@pytest.mark.parametrize(("fault", "status", "length", "right"), SPOILT, ids=[type(it[0]).__name__ for it in SPOILT])
def test_answers_are_spoilt(
    between: Proxy, seaweed_s3: S3Server, bucket: str, fault: Fault, status: int, length: int, right: slice
) -> None:
    between.choose = lambda exchange: fault
    response = get(signed(between, seaweed_s3, bucket))
    while between.running:  # the client may have the last byte before the proxy has counted it
        time.sleep(0.005)
    assert response.status_code == between.log[0].status == status
    assert len(response.content) == between.log[0].sent_bytes
    if status != 503:
        assert len(response.content) == length
        assert right.stop == 0 or response.content == DATA[right]
    match fault:
        case Whole():
            assert response.content[ASKED.start : ASKED.stop] == DATA[ASKED.start : ASKED.stop]
            assert response.content[: ASKED.start] == bytes(ASKED.start)
        case Long():
            assert response.content[: len(ASKED)] == DATA[ASKED.start : ASKED.stop]
        case WrongRange():
            assert response.headers["content-range"] == f"bytes 1005-101004/{len(DATA)}"


def test_a_reset_comes_at_its_byte(between: Proxy, seaweed_s3: S3Server, bucket: str) -> None:
    between.choose = lambda exchange: Reset(70_001)
    url, asked = signed(between, seaweed_s3, bucket), {"Range": f"bytes={ASKED.start}-{ASKED.stop - 1}"}
    received = bytearray()

    def receive(response: httpx.Response) -> None:
        for piece in response.iter_raw():
            received.extend(piece)

    with httpx.stream("GET", url, headers=asked) as response, pytest.raises(httpx.TransportError):
        receive(response)
    assert received == DATA[ASKED.start : ASKED.start + len(received)]
    assert (between.log[0].status, between.log[0].sent_bytes) == (206, 70_001)


@pytest.mark.parametrize("fault", [BlackHole(), Drip(20.0)], ids=["black-hole", "drip"])
async def test_nothing_is_left_of_clients_that_leave(
    between: Proxy, seaweed_s3: S3Server, bucket: str, fault: Fault
) -> None:
    between.choose = lambda exchange: fault
    url = signed(between, seaweed_s3, bucket)
    async with httpx.AsyncClient() as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get(url), 0.5)
    await until(lambda: between.running == [])
    assert between.log[0].sent_bytes < 100


async def test_what_is_held_goes_on_when_it_is_released(between: Proxy, seaweed_s3: S3Server, bucket: str) -> None:
    held = Held(threading.Event())
    between.choose = lambda exchange: held
    threading.Timer(0.2, held.released.set).start()
    async with httpx.AsyncClient(timeout=5) as client:
        response = await client.get(signed(between, seaweed_s3, bucket))
    assert response.content == DATA


def test_weather_is_the_same_for_the_same_seed() -> None:
    def day(seed: int) -> list[Fault | None]:
        weather = Weather(seed, rate=0.1)
        return [weather(Exchange(n, "GET", "b", "k", None, None, 0, 0.0)) for n in range(5000)]

    assert day(1) == day(1) != day(2)
    kinds = Counter(day(1))
    assert set(kinds) == {None, *ALL_FAULTS}
    assert 0.08 < 1 - kinds[None] / 5000 < 0.2


@pytest.mark.parametrize("fault", ALL_FAULTS, ids=repr)
async def test_no_fault_reaches_who_reads_a_source(
    between: Proxy, seaweed_s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """One faulty answer is mended unseen; nothing but faults is a typed error; wrong bytes there are never."""
    for name, value in replace(seaweed_s3, endpoint=between.endpoint).environ.items():
        monkeypatch.setenv(name, value)
    source = open_source(f"s3://{bucket}", retry_policy=RetryPolicy(request_s=0.8, retries=1, backoff_s=0.01))
    blob = await source.stat(KEY)
    first = len(between.log)
    between.choose = lambda exchange: fault if exchange.number == first else None
    assert await source.read(blob, [ASKED]) == [DATA[ASKED.start : ASKED.stop]]
    assert len(between.log) - first == (1 if isinstance(fault, Delay) else 2)
    between.choose = lambda exchange: fault
    if isinstance(fault, Delay):
        assert await source.read(blob, [ASKED]) == [DATA[ASKED.start : ASKED.stop]]
    else:
        with pytest.raises(Unreachable):
            await source.read(blob, [ASKED])
    await source.close()
