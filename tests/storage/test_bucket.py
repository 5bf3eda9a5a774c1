"""What a bucket makes of a store that fails, answers wrongly, stalls or is slow: never a wrong byte, never a hang."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from special.errors import (
    Archived,
    Changed,
    ConfigurationError,
    Denied,
    Missing,
    RangesIgnored,
    SourceError,
    Unreachable,
)
from special.observability.trace import tracing
from special.storage import Bucket, RetryPolicy, open_source
from special.storage.blob import Blob, Span
from special.storage.source import body
from tests.support.servers import NO_OTHER_AWS

DATA = bytes(range(256)) * 4096
TAG = '"one"'
HASTE = RetryPolicy(connect_s=2.0, request_s=2.0, retries=3, backoff_s=0.001)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def span(self) -> tuple[int, int] | None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(match[1]), min(int(match[2]) + 1, len(DATA))) if match else None


Reply = Callable[[Request], bytes]


def right(request: Request, *, tag: str = TAG, shift: int = 0, cut: int = 0, longer: int = 0) -> bytes:
    """What a good store answers; or, with the named fault, a bad one."""
    start, stop = request.span or (0, len(DATA))
    head = f"ETag: {tag}\r\nContent-Length: {stop - start + longer}\r\nLast-Modified: Sun, 22 Nov 2026 17:20:39 GMT\r\n"
    if request.span:
        head = f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {start + shift}-{stop - 1 + shift}/{len(DATA)}\r\n" + head
    else:
        head = "HTTP/1.1 200 OK\r\n" + head
    return head.encode() + b"\r\n" + DATA[start : stop - cut]


def status(number: int) -> Reply:
    return lambda _: f"HTTP/1.1 {number} Said\r\nContent-Length: 0\r\n\r\n".encode()


def breaking(after: int) -> Reply:
    """The connection ends in the middle of the body."""
    return lambda request: right(request, cut=(request.span or (0, len(DATA)))[1] - after)


def reset(_: Request) -> bytes:
    return b""


@dataclass
class Script:
    """A store that answers by a script, then rightly. Each reply closes its connection."""

    replies: list[Reply] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    url: str = ""
    stalls: int = 0
    """Number of first requests that get no answer at all."""
    gather: int = 0
    """No request is answered before that many are there."""
    most_at_once: int = 0
    _at_once: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reached(self, requests: int) -> None:
        """Wait for that many requests."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.seen) >= requests)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = lines[0].split(" ")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            request = Request(method, path, headers)
            reply = self.replies.pop(0) if self.replies else right
            self.seen.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            stalled = len(self.seen) <= self.stalls
            async with self._changed:
                self._changed.notify_all()
            if stalled:
                await reader.read()  # until the client gives up
            await self.reached(self.gather)
            self._at_once -= 1
            writer.write(reply(request).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            await writer.drain()
        except ConnectionError:
            pass  # the client has what it wanted
        finally:
            writer.close()


@asynccontextmanager
async def serving(*replies: Reply, stalls: int = 0, gather: int = 0) -> AsyncIterator[Script]:
    script = Script(list(replies), stalls=stalls, gather=gather)
    server = await asyncio.start_server(script.answer, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield script
    finally:
        server.close()


def opened(script: Script, retry_policy: RetryPolicy = HASTE, concurrency: int = 64) -> tuple[Bucket, Blob]:
    source = open_source(script.url, retry_policy=retry_policy, concurrency=concurrency)
    assert isinstance(source, Bucket)
    return source, Blob(source.root, "a", TAG, len(DATA))


def failures() -> float:
    kinds = ("unreachable", "ranges-ignored")
    return sum(REGISTRY.get_sample_value("special_source_errors_total", {"kind": kind}) or 0 for kind in kinds)


PASSING = [
    pytest.param(status(503), id="503"),
    pytest.param(status(500), id="500"),
    pytest.param(status(429), id="429"),
    pytest.param(reset, id="reset"),
    pytest.param(breaking(100), id="short-body"),
    pytest.param(lambda request: right(request, cut=1), id="one-byte-short"),
    pytest.param(lambda request: right(request, shift=1), id="other-range"),
    pytest.param(lambda request: right(Request("GET", "/a", {})), id="200-for-206"),
    pytest.param(lambda request: b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nabc", id="no-content-range"),
]


@pytest.mark.parametrize("fault", PASSING)
async def test_what_may_pass_is_tried_again(fault: Reply) -> None:
    async with serving(fault, fault) as script:
        source, blob = opened(script)
        before = failures()
        with tracing() as trace:
            assert await source.read(blob, [Span(1000, 3000)]) == [DATA[1000:3000]]
        assert len(script.seen) == trace.gets == 3
        assert failures() - before == 2
        assert {request.headers["range"] for request in script.seen} == {"bytes=1000-2999"}
        assert {request.headers["if-match"] for request in script.seen} == {TAG}


@pytest.mark.parametrize("fault", PASSING)
async def test_a_store_that_keeps_failing_is_unreachable(fault: Reply) -> None:
    async with serving(*[fault] * 9) as script:
        source, blob = opened(script)
        with pytest.raises(Unreachable):
            await source.read(blob, [Span(1000, 3000)])
        assert len(script.seen) == 1 + HASTE.retries


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(status(404), Missing, id="404"),
        pytest.param(status(403), Denied, id="403"),
        pytest.param(status(401), Denied, id="401"),
        pytest.param(status(412), Changed, id="412"),
        pytest.param(status(416), Changed, id="416-within-bounds"),
        pytest.param(status(418), SourceError, id="418"),
        pytest.param(lambda request: right(request, tag='"two"'), Changed, id="if-match-ignored"),
        pytest.param(lambda request: right(request, tag='W/"one"'), Changed, id="weaker"),
    ],
)
async def test_what_will_not_pass_is_not_tried_again(fault: Reply, error: type[SourceError]) -> None:
    async with serving(fault) as script:
        source, blob = opened(script)
        with pytest.raises(error):
            await source.read(blob, [Span(1000, 3000)])
        assert len([request for request in script.seen if request.path == "/a"]) == 1


async def test_one_changed_span_fails_the_whole_read() -> None:
    async with serving(
        *[lambda request: right(request, tag='"two"' if request.span == (20, 30) else TAG)] * 3
    ) as script:
        source, blob = opened(script)
        with pytest.raises(Changed):
            await source.read(blob, [Span(0, 10), Span(20, 30), Span(40, 50)])


async def test_a_store_that_says_nothing_is_asked_again_in_time() -> None:
    async with serving(stalls=2) as script:
        source, blob = opened(script, RetryPolicy(request_s=0.2, backoff_s=0.001))
        assert await source.read(blob, [Span(1000, 3000)]) == [DATA[1000:3000]]
        assert len(script.seen) == 3


async def test_no_try_starts_after_the_deadline() -> None:
    async with serving(stalls=99) as script:
        source, blob = opened(script, RetryPolicy(request_s=0.2, deadline_s=0.1, retries=50, backoff_s=0.001))
        with pytest.raises(Unreachable):
            await source.read(blob, [Span(1000, 3000)])
        assert len([request for request in script.seen if request.path == "/a"]) == 1


async def test_a_small_body_that_breaks_is_mended_unseen() -> None:
    async with serving(breaking(100)) as script:
        source, _ = opened(script)
        answer = await source.open("a", span=Span(0, 65536))
        assert len(script.seen) == 2
        assert await body(answer) == DATA[:65536]


async def test_a_long_body_goes_on_where_it_broke() -> None:
    async with serving(breaking(400_000), breaking(700_000)) as script:
        source, blob = opened(script)
        answer = await source.open("a")
        assert (answer.blob.etag, answer.span) == (TAG, Span.whole(blob))
        assert await body(answer) == DATA
        starts = [request.span[0] if request.span else None for request in script.seen]
        assert starts[0] is None
        assert len(starts) == 3
        assert 0 <= (starts[1] or 0) <= 400_000
        assert (starts[1] or 0) <= (starts[2] or 0) <= 700_000
        assert [request.headers.get("if-match") for request in script.seen] == [None, TAG, TAG]


async def test_a_long_body_never_goes_on_with_another_version() -> None:
    async with serving(breaking(400_000), lambda request: right(request, tag='"two"')) as script:
        source, _ = opened(script)
        answer = await source.open("a")
        with pytest.raises(Changed):
            await body(answer)


async def test_spans_are_asked_for_at_once() -> None:
    """The store answers no request before all have come."""
    spans = [Span(start, start + 10) for start in range(0, 1600, 100)]
    async with serving(gather=len(spans)) as script:
        source, blob = opened(script)
        assert await source.read(blob, spans) == [DATA[span.start : span.stop] for span in spans]


async def test_no_more_are_under_way_than_allowed() -> None:
    spans = [Span(start, start + 10) for start in range(0, 4000, 100)]
    async with serving(gather=3) as script:
        source, blob = opened(script, concurrency=3)
        assert await source.read(blob, spans) == [DATA[span.start : span.stop] for span in spans]
        assert script.most_at_once == 3
        assert len(script.seen) == len(spans)


async def test_a_cancelled_read_leaves_nothing_under_way() -> None:
    async with serving(stalls=4) as script:
        source, blob = opened(script, concurrency=4)
        read = asyncio.create_task(source.read(blob, [Span(start, start + 1) for start in range(4)]))
        await script.reached(4)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        assert await source.read(blob, [Span(7, 9)] * 8) == [DATA[7:9]] * 8


async def test_a_server_without_tags_is_pinned_by_date_and_size() -> None:
    def plain(date: str) -> Reply:
        return lambda request: right(request).replace(b'ETag: "one"\r\n', b"").replace(b"22 Nov", date.encode())

    async with serving(plain("22 Nov"), plain("22 Nov"), plain("23 Nov")) as script:
        source, _ = opened(script)
        blob = await source.stat("a")
        assert blob.etag.startswith('W/"')
        assert await source.read(blob, [Span(1, 3)]) == [DATA[1:3]]
        with pytest.raises(Changed):
            await source.read(blob, [Span(1, 3)])
        assert not any("if-match" in request.headers for request in script.seen)


# What a store says of keys that are not there, and of those that it denies


def refusal(number: int, code: str, message: str = "") -> Reply:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return lambda _: f"HTTP/1.1 {number} Said\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def sent(script: Script) -> list[str]:
    return [f"{request.method} {request.path}" for request in script.seen]


async def test_a_store_that_denies_absent_keys_says_so_once_and_they_are_absent() -> None:
    denied = refusal(403, "AccessDenied", "Access Denied")
    async with serving(*[denied] * 4) as script:
        source, blob = opened(script)
        for read in (source.stat("b"), source.open("c"), source.read(blob, [Span(0, 9)])):
            with pytest.raises(Missing):
                await read
        assert sent(script) == ["HEAD /b", "GET /.special-probe", "GET /c", "GET /a"]


async def test_a_store_that_names_absent_keys_means_it_when_it_denies() -> None:
    denied = refusal(403, "AccessDenied", "Access Denied")
    async with serving(refusal(404, "NoSuchKey"), *[denied] * 3) as script:
        source, blob = opened(script)
        await source.probe_absence()
        for read in (source.stat("b"), source.open("c"), source.read(blob, [Span(0, 9)])):
            with pytest.raises(Denied):
                await read
        await source.probe_absence()
        assert sent(script) == ["GET /.special-probe", "HEAD /b", "GET /c", "GET /a"]


@pytest.mark.parametrize(
    ("code", "told"), [("AccessDenied", r"permit s3:{}Object"), ("ExpiredToken", "the session token has expired")]
)
async def test_what_may_not_be_written_or_deleted_is_told_with_the_permission_that_it_needs(code: str, told: str):
    async with serving(refusal(403, code), refusal(403, code)) as script:
        source, _ = opened(script)
        with pytest.raises(Denied, match=told.format("Put")):
            await source.write("b", b"data")
        with pytest.raises(Denied, match=told.format("Delete")):
            await source.delete("b")


async def test_a_store_that_is_permitted_to_list_later_on_means_what_it_denies_from_then_on() -> None:
    denied = refusal(403, "AccessDenied")
    async with serving(denied, refusal(404, "NoSuchKey"), denied) as script:
        source, _ = opened(script)
        await source.probe_absence()
        with pytest.raises(Missing):
            await source.open("b")
        with pytest.raises(Denied):
            await source.open("c")


@pytest.mark.parametrize(
    ("answer", "kind", "status", "told"),
    [
        pytest.param(refusal(403, "RequestTimeTooSkewed"), Denied, 502, "set it, best by NTP", id="clock"),
        pytest.param(refusal(403, "InvalidAccessKeyId"), Denied, 502, "may have been revoked", id="revoked"),
        pytest.param(refusal(403, "SignatureDoesNotMatch"), Denied, 502, "correct the access key", id="secret"),
        pytest.param(refusal(400, "ExpiredToken"), Denied, 502, "renew the credentials", id="expired"),
        pytest.param(
            refusal(403, "AccessDenied", "not authorized to perform: kms:Decrypt on resource"),
            Denied,
            502,
            "permit kms:Decrypt",
            id="kms",
        ),
        pytest.param(refusal(400, "KMS.DisabledException"), Denied, 502, "enable it", id="kms-disabled"),
        pytest.param(
            refusal(403, "AccessDenied", "not authorized to perform: s3:GetObject on resource"),
            Denied,
            502,
            "s3:GetObject",
            id="policy",
        ),
        pytest.param(refusal(403, "InvalidObjectState"), Archived, 503, "restore it", id="glacier"),
    ],
)
async def test_a_refusal_with_a_reason_is_never_an_absent_key(
    answer: Reply, kind: type[SourceError], status: int, told: str
) -> None:
    async with serving(refusal(403, "AccessDenied"), answer) as script:
        source, _ = opened(script)
        await source.probe_absence()
        with pytest.raises(kind, match=told) as raised:
            await source.open("b")
    assert raised.value.status == status
    assert raised.value.public != Missing.sentence


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "InvalidAccessKeyId", "ExpiredToken"])
async def test_a_start_ends_where_every_key_is_refused(code: str) -> None:
    async with serving(refusal(403, code)) as script:
        source, _ = opened(script)
        with pytest.raises(ConfigurationError, match=code):
            await source.check()


async def test_a_start_tells_what_permission_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(refusal(403, "AccessDenied")) as script:
        await opened(script)[0].check()
    assert "permit s3:ListBucket" in caplog.text


async def test_a_start_tells_of_a_store_that_answers_for_any_key(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as script:
        await opened(script)[0].check()
    assert "is it a store?" in caplog.text


async def test_a_store_that_refuses_every_match_is_asked_without(caplog: pytest.LogCaptureFixture) -> None:
    """Its answers are of the pinned version all the same, or are not taken."""

    def stubborn(request: Request) -> bytes:
        return status(412)(request) if "if-match" in request.headers else right(request)

    other = lambda request: right(request, tag='"two"')  # noqa: E731
    async with serving(*[stubborn] * 5, other) as script:
        source, blob = opened(script)
        with pytest.raises(Changed):
            await source.read(blob, [Span(0, 9)])
        for _ in range(2):
            assert await source.read(blob, [Span(0, 9)]) == [DATA[:9]]
        with pytest.raises(Changed):
            await source.read(blob, [Span(0, 9)])
        matched = [(request.method, "if-match" in request.headers) for request in script.seen]
    assert matched == [("GET", True), ("GET", True), ("HEAD", False), *[("GET", False)] * 3]
    assert caplog.text.count("refuses requests with If-Match") == 1


async def test_a_store_without_ranges_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    whole = lambda _: right(Request("GET", "/a", {}))  # noqa: E731
    async with serving(*[whole] * 8) as script:
        source, blob = opened(script)
        for _ in range(2):
            with pytest.raises(RangesIgnored) as raised:
                await source.read(blob, [Span(1000, 3000)])
    assert raised.value.status == 502
    assert caplog.text.count("ignores Range") == 1


async def test_a_store_that_has_sent_parts_may_send_them_again(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(right, *[lambda _: right(Request("GET", "/a", {}))] * 8) as script:
        source, blob = opened(script)
        assert await source.read(blob, [Span(1000, 3000)]) == [DATA[1000:3000]]
        with pytest.raises(Unreachable) as raised:
            await source.read(blob, [Span(1000, 3000)])
    assert raised.value.status == 503
    assert "ignores Range" not in caplog.text


LISTING = """<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>one</Name><KeyCount>1</KeyCount>
<IsTruncated>false</IsTruncated><Contents><Key>a.tif</Key><ETag>"x"</ETag><Size>3</Size></Contents></ListBucketResult>"""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Bucket]:
    def bucket(script: Script) -> Bucket:
        credentials = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": script.url}
        for name, value in (NO_OTHER_AWS | credentials).items():
            monkeypatch.setenv(name, value)
        source = open_source("s3://one", retry_policy=RetryPolicy(request_s=30.0, retries=0))
        assert isinstance(source, Bucket)
        return source

    return bucket


async def test_a_listing_may_name_no_times(s3: Callable[[Script], Bucket]) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(LISTING)}\r\n\r\n{LISTING}".encode()
    async with serving(lambda _: answer) as script:
        source = s3(script)
        (found,) = [blob async for blob in source.list()]
        await source.close()
    assert (found.key, found.etag, found.size, found.modified) == ("a.tif", '"x"', 3, None)


async def test_a_listing_that_is_denied_names_the_permission(s3: Callable[[Script], Bucket]) -> None:
    async with serving(refusal(403, "AccessDenied")) as script:
        source = s3(script)
        with pytest.raises(Denied, match=r"s3://one/ cannot be listed: permit s3:ListBucket \(An error occurred"):
            await anext(aiter(source.list()))
        await source.close()
