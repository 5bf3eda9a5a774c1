"""A bucket as a DLCS writes it, asked what its own services are asked, and answered as they answer.

What is answered otherwise is in `DIFFERENCES`, each with the reason. The expectations are the DLCS's documented
behaviour for its thumbnail service and for the routing in front of its image servers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.conftest import Serve
from tests.support.servers import S3Server

pytestmark = pytest.mark.service

SIZES: dict[str, tuple[tuple[int, int] | None, dict[str, Any] | None]] = {
    # size of the master, if there is one; sizes file, if there is one
    "land": ((1600, 1200), {"o": [[1024, 768], [400, 300], [200, 150], [100, 75]], "a": []}),
    "mixed": ((606, 1000), {"o": [[302, 500], [60, 100]], "a": [[606, 1000]]}),
    "closed": ((606, 1000), {"o": [], "a": [[302, 500], [60, 100]]}),
    "small": ((266, 440), {"o": [[532, 880], [266, 440], [60, 100]], "a": []}),
    "square": ((1000, 1000), {"o": [[800, 800], [400, 400], [200, 200]]}),
    "empty": ((1000, 1000), {"o": []}),
    "bare": ((1000, 1000), None),
    "gone": (None, {"o": [[1024, 768], [400, 300]], "a": []}),
    "archived": ((1600, 1200), {"o": [[1024, 768], [400, 300]], "a": []}),
    "original": ((1600, 1200), {"o": [[1024, 768], [400, 300]], "a": []}),
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a DLCS answers."""

    status: int = 200
    size: tuple[int, int] | None = None
    stored: bool | None = None
    """Whether a stored file is copied."""


CASES: dict[str, Expected] = {
    # /thumbs/: what cannot be is said before anything is looked for
    "/thumbs/99/1/none/full/200,150/0/default.tif": Expected(400),
    "/thumbs/99/1/none/full/200,150/0/default.png": Expected(400),
    "/thumbs/99/1/none/full/200,150/0/default.webp": Expected(400),
    "/thumbs/99/1/land/full/200,150/0/default.gif": Expected(400),
    "/thumbs/99/1/land/full/max/0/bitonal.jpg": Expected(400),
    "/thumbs/99/1/land/full/max/0/gray.jpg": Expected(400),
    "/thumbs/99/1/land/full/max/90/default.jpg": Expected(400),
    "/thumbs/99/1/land/full/max/!0/default.jpg": Expected(400),
    "/thumbs/99/1/land/full/pct:50/0/default.jpg": Expected(400),
    # /thumbs/: which file, or made of which
    "/thumbs/99/1/land/full/400,300/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/thumbs/99/1/land/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/thumbs/99/1/land/full/200,/0/default.jpg": Expected(size=(200, 150), stored=True),
    "/thumbs/99/1/land/full/,300/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/thumbs/99/1/land/full/max/0/default.jpg": Expected(size=(1024, 768), stored=True),
    "/thumbs/99/1/land/full/full/0/default.jpg": Expected(size=(1024, 768), stored=True),
    "/thumbs/99/1/land/full/300,/0/default.jpg": Expected(size=(300, 225), stored=False),
    "/thumbs/99/1/land/full/50,/0/default.jpg": Expected(size=(50, 38), stored=False),
    "/thumbs/99/1/land/full/!99,99/0/default.jpg": Expected(size=(99, 74), stored=False),
    "/thumbs/99/1/land/full/!101,101/0/default.jpg": Expected(size=(101, 76), stored=False),
    "/thumbs/99/1/land/full/2000,/0/default.jpg": Expected(404),
    "/thumbs/99/1/mixed/full/!500,500/0/default.jpg": Expected(size=(302, 500), stored=True),
    "/thumbs/99/1/mixed/full/max/0/default.jpg": Expected(size=(302, 500), stored=True),
    "/thumbs/99/1/mixed/full/!1000,1000/0/default.jpg": Expected(404),
    "/thumbs/99/1/closed/full/!100,100/0/default.jpg": Expected(404),
    "/thumbs/99/1/small/full/max/0/default.jpg": Expected(size=(532, 880), stored=True),
    "/thumbs/99/1/small/full/!880,880/0/default.jpg": Expected(size=(532, 880), stored=True),
    "/thumbs/99/1/square/full/!200,500/0/default.jpg": Expected(size=(200, 200), stored=True),
    "/thumbs/99/1/empty/full/!100,100/0/default.jpg": Expected(404),
    "/thumbs/99/1/bare/full/!400,400/0/default.jpg": Expected(404),
    "/thumbs/99/1/gone/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/thumbs/customer/1/land/full/!200,200/0/default.jpg": Expected(size=(200, 150), stored=True),
    "/thumbs/v2/customer/1/land/full/!200,200/0/default.jpg": Expected(size=(200, 150), stored=True),
    # /iiif-img/
    "/iiif-img/99/1/land/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/iiif-img/customer/1/land/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/iiif-img/customer/1/land/0,0,512,512/200,200/0/default.jpg": Expected(size=(200, 200)),
    "/iiif-img/99/1/square/0,0,1000,1000/800,800/0/default.jpg": Expected(size=(800, 800), stored=True),
    "/iiif-img/99/1/square/square/400,400/0/default.jpg": Expected(size=(400, 400), stored=True),
    "/iiif-img/99/1/square/full/full/0/default.jpg": Expected(size=(1000, 1000)),
    "/iiif-img/99/1/square/full/!100,150/0/default.png": Expected(size=(100, 100)),
    "/iiif-img/99/1/square/full/!100,150/90/gray.jpg": Expected(size=(100, 100)),
    "/iiif-img/99/1/square/full/!100,150/0/default.pdf": Expected(400),
    "/iiif-img/99/1/square/full/0,/0/default.jpg": Expected(400),
    "/iiif-img/99/1/square/full/!0,0/0/default.jpg": Expected(400),
    "/iiif-img/99/1/square/full/all/0/default.jpg": Expected(400),
    "/iiif-img/99/1/square/canvas/c/10": Expected(404),
    "/iiif-img/99/1/none/full/max/0/default.jpg": Expected(404),
    "/iiif-img/99/1/none/info.json": Expected(404),
    "/iiif-img/v2/99/1/square/5,5,5,5/5,/0/default.jpg": Expected(size=(5, 5)),
    "/iiif-img/v2/99/1/square/5,5,5,5/90,/0/default.jpg": Expected(size=(90, 90)),
    "/iiif-img/v3/99/1/square/full/90,/0/default.jpg": Expected(size=(90, 90)),
    "/iiif-img/v1/99/1/square/0,0,512,512/90,/0/default.jpg": Expected(400),
    "/iiif-img/99/1/original/0,0,512,512/512,/0/default.jpg": Expected(size=(512, 512)),
    "/iiif-img/99/1/original/full/!1024,1024/0/default.jpg": Expected(size=(1024, 768), stored=True),
    "/iiif-img/99/1/gone/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/iiif-img/99/1/gone/full/150,/0/default.jpg": Expected(size=(150, 113), stored=False),
    "/iiif-img/99/1/gone/0,0,100,100/max/0/default.jpg": Expected(404),
    "/iiif-img/99/1/gone/info.json": Expected(),
    "/iiif-img/99/1/archived/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/iiif-img/99/1/archived/0,0,100,100/max/0/default.jpg": Expected(404),
    "/iiif-img/99/1/archived/info.json": Expected(),
    # access
    "/iiif-img/99/1/mixed/full/!500,500/0/default.jpg": Expected(size=(303, 500)),
    "/iiif-img/99/1/mixed/full/,500/0/default.jpg": Expected(size=(303, 500)),
    "/iiif-img/99/1/mixed/0,0,512,512/500,/0/default.jpg": Expected(401),
    "/iiif-img/99/1/mixed/full/606,1000/0/default.jpg": Expected(401),
    "/iiif-img/99/1/mixed/full/max/0/default.jpg": Expected(401),
    "/iiif-img/99/1/mixed/info.json": Expected(401),
    "/iiif-img/99/1/closed/info.json": Expected(401),
    # other services of a DLCS
    "/ping": Expected(200),
    "/iiif-manifest/99/1/land": Expected(200),
    "/pdf/99/query/1": Expected(200),
    "/iiif-av/99/1/land/full/max/default.mp3": Expected(200),
}

DIFFERENCES: dict[str, tuple[Expected, str]] = {
    "/thumbs/99/1/none/full/200,150/0/default.webp": (Expected(404), "WebP may be stored here"),
    "/thumbs/99/1/land/full/pct:50/0/default.jpg": (
        Expected(size=(512, 384), stored=False),
        "half of the largest stored size is smaller than that, so it can be made",
    ),
    "/thumbs/99/1/land/full/!101,101/0/default.jpg": (
        Expected(size=(100, 75), stored=True),
        "a stored size that is one pixel smaller is copied, without a decoder",
    ),
    "/thumbs/99/1/mixed/full/!1000,1000/0/default.jpg": (Expected(401), "it is there, for those who log in"),
    "/thumbs/99/1/closed/full/!100,100/0/default.jpg": (Expected(401), "it is there, for those who log in"),
    "/iiif-img/v2/99/1/square/5,5,5,5/90,/0/default.jpg": (Expected(501), "enlarging is a setting, `upscaling`"),
    "/iiif-img/v1/99/1/square/0,0,512,512/90,/0/default.jpg": (Expected(404), "nothing has this address"),
    "/iiif-img/99/1/mixed/full/max/0/default.jpg": (
        Expected(size=(303, 500)),
        "`max` is what the caller's info.json names",
    ),
    "/iiif-img/99/1/mixed/info.json": (
        Expected(),
        "it describes the sizes that are open; with `auth_versions=1` it leads to the lower tier",
    ),
    "/ping": (Expected(404), "health is at /livez and /readyz"),
    "/iiif-manifest/99/1/land": (Expected(404), "another service of a DLCS"),
    "/pdf/99/query/1": (Expected(404), "another service of a DLCS"),
    "/iiif-av/99/1/land/full/max/default.mp3": (Expected(404), "another service of a DLCS"),
}


def picture(width: int, height: int) -> bytes:
    packed = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(packed, "JPEG")
    return packed.getvalue()


@pytest.fixture(scope="module")
def client(serve: Serve, moto_s3: S3Server) -> Iterator[httpx.Client]:
    """A server of a storage bucket and a thumbs bucket as a DLCS leaves them, with settings for one."""
    s3, masters, thumbs = moto_s3.client(), moto_s3.bucket(), moto_s3.bucket()
    for name, (master, sizes) in SIZES.items():
        if master:
            key = f"99/1/{name}/original" if name == "original" else f"99/1/{name}"
            tier = "GLACIER" if name == "archived" else "STANDARD"
            s3.put_object(Bucket=masters, Key=key, Body=picture(*master), StorageClass=tier)
        if sizes is not None:
            s3.put_object(Bucket=thumbs, Key=f"99/1/{name}/s.json", Body=json.dumps(sizes))
            for access, folder in (("o", "open"), ("a", "auth")):
                for width, height in sizes.get(access, []):
                    key = f"99/1/{name}/{folder}/{max(width, height)}.jpg"
                    s3.put_object(Bucket=thumbs, Key=key, Body=picture(width, height))
    settings = {
        "SPECIAL_ID_SEGMENTS": "3",
        "SPECIAL_ID_MAP": "customer=99",
        "SPECIAL_REDIRECT_CANONICAL": "true",
        **moto_s3.environ,
    }
    server = serve(f"s3://{masters}", "--thumbs", f"s3://{thumbs}", settings=settings)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def flaws(answer: httpx.Response, expected: Expected) -> list[str]:
    """What is otherwise than expected."""
    if answer.status_code != expected.status:
        return [f"{answer.status_code}: {answer.text[:100]}"]
    found = []
    if expected.size and Image.open(io.BytesIO(answer.content)).size != expected.size:
        found.append(f"{Image.open(io.BytesIO(answer.content)).size}")
    if expected.stored is not None and (answer.headers["x-special-route"] == "thumb") != expected.stored:
        found.append(answer.headers["x-special-route"])
    return found


def test_every_request_is_answered_as_a_dlcs_does_but_for_those_that_are_named(client: httpx.Client) -> None:
    faults = {}
    for path, expected in CASES.items():
        answer = client.get(path)
        ours, _ = DIFFERENCES.get(path, (expected, ""))
        if found := flaws(answer, ours):
            faults[path] = found
        if path in DIFFERENCES and not flaws(answer, expected):
            faults[path] = ["it is no difference any more"]
    assert faults == {}
    assert set(DIFFERENCES) <= set(CASES)


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/thumbs/99/1/image", "/thumbs/99/1/image/info.json"),
        ("/thumbs/99/1/image/?x=y", "/thumbs/99/1/image/info.json"),
        ("/thumbs/customer/1/image", "/thumbs/customer/1/image/info.json"),
        ("/thumbs/v2/99/1/image", "/thumbs/v2/99/1/image/info.json"),
        ("/thumbs/v3/99/1/image/", "/thumbs/99/1/image/info.json"),
        ("/iiif-img/v3/99/1/image", "/iiif-img/99/1/image/info.json"),
        ("/iiif-img/v2/99/1/image/", "/iiif-img/v2/99/1/image/info.json"),
        ("/thumbs/v3/99/1/square/info.json", "/thumbs/99/1/square/info.json"),
        ("/iiif-img/v3/99/1/square/info.json", "/iiif-img/99/1/square/info.json"),
    ],
)
def test_redirects_lead_to_the_canonical_address(client: httpx.Client, path: str, location: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{client.base_url}{location}".replace(":/", ":/"))


@pytest.mark.parametrize("form", ["!200,200", "max", "!60,100", "302,500"])
@pytest.mark.parametrize("version", ["v2/", ""])
@pytest.mark.parametrize("name", ["land", "mixed", "small"])
def test_a_canonical_link_gives_the_same_picture(client: httpx.Client, name: str, version: str, form: str) -> None:
    answer = client.get(f"/thumbs/{version}99/1/{name}/full/{form}/0/default.jpg")
    if answer.status_code != 200:
        assert answer.status_code in (400, 404)
        return
    assert answer.headers["x-asset-id"] == f"99/1/{name}"
    canonical = answer.headers["link"].partition(">")[0].removeprefix("<")
    again = client.get(canonical)
    assert (again.status_code, again.content) == (200, answer.content)
    assert again.headers["x-special-route"] == answer.headers["x-special-route"]


def test_an_open_thumbnail_of_a_partly_restricted_image_may_be_shared(client: httpx.Client) -> None:
    answer = client.get("/thumbs/99/1/mixed/full/!500,500/0/default.jpg")
    assert (answer.headers["x-thumb-match"], "public" in answer.headers["cache-control"]) == ("1", True)


def test_ids_are_as_they_were_asked_for(client: httpx.Client) -> None:
    for customer in ("99", "customer"):
        document = client.get(f"/iiif-img/{customer}/1/land/info.json").json()
        assert document["id"] == f"{client.base_url}/iiif-img/{customer}/1/land"
