"""The command: real masters, real decoders, real stores, and a kill -9."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from special import settings
from special.derive.options import Task
from special.derive.plan import Consent
from special.derive.run import Options, derive_images
from special.errors import ConfigurationError
from special.geometry import Size
from special.renditions import RenditionStore, SizesFile
from tests.support import oracle, processes
from tests.support.memory import MemorySource
from tests.support.policies import policy
from tests.support.servers import S3Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.service

MASTERS = Path(__file__).parents[2] / "fixtures" / "masters"
OPENING = Consent(open_restricted=True)
IMAGES = sorted(path.name for path in MASTERS.iterdir())


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def derive(
    source: object, thumbs: object, *identifiers: str, options: Options | None = None, **given: object
) -> tuple[int, list[dict[str, object]], str]:
    """Exit code, outcomes and what the terminal saw."""
    chosen = settings.load(source=str(source), thumbs=str(thumbs), decoders=2, **given)
    seen, out = io.StringIO(), io.StringIO()
    console = Console(file=seen, soft_wrap=True)
    code = await derive_images(chosen, identifiers, options or Options(json=True), out=out, console=console)
    return code, [json.loads(line) for line in out.getvalue().splitlines()], seen.getvalue()


@pytest.fixture(scope="module")
def renditions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of all fixtures."""
    folder = tmp_path_factory.mktemp("renditions")
    command = [sys.executable, "-m", "special", "derive", str(MASTERS), "--thumbs", str(folder), "--quality", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(IMAGES)} images: {len(IMAGES)} made" in done.stderr
    assert done.stdout == ""
    return folder


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, id="SIGINT"), pytest.param(signal.SIGTERM, 143, id="SIGTERM")]
)
def test_a_run_that_is_stopped_says_what_is_done_what_is_left_and_how_to_go_on(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    masters, report, summary = tmp_path / "masters", tmp_path / "report.csv", tmp_path / "summary.json"
    masters.mkdir()
    one = shutil.copy(MASTERS / "map.jp2", tmp_path)
    for image in range(300):
        os.link(one, masters / f"{image}.jp2")
    command = [sys.executable, "-m", "special", "derive", str(masters), "--thumbs", str(tmp_path / "thumbs")]
    written_to = ["--report", str(report), "--summary", str(summary)]
    with processes.interruptible():
        running = subprocess.Popen(
            [*command, *written_to, "--jobs", "1"], stderr=subprocess.PIPE, start_new_session=True
        )
    wait_until(lambda: report.exists() and len(report.read_text().splitlines()) > 3)

    os.killpg(running.pid, number)
    _, said = running.communicate()

    totals = json.loads(summary.read_text())
    done = len(report.read_text().splitlines()) - 1
    assert running.returncode == code
    first, last = said.decode().splitlines()[-2:]
    assert first.startswith(f"Interrupted. {done} images: {done} made; ")
    assert last == f"{300 - done} images are left. Run it again: what is done is skipped."
    assert (totals["images"], totals["left"], totals["interrupted"]) == (done, 300 - done, True)

    subprocess.run([*command, *written_to, "--plan", "--quiet"], check=True)
    planned = json.loads(summary.read_text())["results"]
    assert planned["stood"] >= done
    assert planned["stood"] + planned["due"] == 300


@pytest.mark.parametrize(
    ("arguments", "given", "code", "said"),
    [
        pytest.param(["--from", "-"], b"\xef\xbb\xbfmap.jp2\r\n", 0, "1 images: 1 due", id="byte order mark"),
        pytest.param(["--from", "-"], "é.tif\n".encode("latin-1"), 2, "- is no UTF-8 text (byte 0xe9)", id="Latin-1"),
        pytest.param([b"\xe9.tif"], b"", 2, "the identifier '\\udce9.tif' is no UTF-8 text", id="argument"),
    ],
)
def test_names_are_read_as_utf_8_whatever_the_locale(
    arguments: list[str | bytes], given: bytes, code: int, said: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "special", "derive", str(MASTERS), "--thumbs", str(tmp_path), "--plan"]
    done = subprocess.run(
        [*command, *arguments], input=given, capture_output=True, check=False, env=os.environ | {"LC_ALL": "C"}
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def shrunk(path: Path, size: Size) -> np.ndarray:
    """The right pixels on white, by pillow's Lanczos."""
    pixels = oracle.rendered(path)
    picture = Image.fromarray(pixels).resize((size.width, size.height), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB"))


@pytest.mark.parametrize("name", IMAGES)
def test_every_size_has_the_right_pixels(renditions: Path, name: str) -> None:
    upright = oracle.upright(MASTERS / name)
    sizes = SizesFile.load(json.loads((renditions / name / "s.json").read_bytes()))

    assert sizes == policy().sizes(Size(upright.width, upright.height))
    for size in sizes.open:
        with Image.open(renditions / name / "open" / f"{size.long_side}.jpg") as file:
            assert file.format == "JPEG"
            assert Size(*file.size) == size
            pixels = np.asarray(file.convert("RGB"))
        # A level of a pyramid was shrunk by another filter than ours: on a map's hard lines 2.03 levels.
        assert oracle.mean_difference(pixels, shrunk(MASTERS / name, size)) <= 2.1


async def test_what_stands_is_left_alone(renditions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "renditions"
    shutil.copytree(renditions, folder)
    before = written(folder)

    code, outcomes, seen = await derive(MASTERS, folder, jpeg_quality=100)

    assert code == 0
    assert {it["result"] for it in outcomes} == {"stood"}
    assert written(folder) == before
    assert re.search(r"[\d.]+ images/s; for each image [\d.]+ ms of CPU, 2.0 GETs, [\d,]+ bytes", seen)


async def test_webp_and_jpg_show_the_same(tmp_path: Path) -> None:
    code, _, _ = await derive(
        MASTERS, tmp_path, "moon.jpg", sizes="200", formats="jpg,webp", jpeg_quality=100, webp_quality=100
    )

    assert code == 0
    with Image.open(tmp_path / "moon.jpg/open/200.webp") as webp, Image.open(tmp_path / "moon.jpg/open/200.jpg") as jpg:
        assert (webp.format, webp.size) == ("WEBP", jpg.size)
        pixels = [np.asarray(it.convert("RGB")) for it in (webp, jpg)]
    assert oracle.mean_difference(*pixels) <= 2.0


async def test_renditions_of_the_dlcs_layout_in_s3(moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in moto_s3.environ.items():
        monkeypatch.setenv(name, value)
    masters, thumbs, client = moto_s3.bucket(), moto_s3.bucket(), moto_s3.client()
    for key in ("2/5/moon", "2/5/moon/info.json", "2/5/rose", "2/notes.txt"):
        data = (MASTERS / ("rosette.png" if "rose" in key else "moon.jpg")).read_bytes()
        client.put_object(Bucket=masters, Key=key, Body=data)
    chosen = {"sizes": "200,100", "max_unauthorised": 100, "id_segments": 3}

    code, outcomes, _ = await derive(f"s3://{masters}", f"s3://{thumbs}", **chosen)

    assert code == 0
    assert sorted(str(it["identifier"]) for it in outcomes) == ["2/5/moon", "2/5/rose"]
    assert sorted(it["Key"] for it in client.list_objects_v2(Bucket=thumbs)["Contents"]) == [
        f"2/5/{name}/{file}"
        for name in ("moon", "rose")
        for file in ("auth/200.jpg", "open/100.jpg", "s.json", "special.json")
    ]
    head = client.head_object(Bucket=thumbs, Key="2/5/moon/open/100.jpg")
    assert head["ContentType"] == "image/jpeg"
    assert len(client.list_objects_v2(Bucket=masters)["Contents"]) == 4

    client.put_object(Bucket=masters, Key="2/5/rose", Body=(MASTERS / "seafloor.png").read_bytes())
    code, outcomes, _ = await derive(f"s3://{masters}", f"s3://{thumbs}", **chosen)
    assert {it["identifier"]: it["result"] for it in outcomes} == {"2/5/moon": "stood", "2/5/rose": "made"}


async def test_failures_are_told_and_can_be_tried_again(tmp_path: Path) -> None:
    masters, failed = tmp_path / "masters", tmp_path / "failed.txt"
    masters.mkdir()
    shutil.copy(MASTERS / "moon.jpg", masters / "good.jpg")
    (masters / "bad.jpg").write_bytes((MASTERS / "moon.jpg").read_bytes()[:500])

    code, outcomes, seen = await derive(masters, tmp_path / "thumbs", options=Options(failed_to=failed, strict=True))
    assert (code, outcomes) == (1, [])
    assert "failed: bad.jpg: " in seen
    assert "2 images: 1 made, 1 failed" in seen
    assert failed.read_text() == "bad.jpg\n"

    shutil.copy(MASTERS / "moon.jpg", masters / "bad.jpg")
    again = Options(names_from=str(failed), json=True)
    code, outcomes, _ = await derive(masters, tmp_path / "thumbs", options=again)
    assert code == 0
    assert [(it["identifier"], it["result"]) for it in outcomes] == [("bad.jpg", "made")]


async def test_masters_that_end_early_are_named(tmp_path: Path) -> None:
    masters, thumbs, static = tmp_path / "masters", tmp_path / "thumbs", str(tmp_path / "static")
    masters.mkdir()
    shutil.copy(MASTERS / "moon.jpg", masters)
    expected = {
        "manuscript.jpg": "the JPEG has no end (EOI)",
        "seafloor.png": "the PNG has no end (IEND)",
        "strips.tif": r"\d+ of \d+ tiles are not whole in the file",
    }
    for name in expected:
        shutil.copy(MASTERS / ("moon.jpg" if name == "strips.tif" else name), masters / name)
    Image.open(masters / "strips.tif").save(masters / "strips.tif")  # its directory is at the start
    for name in expected:
        os.truncate(masters / name, (masters / name).stat().st_size * 3 // 4)
    notice = "3 images whose masters end early, shown as far as they go (--strict refuses them): "

    code, _, seen = await derive(masters, thumbs, options=Options(report=tmp_path / "r.csv"))
    assert code == 0
    assert notice in seen
    assert sorted(seen.partition(notice)[2].split("\n")[0].split(", ")) == sorted(expected)
    with (tmp_path / "r.csv").open(newline="") as file:
        reasons = {row["identifier"]: row["reason"].partition("; ")[2] for row in csv.DictReader(file)}
    assert reasons.pop("moon.jpg") == ""
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert re.fullmatch(reason.replace("(", "[(]").replace(")", "[)]"), reasons[name])

    # What is made of a master later tells of it as well.
    later = Options(json=True, static=static)
    code, outcomes, seen = await derive(masters, thumbs, base_url="https://static.example.org", options=later)
    assert code == 0
    assert {it["identifier"] for it in outcomes if "incomplete" in it} == set(expected)

    code, outcomes, _ = await derive(masters, tmp_path / "strict", options=Options(json=True, strict=True))
    assert code == 1
    assert {it["identifier"]: it["result"] for it in outcomes} == {
        "moon.jpg": "made",
        **dict.fromkeys(expected, "failed"),
    }


async def test_plan_and_verify_only_look(tmp_path: Path) -> None:
    thumbs = tmp_path / "thumbs"
    code, outcomes, _ = await derive(MASTERS, thumbs, "moon.jpg", options=Options(task="estimate", json=True))
    assert (code, outcomes[0]["result"], written(thumbs)) == (0, "due", {})

    code, outcomes, _ = await derive(MASTERS, thumbs, "moon.jpg", options=Options(task="verify", json=True))
    assert (code, outcomes[0]["result"], written(thumbs)) == (1, "wrong", {})


async def test_names_from_a_pipe_are_read_once(tmp_path: Path) -> None:
    end, start = os.pipe()
    os.write(start, b"map.jp2\nmoon.jpg\n")
    os.close(start)
    pipe, seen = f"/dev/fd/{end}", io.StringIO()  # as a shell names what it makes of <(…)
    chosen = settings.load(source=str(MASTERS), thumbs=str(tmp_path / "thumbs"))
    plan = Options(task="estimate", names_from=pipe)

    assert await derive_images(chosen, [], plan, console=Console(file=seen, width=200)) == 0
    assert "2 images: 2 due" in seen.getvalue()
    with pytest.raises(ConfigurationError, match="standard input or a pipe"):
        Options(consent=OPENING, names_from=pipe)
    os.close(end)


async def test_terminal_shows_how_many_there_are(tmp_path: Path) -> None:
    seen = io.StringIO()
    console = Console(file=seen, force_terminal=True, width=200)
    chosen = settings.load(source=str(MASTERS), thumbs=str(tmp_path / "thumbs"))

    assert await derive_images(chosen, [], Options(task="estimate"), console=console) == 0
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen.getvalue())
    assert f"{len(IMAGES)}/{len(IMAGES)}" in text
    assert f"{len(IMAGES)} images: {len(IMAGES)} due" in text


@pytest.mark.parametrize(
    ("thumbs", "identifiers", "options", "sizes", "sign"),
    [
        pytest.param("masters", [], Options(), "9", "would be listed as masters", id="renditions among masters"),
        pytest.param("masters/thumbs", [], Options(), "9", "choose a place outside it", id="renditions below masters"),
        pytest.param("thumbs", [], Options(), "x", "'x' is no size", id="no policy"),
        pytest.param("thumbs", ["a"], Options(names_from="b"), "9", "not both", id="two lists"),
        pytest.param("thumbs", [], Options(names_from="nowhere"), "9", "nowhere cannot be read", id="no file"),
        pytest.param(
            "thumbs", [], Options(failed_to=Path("/proc/no")), "9", "cannot be written to /proc/no", id="no place"
        ),
    ],
)
async def test_what_cannot_work_is_said_before_any_work(
    tmp_path: Path, thumbs: str, identifiers: list[str], options: Options, sizes: str, sign: str
) -> None:
    (tmp_path / "masters").mkdir()
    chosen = settings.load(source=str(tmp_path / "masters"), thumbs=str(tmp_path / thumbs), sizes=sizes, decoders=1)

    with pytest.raises(ConfigurationError, match=sign):
        await derive_images(chosen, identifiers, options, console=Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("given", "sign"),
    [
        pytest.param({"task": "verify", "prune": True}, "--prune removes files", id="prune and look"),
        pytest.param({"queue": "https://q/1", "task": "remake"}, "--queue makes", id="queue and force"),
        pytest.param({"queue": "https://q/1", "names_from": "-"}, "--queue makes", id="queue and list"),
        pytest.param({"queue": "https://q/1", "scheduler": "tcp://s"}, "exclude each other", id="queue and cluster"),
        pytest.param({"queue": "https://q/1", "consent": OPENING}, "lists what it opens", id="queue and opening"),
        pytest.param({"names_from": "-", "consent": OPENING}, "lists what it opens", id="opening by standard input"),
        pytest.param({"names_from": "a", "failed_to": Path("b/../a")}, "overwritten", id="list and failures in one"),
        pytest.param({"report": Path("a"), "summary": Path("a")}, "overwritten", id="report and summary in one"),
    ],
)
def test_options_that_exclude_each_other_are_said(given: dict[str, Any], sign: str) -> None:
    with pytest.raises(ConfigurationError, match=sign):
        Options(**given)


def test_what_is_no_file_may_be_named_twice() -> None:
    Options(failed_to=Path(os.devnull), report=Path(os.devnull))


async def test_a_run_that_was_told_no_place_for_renditions_says_where_they_are(tmp_path: Path) -> None:
    chosen = settings.load(source=str(MASTERS), home=tmp_path / "home", decoders=1)
    seen = io.StringIO()
    for expected in (f"The renditions are in {tmp_path}/home/thumbs, ", "1 images: 1 stood"):
        assert await derive_images(chosen, ["moon.jpg"], Options(), console=Console(file=seen, soft_wrap=True)) == 0
        assert seen.getvalue().splitlines()[-1].startswith(expected)
    assert (tmp_path / "home" / "thumbs" / "moon.jpg" / "s.json").exists()


@pytest.mark.parametrize("arguments", [["--json"], ["--report", "/dev/full"], ["--summary", "/dev/full"]])
def test_a_full_disk_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "special",
        "derive",
        str(MASTERS),
        "moon.jpg",
        "--thumbs",
        str(tmp_path),
        "--quiet",
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*command, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        ["special: No space left on device: the file that was written is incomplete; free some space and run it again"],
    )


# What stands restricted


class Place:
    """Objects of a folder or a bucket, by their keys."""

    def __init__(self, url: str, client: Any = None) -> None:
        self.url, self._client = url, client

    def put(self, key: str, data: bytes) -> None:
        if self._client:
            self._client.put_object(Bucket=self.url.removeprefix("s3://"), Key=key, Body=data)
        else:
            (Path(self.url) / key).parent.mkdir(parents=True, exist_ok=True)
            (Path(self.url) / key).write_bytes(data)

    def objects(self) -> dict[str, bytes]:
        if not self._client:
            return written(Path(self.url))
        name = self.url.removeprefix("s3://")
        keys = [it["Key"] for it in self._client.list_objects_v2(Bucket=name).get("Contents", [])]
        return {key: self._client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}


@pytest.fixture(params=["folder", "s3"])
def places(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto_s3: S3Server
) -> tuple[Place, Place]:
    """A place of masters and one of renditions."""
    if request.param == "folder":
        for name in ("masters", "thumbs"):
            (tmp_path / name).mkdir()
        return Place(str(tmp_path / "masters")), Place(str(tmp_path / "thumbs"))
    for name, value in moto_s3.environ.items():
        monkeypatch.setenv(name, value)
    client = moto_s3.client()
    return Place(f"s3://{moto_s3.bucket()}", client), Place(f"s3://{moto_s3.bucket()}", client)


async def test_nothing_that_stands_restricted_is_opened_by_default(places: tuple[Place, Place]) -> None:
    """A DLCS's image, one of ours, one that a rule restricts, and an open one: run after run."""
    masters, thumbs = places
    for name in ("dlcs", "ours", "ruled", "free"):
        masters.put(f"1/2/{name}", (MASTERS / "moon.jpg").read_bytes())
    thumbs.put("1/2/dlcs/s.json", b'{"o":[],"a":[[200,200],[100,100]]}')
    for side in (200, 100):
        file = io.BytesIO()
        Image.new("RGB", (side, side), "teal").save(file, "JPEG")
        thumbs.put(f"1/2/dlcs/auth/{side}.jpg", file.getvalue())
    dlcs = thumbs.objects()
    given: dict[str, Any] = {"sizes": "200,100", "id_segments": 3, "rules": [{"identifiers": "1/2/ruled"}]}

    def opened() -> set[str]:
        files = thumbs.objects()
        stored = {key.split("/")[2] for key in files if "/open/" in key}
        named = {key.split("/")[2] for key, data in files.items() if key.endswith("/s.json") and json.loads(data)["o"]}
        assert stored == named
        return stored

    async def run_for(
        *names: str, consent: Consent = OPENING, task: Task = "make", prune: bool = False, limit: int | None = None
    ) -> tuple[dict[str, tuple[object, object]], str]:
        options = Options(task, json=True, consent=consent, prune=prune)
        code, found, seen = await derive(
            masters.url, thumbs.url, *names, options=options, max_unauthorised=limit, **given
        )
        assert code == 0
        return {str(it["identifier"])[4:]: (it["result"], it.get("access", "")) for it in found}, seen

    await run_for("1/2/ours", consent=Consent(), limit=0)
    tasks: tuple[Task, ...] = ("make", "remake")
    for task in tasks:
        found, seen = await run_for(consent=Consent(), task=task, prune=True, limit=-1)
        assert found["dlcs"] == ("foreign", "")
        assert found["ours"] == ("stood" if task == "make" else "made", "held")
        assert "1 images with a sizes file of others, left alone (--adopt takes them over): 1/2/dlcs\n" in seen
        assert "1 images more restricted than the policy says, as before" in seen
        assert opened() == {"free"}
        assert dlcs.items() <= thumbs.objects().items()

    _, seen = await run_for(consent=Consent(adopt=True), task="estimate")
    assert "0 images would be opened\n0 images would be closed\n" in seen
    found, _ = await run_for("1/2/dlcs", consent=Consent(adopt=True))
    assert found == {"dlcs": ("made", "held")}
    assert opened() == {"free"}

    before = thumbs.objects()
    _, seen = await run_for(task="estimate", limit=50)
    assert re.search(r"\n2 images would be opened: 1/2/(dlcs, 1/2/ours|ours, 1/2/dlcs)\n", seen)
    assert "\n1 images would be closed: 1/2/free\n" in seen
    assert thumbs.objects() == before
    found, seen = await run_for()
    *listed, count, summary, notice = seen.splitlines()
    assert sorted(listed) == ["opens: 1/2/dlcs", "opens: 1/2/ours"]
    assert count == "2 restricted images will be opened."
    assert summary.startswith("4 images: ")
    assert notice.startswith("2 images opened: ")
    assert found["ruled"] == ("stood", "")
    assert opened() == {"free", "dlcs", "ours"}


# Kill -9


async def check_readable(thumbs: Path) -> None:
    """No sizes file names a missing file, or one of another size; what is restricted is not in the open."""
    files = written(thumbs)
    store = RenditionStore(MemorySource(files))
    for name in IMAGES:
        kept = await store.find(name)
        for rendition in kept.renditions if kept else ():
            with Image.open(io.BytesIO(files[rendition.key])) as file:
                assert Size(*file.size) == rendition.size
        if kept and kept.sidecar and kept.sidecar.settled and kept.rule.max_unauthorised is not None:
            limit = kept.rule.max_unauthorised
            assert all(side <= limit for _, side in await store.list_files(name, "open"))


def started(thumbs: Path, sizes: str, limit: int) -> subprocess.Popen[bytes]:
    """The command in a session of its own, so that a kill takes its decoders too."""
    command = [sys.executable, "-m", "special", "derive", str(MASTERS), "--thumbs", str(thumbs)]
    command += ["--sizes", sizes, "--max-unauthorised", str(limit), "--open-restricted"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)


async def kill_often(tmp_path: Path, times: int, seed: int) -> None:
    """Start the command with one policy after another and kill it, decoders and all, at random moments."""
    rng = random.Random(seed)
    thumbs, took_s, kills, runs = tmp_path / "thumbs", 4.0, 0, 0
    while kills < times:
        number, runs = runs, runs + 1
        process = started(thumbs, ("400,200,100", "300,200")[number % 2], (-1, 0, 200)[number % 3])
        start = time.monotonic()
        try:
            process.wait(rng.uniform(0.3, took_s))
            took_s = time.monotonic() - start
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        await check_readable(thumbs)
    print(f"seed {seed}: {kills} kills, {runs - kills} runs that ended before theirs; {len(written(thumbs))} files")
    chosen = {"sizes": "400,100", "max_unauthorised": 100}
    await derive(MASTERS, thumbs, options=Options(consent=OPENING), **chosen)
    _, outcomes, _ = await derive(MASTERS, thumbs, options=Options(json=True), **chosen)
    assert {it["result"] for it in outcomes} == {"stood"}
    _, outcomes, _ = await derive(MASTERS, thumbs, options=Options(task="verify", json=True), **chosen)
    assert {it["result"] for it in outcomes} == {"sound"}
    await check_readable(thumbs)


async def test_kill_a_few_times(tmp_path: Path) -> None:
    await kill_often(tmp_path, times=5, seed=20261122)


@pytest.mark.long
async def test_kill_200_times(tmp_path: Path) -> None:
    await kill_often(tmp_path, times=200, seed=time.time_ns())


async def test_an_archivist_s_folder(tmp_path: Path) -> None:
    """What is no image is counted, what is broken is named, and a report has all of it."""
    masters, thumbs = tmp_path / "masters", tmp_path / "thumbs"
    masters.mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(MASTERS / "moon.jpg", masters / name)
    for name, data in {
        "README": b"read me\n",
        "scan.tif.bak": b"nothing",
        "zero.jpg": b"",
        "Thumbs.db": b"x",
        "b.tfw": b"1.0\n",
        "a.xml": b"<a/>",
        "text.jpg": b"no picture",
        "cut.jpg": (MASTERS / "moon.jpg").read_bytes()[:500],
    }.items():
        (masters / name).write_bytes(data)
    report, totals = tmp_path / "report.csv", tmp_path / "totals.json"
    options = Options(report=report, summary=totals, allowed_failures=1, exclude=("b*",), quiet=True, strict=True)
    code, _, seen = await derive(masters, thumbs, sizes="100", options=options)
    assert code == 1
    assert sorted(line.split()[2:4] for line in seen.splitlines()) == [
        ["failed:", "cut.jpg:"],
        ["failed:", "text.jpg:"],
    ]
    with report.open(newline="") as file:
        rows = {row["identifier"]: (row["outcome"], row["reason"]) for row in csv.DictReader(file)}
    assert {name: outcome for name, (outcome, _) in rows.items()} == {
        "a.jpg": "made",
        "cut.jpg": "failed",
        "text.jpg": "failed",
        "README": "skipped",
        "scan.tif.bak": "skipped",
        "zero.jpg": "skipped",
    }
    assert rows["zero.jpg"][1] == "it is empty"
    assert json.loads(totals.read_text())["results"] == {"made": 1, "skipped": 3, "failed": 2}

    code, _, _ = await derive(
        masters, thumbs, sizes="100", options=Options(allowed_failures=2, exclude=("b*",), strict=True)
    )
    assert code == 0
    looking = Options(task="verify", exclude=("b*", "cut*", "text*"), json=True)
    code, outcomes, _ = await derive(masters, thumbs, sizes="100", options=looking)
    assert (code, {it["identifier"]: it["result"] for it in outcomes}) == (
        0,
        {"a.jpg": "sound", "README": "skipped", "scan.tif.bak": "skipped", "zero.jpg": "skipped"},
    )
    code, outcomes, _ = await derive(masters, thumbs, "README", sizes="100")
    assert (code, outcomes[0]["result"]) == (1, "failed")


async def test_a_plan_says_what_it_costs(tmp_path: Path) -> None:
    code, outcomes, seen = await derive(
        MASTERS, tmp_path / "thumbs", "moon.jpg", sizes="100,50", options=Options(task="estimate", json=True)
    )
    size_bytes = (MASTERS / "moon.jpg").stat().st_size
    assert (code, outcomes[0]["due_reads"], outcomes[0]["due_puts"]) == (0, size_bytes, 4)
    assert "4 PUTs, and about 1 min with 2 decoders" in seen


async def test_renditions_of_deleted_masters_are_found_and_removed(tmp_path: Path) -> None:
    masters, thumbs = tmp_path / "masters", tmp_path / "thumbs"
    masters.mkdir()
    for name in ("gone.jpg", "kept.jpg", "closed.jpg"):
        shutil.copy(MASTERS / "moon.jpg", masters / name)
    assert (await derive(masters, thumbs, "gone.jpg", "kept.jpg", sizes="100"))[0] == 0
    assert (await derive(masters, thumbs, "closed.jpg", sizes="100", max_unauthorised=0))[0] == 0
    (thumbs / "foreign.jpg").mkdir()
    (thumbs / "foreign.jpg" / "s.json").write_text('{"o": [[10, 10]], "a": []}')
    for name in ("gone.jpg", "closed.jpg"):
        (masters / name).unlink()

    def results(outcomes: list[dict[str, object]]) -> dict[object, object]:
        return {it["identifier"]: it["result"] for it in outcomes}

    looking = Options(task="estimate", missing=True, json=True)
    before = written(thumbs)
    code, outcomes, _ = await derive(masters, thumbs, options=looking)
    assert (code, results(outcomes)) == (0, {"gone.jpg": "due", "closed.jpg": "due", "kept.jpg": "stood"})
    assert written(thumbs) == before

    code, outcomes, _ = await derive(masters, thumbs, options=Options(prune=True, missing=True, json=True))
    assert (code, results(outcomes)) == (0, {"gone.jpg": "removed", "closed.jpg": "removed", "kept.jpg": "stood"})
    after = written(thumbs)
    assert {
        name: data for name, data in before.items() if name.startswith(("kept", "foreign"))
    }.items() <= after.items()
    # The limit of what was restricted stays, should the master come back.
    assert {name for name in after if not name.startswith(("kept", "foreign"))} == {"closed.jpg/special.json"}
    code, outcomes, _ = await derive(masters, thumbs, options=Options(prune=True, missing=True, json=True))
    assert results(outcomes) == {"closed.jpg": "stood", "kept.jpg": "stood"}


async def test_renditions_stay_where_all_masters_seem_gone(tmp_path: Path) -> None:
    masters, thumbs = tmp_path / "masters", tmp_path / "thumbs"
    masters.mkdir()
    shutil.copy(MASTERS / "moon.jpg", masters / "a.jpg")
    assert (await derive(masters, thumbs, sizes="100"))[0] == 0
    (masters / "a.jpg").unlink()
    before = written(thumbs)
    with pytest.raises(ConfigurationError, match="is empty"):
        await derive(masters, thumbs, options=Options(prune=True, missing=True))
    with pytest.raises(ConfigurationError, match="use it with --prune"):
        Options(missing=True)
    assert written(thumbs) == before
