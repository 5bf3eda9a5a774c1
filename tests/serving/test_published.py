"""Published pyramids: a whole session of a viewer without a byte of the master and without a decoder."""

from __future__ import annotations

import asyncio
import io
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serving.test_pyramid_builder import tiles
from tests.support.live import MASTERS, LiveServer
from tests.support.servers import S3Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.service

NAMES = ("map.jp2", "seafloor.png")
Serve = Callable[..., LiveServer]


def derive(source: str | Path, thumbs: str | Path, *options: str, environ: dict[str, str] | None = None) -> str:
    """A run that must succeed; what it said."""
    command = [sys.executable, "-m", "special", "derive", str(source), "--thumbs", str(thumbs), "--sizes", "200"]
    done = subprocess.run(
        [*command, *options], env=os.environ | (environ or {}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def pyramids(thumbs: Path) -> list[str]:
    return sorted(str(path.relative_to(thumbs)) for path in thumbs.rglob("pyramid-*.tif"))


def jobs(server: LiveServer) -> float:
    """How many jobs decoders have done, well or badly."""
    counted = re.findall(r"special_decoder_jobs_total\{.*?\} ([\d.]+)", httpx.get(f"{server.url}/metrics").text)
    return sum(map(float, counted))


async def fetched(server: LiveServer, paths: list[str]) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        return await asyncio.gather(*(client.get(path) for path in paths))


@pytest.fixture(scope="module")
def plain(serve: Serve) -> LiveServer:
    """It makes every tile of the master."""
    return serve(MASTERS, settings={"SPECIAL_PROMOTE_AFTER": "0"})


def smallest_level(client: httpx.Client, name: str) -> str:
    """The full region at the size of one tile, as viewers ask for it first."""
    described = client.get(f"/iiif/3/{name}/info.json").json()
    factor = described["tiles"][0]["scaleFactors"][-1]
    size = f"{math.ceil(described['width'] / factor)},{math.ceil(described['height'] / factor)}"
    return f"/iiif/3/{name}/full/{size}/0/default.jpg"


@pytest.mark.parametrize(
    ("which", "names", "sizes", "promote_after"),
    [
        pytest.param("expensive", NAMES, "200", 8, id="smallest level by stream"),
        pytest.param("expensive", NAMES, "600,200", 8, id="smallest level by derivative"),
        pytest.param("all", ("herbarium.tif", "stars.tif"), "200", 8, id="masters with tiles of their own"),
        pytest.param("expensive", NAMES, "200", 0, id="by a server that makes none itself"),
    ],
)
def test_a_session_reads_no_byte_of_the_master_and_starts_no_decoder(
    serve: Serve,
    seaweed_s3: S3Server,
    plain: LiveServer,
    which: str,
    names: tuple[str, ...],
    sizes: str,
    promote_after: int,
) -> None:
    masters, thumbs = seaweed_s3.bucket(), seaweed_s3.bucket()
    for name in names:
        seaweed_s3.client().upload_file(str(MASTERS / name), masters, name)
    chosen = ["--pyramids" if which == "expensive" else f"--pyramids={which}", "--sizes", sizes]
    derive(f"s3://{masters}", f"s3://{thumbs}", *chosen, environ=seaweed_s3.environ)
    settings = seaweed_s3.environ | {
        "SPECIAL_ASSET_TTL_S": "3600",
        "SPECIAL_PYRAMIDS": which,
        "SPECIAL_PROMOTE_AFTER": str(promote_after),
    }
    server = serve(f"s3://{masters}", "--thumbs", f"s3://{thumbs}", settings=settings)
    since = len(seaweed_s3.logged(masters))
    for name in names:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            asked = [smallest_level(client, name), *tiles(client, name)]
            head, answer = client.head(asked[0]), client.get(asked[0])
            assert head.headers["etag"] == answer.headers["etag"]
            known = {"If-None-Match": answer.headers["etag"]}
            assert client.get(asked[0], headers=known).status_code == 304
        answers = asyncio.run(fetched(server, asked))
        assert {answer.status_code for answer in answers} == {200}
        with httpx.Client(base_url=plain.url, timeout=60) as client:
            for path, answer in list(zip(asked, answers, strict=True))[::7]:
                assert answer.content == client.get(path).content, path
    assert jobs(server) == 0
    reads = [line for line in seaweed_s3.logged(masters)[since:] if line.operation == "REST.GET.OBJECT"]
    assert [line for line in reads if line.key in names] == []


def test_off_the_grid_it_is_decoded_from_the_pyramid_and_without_loss_from_the_master(
    serve: Serve, plain: LiveServer, tmp_path: Path
) -> None:
    masters, region = tmp_path / "masters", "/iiif/3/map.jp2/700,1100,600,500/600,500/0"
    masters.mkdir()
    shutil.copy(MASTERS / "map.jp2", masters)
    derive(masters, tmp_path / "thumbs", "--pyramids")
    settings = {"SPECIAL_ASSET_TTL_S": "3600"}
    server = serve(masters, "--thumbs", str(tmp_path / "thumbs"), settings=settings)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get(f"{region}/default.png").content == httpx.get(f"{plain.url}{region}/default.png").content
        (masters / "map.jp2").unlink()
        assert client.get(f"{region}/default.jpg").status_code == 200


def test_a_pyramid_is_never_that_of_another_version(serve: Serve, tmp_path: Path) -> None:
    masters, thumbs = tmp_path / "masters", tmp_path / "thumbs"
    masters.mkdir()
    shutil.copy(MASTERS / "manuscript.jpg", masters / "changing")
    derive(masters, thumbs, "--pyramids")
    (old,) = pyramids(thumbs)
    negative = Image.eval(Image.open(masters / "changing").convert("RGB"), lambda level: 255 - level)
    negative.save(masters / "new", "jpeg", quality=90)
    (masters / "new").rename(masters / "changing")
    # What is known of a master is believed for this long, here as everywhere.
    server = serve(masters, "--thumbs", str(thumbs), settings={"SPECIAL_ASSET_TTL_S": "0"})
    path = "/iiif/3/changing/512,512,512,512/512,512/0/default.jpg"
    answer = httpx.get(f"{server.url}{path}", timeout=60)
    shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(np.int16)
    truth = np.asarray(Image.open(masters / "changing").convert("RGB")).astype(np.int16)[512:1024, 512:1024]
    assert np.abs(shown - truth).mean() < 3
    assert "a pyramid of" in derive(masters, thumbs, "--pyramids", "--json")
    (new,) = pyramids(thumbs)
    assert new != old


def test_plan_tells_bytes_and_money_and_prune_removes_strays(tmp_path: Path) -> None:
    thumbs = tmp_path / "thumbs"
    said = derive(MASTERS, thumbs, "--plan", "--pyramids", "map.jp2", "herbarium.tif")
    # 2400 by 3200 pixels, and a third more for the smaller levels, at 0.3 bytes each
    assert "1 pyramids would take about 3.1 MB, some $0.00 a month in S3 Standard." in said
    assert not thumbs.exists() or pyramids(thumbs) == []
    derive(MASTERS, thumbs, "--pyramids", "map.jp2", "herbarium.tif")
    (made,) = pyramids(thumbs)
    assert "would take" not in derive(MASTERS, thumbs, "--plan", "--pyramids", "map.jp2", "herbarium.tif")
    assert "1 pyramids would take" in derive(MASTERS, thumbs, "--plan", "--pyramids=all", "map.jp2", "herbarium.tif")
    stray = thumbs / "map.jp2" / "pyramid-512-85-0-0123456789abcdef0123456789abcdef.tif"
    stray.write_bytes(b"of an older version")
    derive(MASTERS, thumbs, "--prune", "map.jp2")
    assert pyramids(thumbs) == [made]


def test_what_is_restricted_is_published_in_auth_and_opens_nothing(serve: Serve, tmp_path: Path) -> None:
    thumbs = tmp_path / "thumbs"
    derive(MASTERS, thumbs, "--pyramids", "map.jp2")
    (open_,) = pyramids(thumbs)
    assert "/auth/" not in open_
    derive(MASTERS, thumbs, "--pyramids", "--max-unauthorised", "200", "map.jp2")
    (restricted,) = pyramids(thumbs)
    assert restricted == open_.replace("map.jp2/", "map.jp2/auth/")
    server = serve(MASTERS, "--thumbs", str(thumbs))
    tile = httpx.get(f"{server.url}/iiif/3/map.jp2/0,0,512,512/512,512/0/default.jpg")
    assert tile.status_code == 401


def test_a_server_publishes_what_it_made_and_another_needs_no_decoder(serve: Serve, tmp_path: Path) -> None:
    thumbs = tmp_path / "thumbs"
    settings = {"SPECIAL_PUBLISH_PYRAMIDS": "true", "SPECIAL_PROMOTE_AFTER": "1", "SPECIAL_HOT_SIZE": "0"}
    maker = serve(MASTERS, "--thumbs", str(thumbs), settings=settings)
    with httpx.Client(base_url=maker.url, timeout=60) as client:
        asked = tiles(client, "manuscript.jpg")

        def is_published() -> bool:
            client.get(asked[0])
            return bool(pyramids(thumbs))

        wait_until(is_published)
    expected = [answer.content for answer in asyncio.run(fetched(maker, asked))]
    other = serve(MASTERS, "--thumbs", str(thumbs), settings=settings)
    assert [answer.content for answer in asyncio.run(fetched(other, asked))] == expected
    assert jobs(other) == 0
