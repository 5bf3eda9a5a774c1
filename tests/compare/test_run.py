"""Whole runs of `special compare` between live servers."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from special.cli import cli
from special.compare.servers import Recording
from special.errors import ConfigurationError
from tests.bench import peers
from tests.bench.bench import Absent
from tests.conftest import Serve
from tests.support import live, processes
from tests.support.live import MASTERS
from tests.support.waiting import wait_until

pytestmark = pytest.mark.service
PERSONAL = ("203.0.113.77", "alice", "s3cr3t", "Mozilla/5.0")


def compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "special", "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def write_log(path: Path, paths: list[str], *, prefix: str = "/iiif/2/") -> Path:
    """A log in the combined format, with something personal in each of its fields."""
    lines = (
        f'203.0.113.77 - alice [10/Oct/2025:13:55:36 +0000] "GET {prefix}{it}?token=s3cr3t HTTP/1.1" 200 99 '
        '"https://alice.example/?q=s3cr3t" "Mozilla/5.0 (alice)"'
        for it in paths
    )
    path.write_text("\n".join(lines))
    return path


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8))


@dataclass(slots=True)
class Seen:
    """What a server was asked."""

    url: str = ""
    requests: list[str] = field(default_factory=list)
    """Request line and headers of each."""


@contextmanager
def watching(answers: dict[str, tuple[int, str, bytes]]) -> Iterator[Seen]:
    """A server with some answers, which takes down all that it is sent."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.requests.append(f"{self.requestline}\n{self.headers}")
            status, media, body = answers.get(self.path, (404, "text/plain", b"none"))
            self.send_response(status)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield seen
        server.shutdown()
        thread.join()


def test_two_servers_of_which_one_has_other_masters(serve: Serve, tmp_path: Path) -> None:
    old_masters, new_masters = tmp_path / "old", tmp_path / "new"
    for folder in (old_masters, new_masters):
        folder.mkdir()
        gradient(600, 400).save(folder / "same.png")
    gradient(600, 400).save(old_masters / "gone.png")
    gradient(600, 400).save(old_masters / "cropped.png")
    gradient(500, 400).save(new_masters / "cropped.png")
    gradient(600, 400).save(old_masters / "blotted.png")
    blotted = gradient(600, 400)
    ImageDraw.Draw(blotted).rectangle((320, 192, 351, 223), fill="black")
    blotted.save(new_masters / "blotted.png")
    old, new = serve(old_masters), serve(new_masters)
    asked = [f"{name}.png/full/max/0/default.png" for name in ("same", "gone", "cropped", "blotted")]
    asked += ["same.png/info.json", "cropped.png/info.json", "same.png/0,0,200,200/100,/0/default.jpg"]
    log = write_log(tmp_path / "access.log", [*asked, *asked[:1] * 3, "favicon.ico"])
    page = tmp_path / "report.html"
    sides = ("--old", f"{old.url}/iiif/2", "--new", f"{new.url}/iiif/2", "--rate", 200)

    done = compare(log, *sides, "--psnr", 45, "--report", page, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert {kind: it["addresses"] for kind, it in found["differences"].items()} == {
        "status": 1,
        "size": 1,
        "pixels": 1,
        "info": 1,
    }
    assert (found["addresses"], found["lines"], found["log"]) == (7, 10, {"fitting": 10, "others": 1})
    assert found["differing_percent"] == 40
    by_path = {it["path"]: it["differences"] for it in found["differing"]}
    assert by_path["gone.png/full/max/0/default.png"] == [{"kind": "status", "detail": "200 → 404"}]
    assert "worst at 320,192,32,32" in by_path["blotted.png/full/max/0/default.png"][0]["detail"]
    assert {it["detail"] for it in by_path["cropped.png/info.json"]} >= {"width"}
    # Four of the answers are of pictures that are there; each was read from its file.
    assert found["reads"]["answers"] == 4
    assert found["reads"]["gets"] >= 3
    assert found["metered"]["gets"] >= found["reads"]["gets"]

    html = page.read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", html)
    assert html.count("data:image/png;base64,") >= 6  # both pictures of size and pixels, and the worst place twice
    for text in (html, done.stdout, done.stderr):
        assert not [it for it in PERSONAL if it in text]


def test_nothing_personal_reaches_a_server_or_a_file(tmp_path: Path) -> None:
    body = json.dumps({"width": 1, "height": 1}).encode()
    answers = {"/there/x/info.json": (200, "application/json", body), "/there/a%2Fb/info.json": (200, "text/css", body)}
    log = write_log(tmp_path / "access.log", ["x/info.json", "a%2Fb/info.json"], prefix="/then/")
    record, page = tmp_path / "old.sqlite", tmp_path / "report.html"
    with watching(answers) as old, watching(answers) as new:
        where = old.url.replace("://", "://user:password@")
        sides = ("--old", f"{where}/there", "--new", f"{new.url}/there", "--prefix", "/then/")
        done = compare(log, *sides, "--record", record, "--report", page, "--json")
    assert done.returncode == 0, done.stderr
    lines = [it.partition("\n")[0] for it in old.requests]
    assert lines == ["GET /there/ HTTP/1.1", "GET /there/x/info.json HTTP/1.1", "GET /there/a%2Fb/info.json HTTP/1.1"]
    assert all("Authorization: Basic" in it for it in old.requests)  # as the address says
    told = [
        *old.requests,
        *new.requests,
        done.stdout,
        done.stderr,
        page.read_text(),
        record.read_bytes().decode("latin-1"),
    ]
    for text in told:
        assert not [it for it in (*PERSONAL, "password") if it in text]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_comparison_that_is_stopped_reports_on_what_was_asked(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    log, page = write_log(tmp_path / "log", [f"{it}/info.json" for it in range(1000)]), tmp_path / "report.html"
    body = json.dumps({"width": 1, "height": 1}).encode()
    answers = {f"/iiif/2/{it}/info.json": (200, "application/json", body) for it in range(1000)}
    with watching(answers) as old, watching({}) as new:
        sides = ["--old", f"{old.url}/iiif/2", "--new", f"{new.url}/iiif/2", "--rate", "20", "--concurrency", "1"]
        command = [sys.executable, "-m", "special", "compare", str(log), *sides, "--json", "--report", str(page)]
        with processes.interruptible():
            running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: len(old.requests) > 5 < len(new.requests))
        running.send_signal(number)
        out, said = running.communicate()
    document = json.loads(out)
    assert running.returncode == code
    assert document["interrupted"]
    assert 0 < document["addresses"] < 1000
    assert document["differences"]["status"]["addresses"] == document["addresses"]
    assert f"Interrupted: {document['addresses']} of 1,000 addresses were asked." in said.decode()
    assert "not all addresses were asked" in page.read_text()


def test_a_server_that_was_recorded_before(tmp_path: Path) -> None:
    body = json.dumps({"width": 1, "height": 1}).encode()
    answers = {"/x/info.json": (200, "application/json", body), "/y/info.json": (200, "application/json", body)}
    log = write_log(tmp_path / "access.log", ["x/info.json", "y/info.json"], prefix="/")
    record = tmp_path / "old.sqlite"
    with watching(answers) as old:
        done = compare(log, "--old", old.url, "--record", record)
        assert done.returncode == 0, done.stderr
        again = compare(log, "--old", old.url, "--record", record)
        assert (again.returncode, "is there already" in again.stderr) == (2, True)
    del answers["/y/info.json"]
    with watching(answers) as new:
        done = compare("--old", record, "--new", new.url, "--json")
        found = json.loads(done.stdout)
        assert done.returncode == 1
        assert [it["path"] for it in found["differing"]] == ["y/info.json"]
        tolerated = compare("--old", record, "--new", new.url, "--tolerate", 50)
        assert (tolerated.returncode, tolerated.stderr) == (0, "")
        assert "50.00 % of 2 requests differ" in tolerated.stdout


def test_a_recording_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "later.sqlite"
    Recording.create(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be looked at" * 40)
    for name in ("later.sqlite", "text.sqlite"):
        with pytest.raises(ConfigurationError, match=name):
            Recording.load(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--old", "http://127.0.0.1:9/iiif", "--new", "http://127.0.0.1:9/iiif"], "does not answer"),
        (["--old", "http://127.0.0.1:9/iiif"], "name the new server"),
        (["--old", "old.sqlite", "--new", "http://127.0.0.1:9"], "neither an http"),
        (["--old", "http://h", "--new", "http://h", "--prefix", "/other/"], "none of the 1 lines"),
        (["--old", "http://h", "--new", "http://h", "--ignore", "colour"], "'colour' is none of"),
        (["--old", "http://h", "--new", "http://h", "--report", "/nowhere/at/all.html"], "no folder"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_asked(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    log = write_log(tmp_path / "access.log", ["x/info.json"], prefix="/iiif/")
    error = CliRunner().invoke(cli, ["compare", str(log), *arguments]).exception
    assert isinstance(error, ConfigurationError), error
    assert sentence in str(error)


@pytest.mark.long
def test_iipsrv_and_special_on_the_same_masters(tmp_path: Path) -> None:
    """More than 2,000 requests: what differs is named in the table below, with the reason."""
    masters, home = tmp_path / "masters", tmp_path / "home"
    masters.mkdir()
    home.mkdir()
    asked: list[str] = []
    for name in ("herbarium.tif", "manuscript.jpg"):
        pyramid = masters / f"{Path(name).stem}.tif"
        write = (
            "import sys, pyvips; image = pyvips.Image.new_from_file(sys.argv[1]);"
            "image.tiffsave(sys.argv[2], tile=True, pyramid=True)"
        )
        subprocess.run([sys.executable, "-c", write, MASTERS / name, pyramid], check=True)
        with Image.open(pyramid) as picture:
            asked += requests_of(pyramid.name, *picture.size)
    assert len(asked) > 2000
    log, page = write_log(tmp_path / "access.log", asked, prefix="/iiif/"), tmp_path / "report.html"
    try:
        with peers.iipsrv(tmp_path / "iipsrv", masters) as old, live.special(masters, home=home) as new:
            sides = ("--old", f"{old.url}/iiif", "--new", f"{new.url}/iiif/2")
            done = compare(log, *sides, "--rate", 1000, "--report", page, "--json")
    except Absent as absent:
        pytest.skip(f"not installed: {absent}")
    assert done.returncode == 1, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["addresses"] == len(set(asked))
    print(json.dumps({name: found[name] for name in ("differences", "requests", "pixels", "reads")}, indent=1))
    assert set(found["differences"]) <= {
        "status",
        "rounding",  # iipsrv cuts off where the specification has a nearest whole number
        "pixels",  # iipsrv takes the nearest pixel of a level where special filters
        "info",  # special lists stored and nested sizes, iipsrv the levels without the smallest
        "headers",  # iipsrv names no CORS
    }
    assert page.stat().st_size > 10_000


def requests_of(name: str, width: int, height: int) -> list[str]:
    """As viewers and pages of results ask for an image."""
    asked = [f"{name}/info.json", f"{name}/full/full/0/default.jpg", f"{name}/full/max/0/default.jpg"]
    asked += [
        f"{name}/full/{form}/0/default.jpg" for side in range(20, 820) for form in (f"{side},", f"!{side},{side}")
    ]
    for factor in (1, 2, 4):
        step = 256 * factor
        for x in range(0, width, step):
            for y in range(0, height, step):
                w, h = min(step, width - x), min(step, height - y)
                asked.append(f"{name}/{x},{y},{w},{h}/{-(-w // factor)},/0/default.jpg")
    return [*asked, f"{name}/square/200,/90/default.jpg", f"{name}/full/200,/0/gray.jpg"]
