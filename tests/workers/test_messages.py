"""What a decoder process can make its parent build: errors by their code, and the results of its own job."""

from __future__ import annotations

import json
import pickle
import subprocess

import pytest

from special import errors
from special.codecs import CutTiles, Encoding, Rendered, TileCut, cut_tiles, render, render_all
from special.geometry import Box, Frame, Size
from special.iiif import Job
from special.workers.messages import (
    LENGTHS,
    Failed,
    Raised,
    Ready,
    Reply,
    Returned,
    Unready,
    dump_reply,
    load_reply,
)
from special.workers.results import PIXEL_BYTES, PLAIN_BYTES, form_of

JOB = Job(Box(0, 0, 100, 50), Size(100, 50), False, 0.0, "default", "jpg")
CUT = TileCut(Frame(0, 0, 64, 64), Size(64, 64))


def read(message: bytes) -> Reply:
    header_bytes, body_bytes = LENGTHS.unpack_from(message)
    content = memoryview(message)[LENGTHS.size :]
    assert len(content) == header_bytes + body_bytes
    return load_reply(content[:header_bytes], content[header_bytes:])


def test_large_bytes_travel_uncopied() -> None:
    large = bytes(1 << 20)
    assert any(part is large for part in dump_reply(Returned(None, [large])))


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Ready({"seccomp": True, "landlock": False}), id="ready"),
        pytest.param(Unready("no memory"), id="unready"),
        pytest.param(Failed("Traceback\n…"), id="failed"),
        pytest.param(Returned(None, [b""]), id="no bytes"),
        pytest.param(Returned([1, "words", {"n": None}], [bytes(70_000), b"x" * (3 << 20), b"y"]), id="3 MB"),
    ],
)
def test_a_reply_is_read_back(reply: Reply) -> None:
    assert read(b"".join(dump_reply(reply))) == reply


@pytest.mark.parametrize("kind", [errors.BadRequest, errors.Malformed, errors.TooExpensive, errors.Unsupported])
def test_an_error_of_the_master_or_the_request_is_raised_as_itself(kind: type[errors.SpecialError]) -> None:
    reply = read(b"".join(dump_reply(Raised(kind("page 3 has no tiles")))))
    assert isinstance(reply, Raised)
    assert (type(reply.error), str(reply.error)) == (kind, "page 3 has no tiles")


def test_any_other_error_is_a_failure() -> None:
    assert read(b"".join(dump_reply(Raised(errors.Denied("s3://x"))))) == Failed("Denied: s3://x")


@pytest.mark.parametrize(
    ("header", "body"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"cos\nsystem\n.", b"", id="an old pickle"),
        pytest.param(pickle.dumps(subprocess.Popen), b"", id="a pickle"),
        pytest.param(b"[" * 100_000, b"", id="many levels"),
        pytest.param(b"1" * 5000, b"", id="a long number"),
        pytest.param(b"\xff", b"", id="no text"),
        pytest.param(b"{}", b"", id="no reply"),
        pytest.param(b'["ready",{"seccomp":"yes"}]', b"", id="a layer that is no truth"),
        pytest.param(b'["failed","x"]', b"y", id="a failure with bytes"),
        pytest.param(b'["raised","denied","x"]', b"", id="an error that no codec raises"),
        pytest.param(b'["raised",["malformed"],"x"]', b"", id="no code"),
        pytest.param(b'["returned",null,[2]]', b"y", id="a part longer than the body"),
        pytest.param(b'["returned",null,[]]', b"y", id="bytes of no part"),
        pytest.param(b'["returned",null,[2,-1]]', b"y", id="a negative length"),
        pytest.param(b'["returned",null,[true]]', b"y", id="a length that is no number"),
        pytest.param(b'["returned",null,[1e0]]', b"y", id="a length that is no integer"),
    ],
)
def test_what_is_no_reply_is_refused(header: bytes, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whatever it says, the child is killed
        load_reply(header, memoryview(body))


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        pytest.param(render, (None, JOB, Encoding()), Rendered(b"picture", 1.5, 2.0), id="a picture"),
        pytest.param(
            render_all,
            (None, [JOB, JOB], Encoding()),
            [Rendered(b"one", 1.5, 2.0), Rendered(b"two", 0.0, 0.25)],
            id="two pictures",
        ),
        pytest.param(
            cut_tiles,
            (None, [CUT, CUT], 256, Encoding(), 1),
            CutTiles(((b"edge", b"filled up"), (b"whole",)), 3),
            id="tiles",
        ),
        pytest.param(len, ("words",), 5, id="plain"),
        pytest.param(bytes, (2,), b"\0\0", id="plain bytes"),
    ],
)
def test_a_result_is_read_back_within_its_bound(function: object, args: tuple[object, ...], result: object) -> None:
    form = form_of(function)  # type: ignore[arg-type]
    reply = read(b"".join(dump_reply(form.pack(result))))
    assert isinstance(reply, Returned)
    assert form.unpack(reply, args) == result
    assert sum(map(len, reply.parts)) <= form.max_bytes(args)


def test_bounds_follow_the_jobs_output() -> None:
    small, double = form_of(render).max_bytes((None, JOB)), form_of(render_all).max_bytes((None, [JOB, JOB]))
    assert (small, double) == (65536 + 5000 * PIXEL_BYTES, 2 * small)
    assert form_of(cut_tiles).max_bytes((None, [CUT], 256, Encoding(), 1)) == 2 * (65536 + 65536 * PIXEL_BYTES)
    assert form_of(len).max_bytes(("x",)) == PLAIN_BYTES


@pytest.mark.parametrize(
    ("function", "args", "value", "parts"),
    [
        pytest.param(render, (None, JOB), [[1.0, 1.0]], 0, id="no picture"),
        pytest.param(render, (None, JOB), [[1.0, 1.0]] * 2, 2, id="one picture too many"),
        pytest.param(render, (None, JOB), [[1.0]], 1, id="a time is missing"),
        pytest.param(render, (None, JOB), [["1", "2"]], 1, id="times in words"),
        pytest.param(render, (None, JOB), None, 1, id="no times"),
        pytest.param(cut_tiles, (None, [CUT], 256), [3, [3]], 3, id="three files for a tile"),
        pytest.param(cut_tiles, (None, [CUT], 256), [3, [2]], 1, id="a file is missing"),
        pytest.param(cut_tiles, (None, [CUT], 256), [4, [1]], 1, id="four channels"),
        pytest.param(cut_tiles, (None, [CUT], 256), [3], 1, id="no counts"),
        pytest.param(cut_tiles, (None, [CUT], 256), [[3], [1]], 1, id="channels that are no number"),
        pytest.param(len, ("x",), "words", 1, id="a value and bytes"),
    ],
)
def test_a_result_that_does_not_fit_its_job_is_refused(
    function: object, args: tuple[object, ...], value: object, parts: int
) -> None:
    returned = Returned(json.loads(json.dumps(value)), [b"x"] * parts)
    with pytest.raises(ValueError, match="does not fit"):
        form_of(function).unpack(returned, args)  # type: ignore[arg-type]
