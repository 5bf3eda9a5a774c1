"""All four routes, as a user meets them: `special serve` and `special derive` in processes of their own.

On a folder and on a real S3 server. Pixels are compared with a plain rendering by libvips and pillow
of the whole file, reads are counted in the S3 server's own log.
"""

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image

from special.geometry import Box, Size, to_fit, to_width
from tests.support import oracle
from tests.support.live import MASTERS, LiveServer
from tests.support.servers import S3Server

pytestmark = pytest.mark.service

LANCZOS = Image.Resampling.LANCZOS
CLOSE_ENOUGH = 2.0
"""Levels of 255, on average, between our pixels and the plain rendering's."""
SIZES = "400,200,100"
QUALITY = 99
"""Of the renditions, so that what JPEG loses does not hide what we might."""


@dataclass(frozen=True)
class Library:
    """A running server, and where it reads."""

    server: LiveServer
    masters: str
    """Bucket of the masters; empty for a folder."""


def derive(source: str, thumbs: str, environment: dict[str, str], *names: str) -> None:
    command = [
        sys.executable,
        "-m",
        "special",
        "derive",
        source,
        *names,
        "--thumbs",
        thumbs,
        "--sizes",
        SIZES,
        "--quality",
        str(QUALITY),
    ]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=["folder", "seaweed"])
def library(
    request: pytest.FixtureRequest, serve: Callable[..., LiveServer], tmp_path_factory: pytest.TempPathFactory
) -> Library:
    """The sample masters: `stored-…` have renditions, the others do not."""
    folder = tmp_path_factory.mktemp("masters")
    for path in sorted(MASTERS.iterdir()):
        for name in (path.name, f"stored-{path.name}"):
            (folder / name).write_bytes(path.read_bytes())
    stored = [path.name for path in sorted(folder.glob("stored-*"))]
    if request.param == "folder":
        thumbs = str(tmp_path_factory.mktemp("thumbs"))
        derive(str(folder), thumbs, {}, *stored)
        return Library(serve(folder, "--thumbs", thumbs), "")
    s3: S3Server = request.getfixturevalue("seaweed_s3")
    masters, thumbs = s3.bucket(), s3.bucket()
    for path in folder.iterdir():
        s3.client().upload_file(str(path), masters, f"scans/{path.name}")
    derive(f"s3://{masters}/scans", f"s3://{thumbs}", s3.environ, *stored)
    server = serve(f"s3://{masters}/scans", "--thumbs", f"s3://{thumbs}", settings=s3.environ)
    return Library(server, masters)


@pytest.fixture(scope="module")
def client(library: Library) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=library.server.url, timeout=60) as client:
        yield client


def pixels(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    image = Image.open(io.BytesIO(response.content))
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def as_jpeg(shown: np.ndarray) -> np.ndarray:
    """What is left of a picture after JPEG of the quality that renditions have."""
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "jpeg", quality=QUALITY, subsampling=0)
    return np.asarray(Image.open(file))


def on_white(shown: np.ndarray) -> np.ndarray:
    """JPEG has no transparency: what shows through is white."""
    if shown.shape[2] == 3:
        return shown
    opacity = shown[..., 3:].astype(float) / 255
    return (shown[..., :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)


def plainly(path: Path, region: Box | None, size: Size) -> np.ndarray:
    """The plain rendering, from the same pyramid level: what a level looks like is for the file's maker to say."""
    whole = oracle.upright(path)
    box = region.size if region else Size(whole.width, whole.height)
    return on_white(oracle.rendered(path, region, size, halved=oracle.halvings(path, box, size)))


@pytest.mark.parametrize("name", sorted(path.name for path in MASTERS.iterdir()))
def test_every_route_shows_the_right_pixels(client: httpx.Client, name: str) -> None:
    path = MASTERS / name
    whole = oracle.upright(path)
    full = Size(whole.width, whole.height)
    part = Box(
        *(number // 32 * 32 for number in (full.width // 4, full.height // 4, full.width // 2, full.height // 2))
    )
    for prefix, region, size, route in (
        ("stored-", None, to_fit(full, Size(400, 400)), "thumb"),
        ("stored-", None, to_fit(full, Size(150, 150)), "derivative"),
        ("", None, to_width(full, full.width // 2), "stream"),
        ("", part, to_width(part.size, 150), "tile"),
    ):
        box = str(region) if region else "full"
        # Stored renditions are JPEGs, and so is what they are compared with; the rest is compared without loss.
        last = "default.jpg" if route == "thumb" else "default.png"
        response = client.get(f"/iiif/3/{prefix}{name}/{box}/{size}/0/{last}")
        shown = pixels(response)
        assert response.headers["x-special-route"] == route
        assert (shown.shape[1], shown.shape[0]) == (size.width, size.height)
        match route:
            case "thumb":
                expected = as_jpeg(plainly(path, None, size))
            case "derivative":
                stored = client.get(f"/iiif/3/{prefix}{name}/full/{to_fit(full, Size(200, 200))}/0/default.jpg")
                resized = (
                    Image.open(io.BytesIO(stored.content)).convert("RGB").resize((size.width, size.height), LANCZOS)
                )
                expected = np.asarray(resized)
            case _:
                expected = plainly(path, region, size)
        assert oracle.mean_difference(on_white(shown), expected) <= CLOSE_ENOUGH, (route, box, str(size))


def test_what_is_stored_reads_no_byte_of_the_master(
    library: Library, client: httpx.Client, request: pytest.FixtureRequest
) -> None:
    names = [f"stored-{path.name}" for path in sorted(MASTERS.iterdir())]
    if not library.masters:
        for name in names:
            response = client.get(f"/iiif/3/{name}/full/!390,390/0/gray.png")
            assert response.headers["x-special-route"] == "derivative"
        return
    s3: S3Server = request.getfixturevalue("seaweed_s3")
    before = len(s3.logged(library.masters))
    for name in names:
        for size in ("!400,400", "!200,200", "!399,399", "!100,100", "50,", "!1,1"):
            for last in ("default.jpg", "gray.png", "bitonal.webp"):
                response = client.get(f"/iiif/3/{name}/full/{size}/0/{last}")
                assert response.status_code == 200
                assert response.headers["x-special-route"] in ("thumb", "derivative")
    since = s3.logged(library.masters)[before:]
    # Whether the master still stands may be asked (304, no body); bytes of it are not read.
    assert [line for line in since if line.operation.startswith("REST.GET") and line.status in (200, 206)] == []


def test_a_small_thumb_is_had_from_memory_the_next_time(library: Library, client: httpx.Client) -> None:
    client.get("/iiif/3/stored-herbarium.tif/info.json")
    first, again, told, part = (
        client.get("/iiif/3/stored-herbarium.tif/full/!400,400/0/default.jpg", headers=headers)
        for headers in ({}, {}, {"if-none-match": "*"}, {"range": "bytes=0-99"})
    )
    assert "gets=0 bytes=0" in again.headers["server-timing"]
    assert again.content == first.content
    assert {name: first.headers[name] for name in ("etag", "last-modified")} == {
        name: again.headers[name] for name in ("etag", "last-modified")
    }
    assert (told.status_code, told.headers["etag"]) == (304, first.headers["etag"])
    assert (part.status_code, part.content) == (206, first.content[:100])


async def test_sixty_four_tiles_at_once_read_each_block_once(
    serve: Callable[..., LiveServer], seaweed_s3: S3Server
) -> None:
    bucket = seaweed_s3.bucket()
    name = f"cold-{uuid4().hex[:8]}.tif"
    size_bytes = (MASTERS / "herbarium.tif").stat().st_size
    seaweed_s3.client().upload_file(str(MASTERS / "herbarium.tif"), bucket, name)
    # What is read ahead is nobody's cost, and would be in the log all the same.
    server = serve(f"s3://{bucket}", settings=seaweed_s3.environ | {"SPECIAL_READ_AHEAD": "false"})
    tiles = [f"{x},{y},256,256" for y in range(0, 2048, 256) for x in range(0, 2048, 256)]
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        answers = await asyncio.gather(*(client.get(f"/iiif/3/{name}/{tile}/256,/0/default.jpg") for tile in tiles))
    assert [answer.status_code for answer in answers] == [200] * 64
    assert {answer.headers["x-special-route"] for answer in answers} == {"tile"}
    read = [int(answer.headers["server-timing"].split("bytes=")[1].split('"')[0]) for answer in answers]
    # The head of 64 KB once, however many asked for it, and no block of the rest twice.
    assert sum(read) <= size_bytes + 65536
    gets = [line for line in seaweed_s3.logged(bucket) if line.operation == "REST.GET.OBJECT" and line.key == name]
    counted = [int(answer.headers["server-timing"].split("gets=")[1].split(" ")[0]) for answer in answers]
    assert len(gets) == sum(counted), gets


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        pytest.param(["ftp://somewhere"], {}, "is no source", id="unknown scheme"),
        pytest.param(["/no/such/folder"], {}, "is not there", id="no folder"),
        pytest.param(["{bucket}-gone"], {}, "bucket", id="no bucket"),
        pytest.param(["{bucket}"], {"AWS_SECRET_ACCESS_KEY": "wrong"}, "refuse", id="wrong secret"),
        pytest.param(
            ["{bucket}"], {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials", id="no credentials"
        ),
        pytest.param(["{bucket}"], {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer", id="nobody there"),
        pytest.param([".", "--port", "99999"], {}, "port", id="no such port"),
        pytest.param([".", "--host", "203.0.113.1"], {}, "--host", id="not our address"),
        pytest.param([".", "--config", "none.toml"], {}, "none.toml", id="no configuration file"),
        pytest.param([".", "--viewer-assets", "."], {}, "openseadragon", id="no viewer library"),
        pytest.param([".", "--volume-size", "1KiB"], {}, "volume_size", id="no room for a volume"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    seaweed_s3: S3Server, tmp_path: Path, arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    bucket = f"s3://{seaweed_s3.bucket()}"
    command = [sys.executable, "-m", "special", "serve", *(it.replace("{bucket}", bucket) for it in arguments)]
    environ = os.environ | {"SPECIAL_HOME": str(tmp_path / "home"), "SPECIAL_PORT": "0"} | seaweed_s3.environ
    environ |= environment | {"HOME": str(tmp_path)}
    (tmp_path / "masters").mkdir()
    (tmp_path / "masters" / "page.jpg").touch()  # the start says so where there is nothing
    done = subprocess.run(
        command, env=environ, cwd=tmp_path / "masters", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert sentence.lower() in done.stderr.lower()
    assert done.stderr.count("\n") == 1
