"""A bucket laid out by hand as a DLCS does, with no file of ours in it, answered by the rules of `/thumbs/`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from special import composition, iiif, settings
from special.auth.access import ANONYMOUS, Identity
from special.errors import RequestError
from special.iiif import ImageRequest, Version
from special.images.masters import Masters
from special.renditions import RenditionStore
from special.serving.engine import Engine
from special.serving.routing import Derivative, Thumb
from special.volume import Volume
from special.workers import Workers
from tests.support.memory import MemorySource

pytestmark = pytest.mark.service

ID = "2/5/leaf"
BUCKETS = {
    "landscape": {"o": [[1024, 768], [400, 300], [200, 150], [100, 75]], "a": []},
    "portrait": {"o": [[768, 1024], [300, 400], [150, 200], [75, 100]]},
    "square": {"o": [[400, 400], [100, 100]]},
    "odd": {"o": [[1024, 683], [400, 267], [200, 133]]},
    "partly": {"o": [[200, 150], [100, 75]], "a": [[1024, 768], [400, 300]]},
    "restricted": {"o": [], "a": [[400, 300], [100, 75]]},
    "empty": {"o": [], "a": []},
    # Not of a DLCS: what `derive --format` adds.
    "both": {"o": [[400, 300], [100, 75]], "a": [], "formats": ["jpg", "webp"]},
    "webp": {"o": [[400, 300], [100, 75]], "formats": ["webp"]},
}


@pytest.fixture(params=["s.json", "sizes.json"])
def sizes_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def engine(bucket: str, sizes_name: str, folder: Path) -> tuple[Engine, MemorySource]:
    masters, thumbs = MemorySource(), MemorySource({f"{ID}/{sizes_name}": json.dumps(BUCKETS[bucket]).encode()})
    chosen = settings.load(source=str(folder), home=folder, id_segments=3)
    volume, workers = Volume(folder / "volume", size_bytes=2**24), Workers(1, memory_bytes=2**30)
    made = composition.assemble(
        chosen, source=masters, store=RenditionStore(thumbs), masters=Masters(masters), volume=volume, workers=workers
    )
    return made, masters


async def answer(engine: Engine, path: str, version: Version, who: Identity = ANONYMOUS) -> str:
    """`thumb key`, `derivative key w,h`, or the status of the refusal."""
    request = iiif.parse(f"{ID}/{path}", id_segments=3)
    assert isinstance(request, ImageRequest)
    try:
        planned = await engine.plan_thumb(request, version=version, identity=who)
    except RequestError as error:
        return str(error.status)
    match planned.plan:
        case Thumb(rendition):
            return f"thumb {rendition.key.removeprefix(ID + '/')}"
        case Derivative(rendition, job):
            return f"derivative {rendition.key.removeprefix(ID + '/')} {job.size}"
    raise AssertionError(f"/thumbs/ never takes {planned.plan.name}")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("bucket", "path", "expected"),
    [
        # 2. a size that is in the open list
        pytest.param("landscape", "full/400,300/0/default.jpg", "thumb open/400.jpg", id="w,h"),
        pytest.param("landscape", "full/400,/0/default.jpg", "thumb open/400.jpg", id="w,"),
        pytest.param("landscape", "full/,300/0/default.jpg", "thumb open/400.jpg", id=",h"),
        pytest.param("landscape", "full/!400,400/0/default.jpg", "thumb open/400.jpg", id="!w,h"),
        pytest.param("landscape", "full/max/0/default.jpg", "thumb open/1024.jpg", id="max"),
        pytest.param("landscape", "0,0,1024,768/200,/0/color.jpg", "thumb open/200.jpg", id="full by its numbers"),
        pytest.param("landscape", "pct:0,0,100,100/200,/0/default.jpg", "thumb open/200.jpg", id="full by percent"),
        pytest.param("portrait", "full/300,400/0/default.jpg", "thumb open/400.jpg", id="portrait w,h"),
        pytest.param("portrait", "full/,400/0/default.jpg", "thumb open/400.jpg", id="portrait ,h"),
        pytest.param("portrait", "full/!400,400/0/default.jpg", "thumb open/400.jpg", id="portrait !w,h"),
        pytest.param("square", "full/!100,100/0/default.jpg", "thumb open/100.jpg", id="square"),
        pytest.param("square", "square/100,/0/default.jpg", "thumb open/100.jpg", id="square region of a square"),
        # ±1 px: other tools round differently
        pytest.param("odd", "full/200,134/0/default.jpg", "thumb open/200.jpg", id="a pixel more"),
        pytest.param("odd", "full/399,266/0/default.jpg", "thumb open/400.jpg", id="a pixel less"),
        pytest.param("odd", "full/,134/0/default.jpg", "thumb open/200.jpg", id="a pixel more by height"),
        # 3. inside both numbers
        pytest.param("landscape", "full/!200,400/0/default.jpg", "thumb open/200.jpg", id="!w,h binds by width"),
        pytest.param("landscape", "full/!400,150/0/default.jpg", "thumb open/200.jpg", id="!w,h binds by height"),
        # 4. shrunk from the smallest that is enough, to the exact size
        pytest.param("landscape", "full/300,/0/default.jpg", "derivative open/400.jpg 300,225", id="shrunk"),
        pytest.param(
            "landscape", "full/!90,90/0/default.jpg", "derivative open/100.jpg 90,68", id="shrunk, rounded up"
        ),
        pytest.param("portrait", "full/,300/0/default.jpg", "derivative open/400.jpg 225,300", id="shrunk, portrait"),
        # 5. nothing is large enough
        pytest.param("landscape", "full/2000,/0/default.jpg", "404", id="too large"),
        pytest.param("empty", "full/100,/0/default.jpg", "404", id="nothing stored"),
        # 1. what level 0 does not know
        pytest.param("landscape", "0,0,100,100/100,/0/default.jpg", "400", id="a region"),
        pytest.param("landscape", "square/100,/0/default.jpg", "400", id="square of an oblong"),
        pytest.param("landscape", "full/100,/90/default.jpg", "400", id="turned"),
        pytest.param("landscape", "full/100,/!0/default.jpg", "400", id="mirrored"),
        pytest.param("landscape", "full/100,/0/gray.jpg", "400", id="grey"),
        pytest.param("landscape", "full/100,/0/default.png", "400", id="another format"),
        # other formats, where they are stored
        pytest.param("both", "full/400,/0/default.jpg", "thumb open/400.jpg", id="both: jpg"),
        pytest.param("both", "full/400,/0/default.webp", "thumb open/400.webp", id="both: webp"),
        pytest.param("both", "full/90,/0/default.webp", "derivative open/100.jpg 90,68", id="both: shrunk"),
        pytest.param("webp", "full/400,/0/default.webp", "thumb open/400.webp", id="webp alone"),
        pytest.param("webp", "full/400,/0/default.jpg", "derivative open/400.webp 400,300", id="webp alone: jpg"),
        pytest.param("landscape", "full/400,/0/default.webp", "400", id="webp is not stored"),
        # access
        pytest.param("partly", "full/200,/0/default.jpg", "thumb open/200.jpg", id="partly: open"),
        pytest.param("partly", "full/150,/0/default.jpg", "derivative open/200.jpg 150,113", id="partly: shrunk"),
        pytest.param("partly", "full/400,/0/default.jpg", "401", id="partly: restricted"),
        pytest.param("partly", "full/201,/0/default.jpg", "401", id="partly: a pixel too many"),
        pytest.param("restricted", "full/100,/0/default.jpg", "401", id="restricted: an empty open list"),
        pytest.param("restricted", "full/1,/0/default.jpg", "401", id="restricted: a dot"),
        pytest.param("restricted", "full/max/0/default.jpg", "401", id="restricted: max"),
    ],
)
async def test_matching(
    bucket: str, path: str, expected: str, version: Version, sizes_name: str, tmp_path: Path
) -> None:
    made, masters = engine(bucket, sizes_name, tmp_path)

    assert await answer(made, path, version) == expected
    assert masters.calls == []


async def test_full_is_version_2_alone(tmp_path: Path) -> None:
    made, _ = engine("landscape", "s.json", tmp_path)

    assert await answer(made, "full/full/0/default.jpg", 2) == "thumb open/1024.jpg"
    assert await answer(made, "full/full/0/default.jpg", 3) == "400"
