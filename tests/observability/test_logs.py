"""What stands in the log, to the letter, and what never does."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from special import composition
from special.errors import BadRequest, Denied, Missing, TooExpensive
from special.images import Masters
from special.observability import Trace, logs
from special.observability.logs import Brief, Json, Logfmt, clean, escape
from special.renditions import RenditionStore
from special.serving import Engine
from special.settings import Settings, load
from special.storage import open_source
from special.volume import Volume
from special.web import observers
from special.web.app import App
from special.web.observers import FinishedRequest
from special.workers import Workers
from tests.support.memory import MemorySource

FIELDS = {"method": "GET", "path": "/iiif/3/a%0Ab/info.json", "status": 404, "outcome": "missing", "ms": 1.5}


def record(name: str, said: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "", 0, said, (), None)
    made.created = 1_790_000_000.25
    made.__dict__.update(extra)
    return made


REQUEST = record(logs.LOGGER, "request", fields={**FIELDS, "error": "no 'a\nb' = \"there\""})


def test_a_request_as_json() -> None:
    assert Json().format(REQUEST) == (
        '{"time":"2026-09-21T14:13:20.250Z","level":"warning","method":"GET","path":"/iiif/3/a%0Ab/info.json",'
        '"status":404,"outcome":"missing","ms":1.5,"error":"no \'a\\nb\' = \\"there\\""}'
    )


def test_a_request_as_pairs() -> None:
    assert Logfmt().format(REQUEST) == (
        "time=2026-09-21T14:13:20.250Z level=warning method=GET path=/iiif/3/a%0Ab/info.json "
        'status=404 outcome=missing ms=1.5 error="no \'a\\nb\' = \\"there\\""'
    )


def test_a_failure_in_words() -> None:
    line = Brief().format(REQUEST)
    assert line.partition(" WARNING ")[2] == ("GET /iiif/3/a%0Ab/info.json: missing: no 'a\\x0ab' = \"there\"")


@pytest.mark.parametrize("form", [Json(), Logfmt(), Brief()], ids=lambda form: type(form).__name__)
@pytest.mark.parametrize("said", ["two\nlines", "a\r\nb", "\x1b[31mred", "line\u2028end", "half \ud800", "\x85"])
def test_nothing_said_can_pass_for_another_line(form: logging.Formatter, said: str) -> None:
    line = form.format(record("special.any", said))
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize(
    ("said", "left"),
    [
        pytest.param(
            "GET https://b/k?X-Amz-Signature=abc&a=1", "GET https://b/k?X-Amz-Signature=…&a=1", id="presigned"
        ),
        pytest.param("?x-amz-security-token=Fwo/x%3D failed", "?x-amz-security-token=… failed", id="session"),
        pytest.param("?access_token=abc", "?access_token=…", id="token"),
        pytest.param("Authorization: AWS4-HMAC-SHA256 Credential=AK/1", "Authorization: …", id="authorization"),
        pytest.param('{"cookie": "login=eyJhbGc.e30.s"}', '{"cookie": …', id="cookie"),
        pytest.param("host:b\nx-amz-security-token:abc\nx", "host:b\nx-amz-security-token:…\nx", id="canonical"),
        pytest.param("<AWSAccessKeyId>AKIA1</AWSAccessKeyId>", "<AWSAccessKeyId>…</AWSAccessKeyId>", id="key"),
        pytest.param("<StringToSign>a\nb</StringToSign>!", "<StringToSign>…</StringToSign>!", id="signed"),
        pytest.param("<CanonicalRequest>cut short", "<CanonicalRequest>…", id="cut"),
        pytest.param("Bearer abc.def", "Bearer …", id="bearer"),
        pytest.param("got eyJhbGciOi.eyJzdWIi.c2ln here", "got ey… here", id="jwt"),
        pytest.param("s3://b/k is 'W/\"x\"' at byte 12", "s3://b/k is 'W/\"x\"' at byte 12", id="nothing"),
    ],
)
def test_secrets_are_taken_out(said: str, left: str) -> None:
    assert clean(said) == left


def test_what_is_too_long_is_cut() -> None:
    assert clean("a" * 9000) == "a" * logs.LONGEST + "…"


def test_escapes_leave_the_rest() -> None:
    assert escape("Köln\t→") == "Köln\\x09→"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the log says from now on, as JSON."""
    stream, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    logs.setup("json", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("special").setLevel(logging.NOTSET)
    logging.getLogger(logs.LOGGER).setLevel(logging.NOTSET)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Guarded(MemorySource):
    """Denies one key, as a store does that may not be listed."""

    async def open(self, key: str, **named: object):  # type: ignore[no-untyped-def,override]
        if key == "denied":
            raise Denied("s3://b/denied: 403 <StringToSign>secret</StringToSign>")
        return await super().open(key, **named)  # type: ignore[arg-type]


@pytest.mark.service
async def test_each_request_is_one_line_and_strangers_learn_less(written: io.StringIO, tmp_path: Path) -> None:
    def made(settings: Settings) -> Engine:
        store = RenditionStore(open_source(settings.thumbs_url, create=True))
        volume = Volume(settings.volume_directory, size_bytes=2**24)
        workers = Workers(1, memory_bytes=2**32, lanes=composition.lanes(settings))
        source = Guarded()
        return composition.assemble(
            settings, source=source, store=store, masters=Masters(source), volume=volume, workers=workers
        )

    app = App(load(source=str(tmp_path), home=tmp_path, decoders=1), made)
    transport = httpx.ASGITransport(app)
    async with app.running(), httpx.AsyncClient(transport=transport, base_url="http://example.org") as client:
        secret = {"Authorization": "Bearer abc", "Cookie": "login=def"}
        secret |= {"User-Agent": "viewer/1", "Traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-Id": "other"}
        answers = [
            await client.get(f"/iiif/3/{name}/info.json?token=ghi", headers=secret)
            for name in ("denied", "missing", "a%00b")
        ]
    assert [answer.status_code for answer in answers] == [502, 404, 400]
    assert [answer.text for answer in answers[:2]] == [f"{Denied.sentence}\n", f"{Missing.sentence}\n"]
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    told = [line for line in lines if "path" in line]
    assert [(it["outcome"], it["level"], it["path"]) for it in told] == [
        ("denied", "warning", "/iiif/3/denied/info.json"),
        ("missing", "info", "/iiif/3/missing/info.json"),
        ("bad-request", "info", "/iiif/3/a%00b/info.json"),
    ]
    assert [*told[0]] == [
        *("time", "level", "method", "path", "status", "outcome", "route", "ms", "gets", "bytes"),
        *("source_ms", "queue_ms", "decode_ms", "encode_ms"),
        *("sent_bytes", "client", "agent", "request_id", "process", "error"),
    ]
    assert [it["sent_bytes"] for it in told] == [len(answer.content) for answer in answers]
    assert {(it["agent"], it["request_id"], it["process"]) for it in told} == {("viewer/1", TRACE, os.getpid())}
    assert not any(word in written.getvalue() for word in ("secret", "abc", "def", "ghi", "login"))


def test_what_takes_too_much_memory_is_told_in_brief_too(written: io.StringIO) -> None:
    logs.setup("brief", written)
    for failure in (TooExpensive("decode_memory leaves it 9 bytes"), BadRequest("no size")):
        observers.log(FinishedRequest("GET", "/iiif/a", [], Trace(), 0.0, 0.1, failure.status, failure.code, failure))
    (line,) = written.getvalue().splitlines()
    assert line.endswith("WARNING GET /iiif/a: too-dear: decode_memory leaves it 9 bytes")
