"""What is told of two answers."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from special.compare.differences import compare
from special.compare.reads import Prices, Reads
from special.compare.sample import Request
from special.compare.servers import Answer, NoAnswer
from special.compare.totals import Totals, percentile

BASES = "http://old/iiif/2/", "http://new/special/iiif/2/"
IMAGE = Request("x/full/max/0/default.jpg", "full", 3)
INFO = Request("x/info.json", "info.json")


def picture(width: int = 100, height: int = 80, level: int = 100, form: str = "JPEG") -> bytes:
    packed = BytesIO()
    Image.new("RGB", (width, height), (level, level, level)).save(packed, form)
    return packed.getvalue()


def answer(body: bytes | dict[str, Any] = b"", status: int = 200, media: str = "image/jpeg", **headers: str) -> Answer:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": media, **named}, data, 0.1)


def told(request: Request, old: Answer | NoAnswer, new: Answer | NoAnswer) -> list[tuple[str, str]]:
    found = compare(request, old, new, bases=BASES, psnr_db=30)
    return [(it.kind, it.detail) for it in found.differences]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        pytest.param(answer(picture()), answer(picture()), [], id="the same"),
        pytest.param(answer(picture(level=100)), answer(picture(level=102)), [], id="alike"),
        pytest.param(answer(picture()), answer(status=404), [("status", "200 → 404")], id="status"),
        pytest.param(answer(b"no", 404), answer(b"none", 404, "text/html"), [], id="two refusals"),
        pytest.param(answer(picture()), NoAnswer("reset"), [("no answer", "200 → reset")], id="no answer"),
        pytest.param(answer(picture()), answer(picture(120)), [("size", "100×80 → 120×80")], id="size"),
        pytest.param(answer(picture()), answer(picture(101, 79)), [("rounding", "100×80 → 101×79")], id="rounding"),
        pytest.param(
            answer(picture()),
            answer(picture(form="PNG"), media="image/png"),
            [("media type", "image/jpeg → image/png")],
            id="media type",
        ),
        pytest.param(answer(picture(level=0)), answer(picture(level=255)), ["pixels"], id="pixels"),
        pytest.param(answer(picture()), answer(b"<html>"), ["unreadable"], id="unreadable"),
        pytest.param(
            answer(picture(), access_control_allow_origin="*", etag='"1"', cache_control="public, max-age=9"),
            answer(picture(), cache_control="max-age=9,public"),
            [("headers", "access-control-allow-origin: * → none"), ("headers", "validator: yes → no")],
            id="headers",
        ),
        pytest.param(
            answer(status=303, location="http://old/iiif/2/x/info.json"),
            answer(status=303, location="/special/iiif/2/x/info.json"),
            [],
            id="the same place",
        ),
        pytest.param(
            answer(status=303, location="/iiif/2/x/info.json"),
            answer(status=303, location="/special/iiif/2/y/info.json"),
            [("headers", "location leads elsewhere")],
            id="another place",
        ),
    ],
)
def test_images(old: Answer | NoAnswer, new: Answer | NoAnswer, found: list[Any]) -> None:
    seen = told(IMAGE, old, new)
    assert [it if isinstance(wanted, tuple) else it[0] for it, wanted in zip(seen, found, strict=True)] == found


OLD_INFO = {
    "@id": "http://public/iiif/2/x",
    "width": 400,
    "height": 300,
    "sizes": [{"width": 200, "height": 150}, {"width": 100, "height": 75}],
    "tiles": [{"width": 256, "scaleFactors": [1, 2]}],
    "profile": ["http://iiif.io/api/image/2/level2.json", {"maxWidth": 1000}],
}
NEW_INFO = {
    "id": "http://new/special/iiif/2/x",
    "width": 400,
    "height": 300,
    "sizes": [{"width": 100, "height": 75}, {"width": 200, "height": 150}],
    "tiles": [{"width": 256, "height": 256, "scaleFactors": [2, 1]}],
    "profile": "level2",
    "maxWidth": 1000,
}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param({}, [], id="the same in two versions"),
        pytest.param({"width": 401}, ["width"], id="width"),
        pytest.param({"sizes": []}, ["sizes"], id="sizes"),
        pytest.param({"tiles": [{"width": 512, "scaleFactors": [1]}]}, ["tiles"], id="tiles"),
        pytest.param({"maxWidth": 999}, ["maxWidth"], id="limits"),
        pytest.param({"profile": "level1"}, ["profile level2 → level1"], id="level"),
        pytest.param({"id": "http://new/iiif/2/x"}, ["id is not the address that was asked"], id="id"),
    ],
)
def test_info(change: dict[str, Any], found: list[str]) -> None:
    media = "application/json"
    assert told(INFO, answer(OLD_INFO, media=media), answer(NEW_INFO | change, media=media)) == [
        ("info", detail) for detail in found
    ]


def test_info_that_is_none() -> None:
    assert told(INFO, answer(OLD_INFO), answer(b"<html>")) == [("info", "JSON → no JSON object")]


def test_lines_count_and_ignored_kinds_do_not() -> None:
    totals = Totals(frozenset({"headers"}))
    pairs = [
        (IMAGE, answer(picture()), answer(status=404)),
        (Request("y/full/max/0/default.jpg", "full", 5), answer(picture()), answer(picture(), etag='"1"')),
        (INFO, answer(OLD_INFO), answer(NEW_INFO)),
    ]
    for request, old, new in pairs:
        totals.add(compare(request, old, new, bases=BASES, psnr_db=30), old, new)
    assert totals.differing_percent == pytest.approx(100 * 3 / 9)
    plain = totals.plain()
    assert {kind: it["lines"] for kind, it in plain["differences"].items()} == {"status": 3, "headers": 5}
    assert {kind: it["differing_lines"] for kind, it in plain["requests"].items()} == {"info.json": 0, "full": 3}
    assert plain["requests"]["full"]["new_ms"] == {"p50": 100, "p95": 100, "p99": 100}


def test_the_examples_of_pixels_are_the_worst() -> None:
    totals = Totals()
    levels = [255, 180, 200, 250, 190, 240, 220]
    for level in levels:
        old, new = answer(picture(level=100)), answer(picture(level=level))
        totals.add(
            compare(Request(f"{level}/full/max/0/default.jpg", "full"), old, new, bases=BASES, psnr_db=30), old, new
        )
    shown = [it.comparison.request.path.partition("/")[0] for it in totals.examples["pixels"]]
    assert shown == ["255", "250", "240", "220"]


def test_percentiles_by_nearest_rank() -> None:
    values = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [percentile(values, it) for it in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]


def test_what_the_new_server_read_has_a_price() -> None:
    reads = Reads()
    reads.add('route;desc="tile", source;dur=1.0;desc="gets=3 bytes=2000000", queue;dur=0.0')
    reads.add('route;desc="thumb", source;dur=0.0;desc="gets=1 bytes=0"')
    reads.add("cdn-cache;desc=HIT")
    plain = reads.plain(Prices("EUR", per_1000_gets=0.5, per_gb=0.1))
    assert plain["routes"] == {"tile": 1, "thumb": 1}
    # 2 GETs and 1 MB for each request: 2,000 GETs at 0.5 for 1,000, and 1 GB at 0.1.
    assert plain["per_1000"] == {"gets": 2000, "bytes": 1e9, "cost": pytest.approx(1.1)}
