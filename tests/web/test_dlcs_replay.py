"""A bucket as a DLCS writes it, asked what its own services are asked, and answered as they answer.

What is answered otherwise is in `DIFFERENCES`, each with the reason. The expectations are the DLCS's documented
behaviour for its thumbnail service and for the routing in front of its image servers.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
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
    "tall": ((1515, 2500), {"o": [[606, 1000], [302, 500], [60, 100]], "a": []}),
    "mixed": ((1515, 2500), {"o": [[302, 500], [60, 100]], "a": [[606, 1000]]}),
    "closed": ((606, 1000), {"o": [], "a": [[302, 500], [60, 100]]}),
    "small": ((266, 440), {"o": [[532, 880], [266, 440], [60, 100]], "a": []}),
    "square": ((1000, 1000), {"o": [[800, 800], [400, 400], [200, 200]]}),
    "portrait": ((800, 1600), {"o": [[400, 800], [200, 400], [100, 200]], "a": []}),
    "landscape": ((1600, 800), {"o": [[800, 400], [400, 200], [200, 100]], "a": []}),
    "almost": ((2000, 1950), {"o": [[200, 195], [100, 97]], "a": []}),
    "sides": ((1515, 2500), {"o": [[400, 660], [182, 300]], "a": []}),
    "hole": ((1366, 2048), {"o": [[683, 1024], [67, 100]], "a": [[267, 400], [133, 200]]}),
    "one": ((1000, 1000), {"o": [[200, 200]]}),
    "empty": ((1000, 1000), {"o": []}),
    "bare": ((1000, 1000), None),
    "gone": (None, {"o": [[1024, 768], [400, 300]], "a": []}),
    "archived": ((1600, 1200), {"o": [[1024, 768], [400, 300]], "a": []}),
    "original": ((1600, 1200), {"o": [[1024, 768], [400, 300]], "a": []}),
    "elsewhere": (None, {"o": [[1024, 768], [400, 300], [200, 150], [100, 75]], "a": []}),
}
ELSEWHERE = "digitised/b123/v1/data/objects/b123_0001"
"""Key of the master of `elsewhere`, in a third bucket: an optimised origin."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a DLCS answers."""

    status: int = 200
    size: tuple[int, int] | None = None
    stored: bool | None = None
    """Whether a stored file is copied."""
    route: str | None = None


THUMBS: dict[str, Expected] = {
    # what cannot be is said before anything is looked for
    **{f"none/full/200,150/0/default.{it}": Expected(400) for it in ("tif", "png", "gif", "jp2", "pdf", "webp")},
    **{f"land/full/200,150/0/default.{it}": Expected(400) for it in ("tif", "png", "gif", "jp2", "pdf", "webp")},
    "land/full/max/0/bitonal.jpg": Expected(400),
    "land/full/max/0/gray.jpg": Expected(400),
    "land/full/max/90/default.jpg": Expected(400),
    "land/full/max/!0/default.jpg": Expected(400),
    "land/full/pct:50/0/default.jpg": Expected(400),
    # which file, or made of which
    "land/full/400,300/0/default.jpg": Expected(size=(400, 300), stored=True),
    "land/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "land/full/200,/0/default.jpg": Expected(size=(200, 150), stored=True),
    "land/full/,300/0/default.jpg": Expected(size=(400, 300), stored=True),
    "land/full/max/0/default.jpg": Expected(size=(1024, 768), stored=True),
    "land/full/full/0/default.jpg": Expected(size=(1024, 768), stored=True),
    "land/full/300,/0/default.jpg": Expected(size=(300, 225), stored=False),
    "land/full/50,/0/default.jpg": Expected(size=(50, 38), stored=False),
    "land/full/!100,100/0/default.jpg": Expected(size=(100, 75), stored=True),
    "land/full/!99,99/0/default.jpg": Expected(size=(99, 74), stored=False),
    "land/full/!101,101/0/default.jpg": Expected(size=(101, 76), stored=False),
    "land/full/2000,/0/default.jpg": Expected(404),
    "tall/full/!500,500/0/default.jpg": Expected(size=(302, 500), stored=True),
    "tall/full/303,/0/default.jpg": Expected(size=(303, 502), stored=False),
    "portrait/full/!110,200/0/default.jpg": Expected(size=(100, 200), stored=True),
    "portrait/full/110,210/0/default.jpg": Expected(size=(110, 210), stored=False),
    "portrait/full/300,/0/default.jpg": Expected(size=(300, 600), stored=False),
    "portrait/full/50,/0/default.jpg": Expected(size=(50, 100), stored=False),
    "portrait/full/500,/0/default.jpg": Expected(404),
    "portrait/full/!250,400/0/default.jpg": Expected(size=(200, 400), stored=True),
    "portrait/full/250,450/0/default.jpg": Expected(size=(250, 450), stored=False),
    "landscape/full/200,/0/default.jpg": Expected(size=(200, 100), stored=True),
    "landscape/full/210,/0/default.jpg": Expected(size=(210, 105), stored=False),
    "landscape/full/,200/0/default.jpg": Expected(size=(400, 200), stored=True),
    "landscape/full/,210/0/default.jpg": Expected(size=(420, 210), stored=False),
    "landscape/full/max/0/default.jpg": Expected(size=(800, 400), stored=True),
    "landscape/full/!400,250/0/default.jpg": Expected(size=(400, 200), stored=True),
    "landscape/full/450,250/0/default.jpg": Expected(size=(450, 250), stored=False),
    "landscape/full/!802,401/0/default.jpg": Expected(404),
    "landscape/full/!800,350/0/default.jpg": Expected(size=(700, 350), stored=False),
    "almost/full/!400,400/0/default.jpg": Expected(404),
    "sides/full/400,/0/default.jpg": Expected(size=(400, 660), stored=True),
    "sides/full/,300/0/default.jpg": Expected(size=(182, 300), stored=True),
    "mixed/full/!500,500/0/default.jpg": Expected(size=(302, 500), stored=True),
    "mixed/full/max/0/default.jpg": Expected(size=(302, 500), stored=True),
    "mixed/full/!1000,1000/0/default.jpg": Expected(404),
    "closed/full/!100,100/0/default.jpg": Expected(404),
    "hole/full/!400,400/0/default.jpg": Expected(404),
    "small/full/max/0/default.jpg": Expected(size=(532, 880), stored=True),
    "small/full/!880,880/0/default.jpg": Expected(size=(532, 880), stored=True),
    "square/full/!200,500/0/default.jpg": Expected(size=(200, 200), stored=True),
    "empty/full/!100,100/0/default.jpg": Expected(404),
    "bare/full/!400,400/0/default.jpg": Expected(404),
    "gone/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "elsewhere/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "legacy/full/400,300/0/default.jpg": Expected(size=(400, 300), stored=True),
}
IMAGES: dict[str, Expected] = {
    # stored sizes first
    "land/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "one/full/!200,200/0/default.jpg": Expected(size=(200, 200), route="thumb"),
    "square/full/!123,123/0/default.jpg": Expected(size=(123, 123), route="derivative"),
    "square/full/!900,900/0/default.jpg": Expected(size=(900, 900), route="stream"),
    "empty/full/!800,800/0/default.jpg": Expected(route="stream"),
    "bare/full/!800,800/0/default.jpg": Expected(route="stream"),
    "square/full/full/0/default.jpg": Expected(size=(1000, 1000), route="stream"),
    "square/full/max/0/default.jpg": Expected(size=(1000, 1000), route="stream"),
    "square/0,0,1000,1000/800,800/0/default.jpg": Expected(size=(800, 800), route="thumb"),
    "square/square/400,400/0/default.jpg": Expected(size=(400, 400), route="thumb"),
    "empty/0,0,1000,1000/200,200/0/default.jpg": Expected(size=(200, 200), route="stream"),
    "square/10,10,990,990/200,200/0/default.jpg": Expected(size=(200, 200), route="tile"),
    # formats, rotations, qualities
    **{f"square/full/!100,150/0/default.{it}": Expected(size=(100, 100)) for it in ("png", "tif", "webp", "gif")},
    **{f"square/full/!100,150/0/default.{it}": Expected(400) for it in ("jp2", "pdf")},
    "square/full/!100,150/90/default.jpg": Expected(size=(100, 100)),
    "square/full/!100,150/90/gray.jpg": Expected(size=(100, 100)),
    "square/full/!100,150/!0/default.jpg": Expected(size=(100, 100)),
    "square/full/!100,150/0/bitonal.jpg": Expected(size=(100, 100)),
    "square/full/!100,150/0/gray.jpg": Expected(size=(100, 100)),
    # what cannot be
    **{f"square/full/{it}/0/default.jpg": Expected(400) for it in ("0,", ",0", "!0,0", "!0,20", "20,0", "0,20")},
    "square/full/all/0/default.jpg": Expected(400),
    "square/!200,200/full/0/default.jpg": Expected(400),
    "square/full////max/0/default.jpg": Expected(400),
    "square/full/0/default.jpg": Expected(400),
    "square/canvas/c/10": Expected(404),
    "none/full/full/0/default.jpg": Expected(404),
    "none/full/max/0/default.jpg": Expected(404),
    "none/info.json": Expected(404),
    # where masters are
    "land/0,0,512,512/512,/0/default.jpg": Expected(size=(512, 512)),
    "original/0,0,512,512/512,/0/default.jpg": Expected(size=(512, 512), route="tile"),
    "original/full/!1024,1024/0/default.jpg": Expected(size=(1024, 768), stored=True),
    "elsewhere/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "elsewhere/info.json": Expected(),
    "elsewhere/0,0,512,512/512,/0/default.jpg": Expected(size=(512, 512)),
    "gone/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "gone/full/150,/0/default.jpg": Expected(size=(150, 113), stored=False),
    "gone/0,0,100,100/max/0/default.jpg": Expected(404),
    "gone/info.json": Expected(),
    "archived/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "archived/0,0,100,100/max/0/default.jpg": Expected(404),
    "archived/info.json": Expected(),
    # access
    "mixed/full/!500,500/0/default.jpg": Expected(size=(303, 500)),
    "mixed/full/,500/0/default.jpg": Expected(size=(303, 500)),
    "mixed/full/303,500/0/default.jpg": Expected(size=(303, 500)),
    "mixed/full/pct:10/0/default.jpg": Expected(),
    "mixed/full/500,/0/default.jpg": Expected(),
    "mixed/full/max/0/default.jpg": Expected(401),
    "mixed/full/600,1000/0/default.jpg": Expected(401),
    "mixed/full/606,1000/0/default.jpg": Expected(401),
    "mixed/full/1000,1000/0/default.jpg": Expected(401),
    "mixed/0,0,512,512/500,/0/default.jpg": Expected(401),
    "mixed/pct:0,0,51,51/!10,10/0/default.jpg": Expected(401),
    "mixed/square/!501,501/0/default.jpg": Expected(401),
    "mixed/square/!400,400/0/default.jpg": Expected(401),
    "mixed/info.json": Expected(401),
    "closed/info.json": Expected(401),
}
CASES: dict[str, Expected] = {
    **{f"/thumbs/99/1/{path}": expected for path, expected in THUMBS.items()},
    **{f"/iiif-img/99/1/{path}": expected for path, expected in IMAGES.items()},
    # versions, and customers by name
    "/iiif-img/v2/99/1/square/full/90,/0/default.jpg": Expected(size=(90, 90)),
    "/iiif-img/v3/99/1/square/full/90,/0/default.jpg": Expected(size=(90, 90)),
    "/iiif-img/v2/99/1/square/5,5,5,5/5,/0/default.jpg": Expected(size=(5, 5)),
    "/iiif-img/v2/99/1/square/5,5,5,5/90,/0/default.jpg": Expected(size=(90, 90)),
    "/iiif-img/v1/99/1/square/0,0,512,512/90,/0/default.jpg": Expected(400),
    "/iiif-img/v10/99/1/square/full/90,/0/default.jpg": Expected(400),
    "/thumbs/customer/1/square/info.json": Expected(),
    "/thumbs/customer/1/square/full/!200,200/0/default.jpg": Expected(size=(200, 200), stored=True),
    "/thumbs/customer/1/land/full/!200,200/0/default.jpg": Expected(size=(200, 150), stored=True),
    "/thumbs/v2/customer/1/land/full/!200,200/0/default.jpg": Expected(size=(200, 150), stored=True),
    "/iiif-img/customer/1/land/full/!400,400/0/default.jpg": Expected(size=(400, 300), stored=True),
    "/iiif-img/customer/1/land/0,0,512,512/200,200/0/default.jpg": Expected(size=(200, 200)),
    "/iiif-img/customer/1/square/full/!200,200/0/default.jpg": Expected(size=(200, 200), stored=True),
    "/iiif-img/customer/1/square/0,0,512,512/200,200/0/default.jpg": Expected(size=(200, 200), route="tile"),
    "/iiif-img/v2/customer/1/square/info.json": Expected(),
    # other services of a DLCS
    "/ping": Expected(200),
    "/iiif-manifest/99/1/land": Expected(200),
    "/iiif-resource/99/query/1": Expected(200),
    "/pdf/99/query/1": Expected(200),
    "/zip/99/query/1": Expected(200),
    "/file/99/1/land": Expected(200),
    "/iiif-av/99/1/land/full/max/default.mp3": Expected(200),
    "/raw-resource/99/query/1": Expected(200),
    "/presentation/99/1/land": Expected(200),
}
ENLARGING: dict[str, Expected] = {
    # of a server that may enlarge its largest thumbnail to twice its size
    "/thumbs/99/1/one/full/!350,350/0/default.jpg": Expected(size=(350, 350), stored=False),
    "/thumbs/99/1/one/full/!500,500/0/default.jpg": Expected(404),
    "/iiif-img/99/1/one/full/!350,350/0/default.jpg": Expected(size=(350, 350), route="derivative"),
    "/iiif-img/99/1/original/0,0,512,512/512,/0/default.jpg": Expected(size=(512, 512), route="tile"),
}

OTHER_SERVICE = Expected(404), "another service of a DLCS"
NO_ADDRESS = Expected(404), "nothing has this address"
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
    "/thumbs/99/1/tall/full/303,/0/default.jpg": (
        Expected(size=(302, 500), stored=True),
        "a stored size that is one pixel smaller is copied, without a decoder",
    ),
    "/thumbs/99/1/mixed/full/!1000,1000/0/default.jpg": (Expected(401), "it is there, for those who log in"),
    "/thumbs/99/1/closed/full/!100,100/0/default.jpg": (Expected(401), "it is there, for those who log in"),
    "/thumbs/99/1/hole/full/!400,400/0/default.jpg": (
        Expected(size=(267, 400), stored=False),
        "what is smaller than an open size is open",
    ),
    "/thumbs/99/1/legacy/full/400,300/0/default.jpg": (
        Expected(404),
        "`special derive --migrate-legacy` takes such files over; without a sizes file it takes a GET to find out",
    ),
    "/iiif-img/99/1/one/full/!350,350/0/default.jpg": (
        Expected(size=(350, 350), route="stream"),
        "the master has these pixels; only `/thumbs/` enlarges",
    ),
    "/iiif-img/v2/99/1/square/5,5,5,5/90,/0/default.jpg": (Expected(501), "enlarging is a setting, `upscaling`"),
    "/iiif-img/v1/99/1/square/0,0,512,512/90,/0/default.jpg": NO_ADDRESS,
    "/iiif-img/v10/99/1/square/full/90,/0/default.jpg": NO_ADDRESS,
    "/iiif-img/99/1/square/full////max/0/default.jpg": NO_ADDRESS,
    "/iiif-img/99/1/square/full/0/default.jpg": NO_ADDRESS,
    "/iiif-img/99/1/mixed/full/500,/0/default.jpg": (
        Expected(401),
        "its longer side would have 825 pixels, and 500 are open",
    ),
    "/iiif-img/99/1/mixed/full/max/0/default.jpg": (
        Expected(size=(303, 500)),
        "`max` is what the caller's info.json names",
    ),
    "/iiif-img/99/1/mixed/info.json": (
        Expected(),
        "it describes the sizes that are open; with `auth_versions=1` it leads to the lower tier",
    ),
    "/ping": (Expected(404), "health is at /livez and /readyz"),
    "/iiif-manifest/99/1/land": OTHER_SERVICE,
    "/pdf/99/query/1": OTHER_SERVICE,
    "/iiif-resource/99/query/1": OTHER_SERVICE,
    "/zip/99/query/1": OTHER_SERVICE,
    "/file/99/1/land": OTHER_SERVICE,
    "/iiif-av/99/1/land/full/max/default.mp3": OTHER_SERVICE,
    "/raw-resource/99/query/1": OTHER_SERVICE,
    "/presentation/99/1/land": OTHER_SERVICE,
}

V2 = 'application/ld+json; profile="http://iiif.io/api/image/2/context.json"'
V3 = 'application/ld+json; profile="http://iiif.io/api/image/3/context.json"'
Said = tuple[str, dict[str, str], str, Any]
"""Path, headers, a property of the document, and its value; `{base}` is the server's address."""
SAID: dict[str, Said] = {
    "v2": ("/thumbs/v2/99/1/square", {}, "@id", "{base}/thumbs/v2/99/1/square"),
    "v2 by Accept": ("/thumbs/99/1/square", {"Accept": V2}, "@id", "{base}/thumbs/99/1/square"),
    "v3 by Accept": ("/thumbs/99/1/square", {"Accept": V3}, "id", "{base}/thumbs/99/1/square"),
    "v2, width": ("/thumbs/v2/99/1/square", {}, "width", 800),
    "v2, height": ("/thumbs/v2/99/1/square", {}, "height", 800),
    "v2 by Accept, width": ("/thumbs/99/1/square", {"Accept": V2}, "width", 800),
    "v2 by Accept, height": ("/thumbs/99/1/square", {"Accept": V2}, "height", 800),
    "v3 by Accept, width": ("/thumbs/99/1/square", {"Accept": V3}, "width", 800),
    "v3 by Accept, height": ("/thumbs/99/1/square", {"Accept": V3}, "height", 800),
    "no query": ("/iiif-img/v2/99/1/square/info.json?query=foo", {}, "@id", "{base}/iiif-img/v2/99/1/square"),
    "customer": ("/iiif-img/customer/1/land", {}, "id", "{base}/iiif-img/customer/1/land"),
    "forwarded host": (
        "/iiif-img/99/1/square",
        {"X-Forwarded-Host": "new-host.dlcs"},
        "id",
        "http://new-host.dlcs/iiif-img/99/1/square",
    ),
    "path rule of a host": (
        "/iiif-img/99/1/square",
        {"X-Forwarded-Host": "my-proxy.com"},
        "id",
        "http://my-proxy.com/const_value/99/square",
    ),
    "stored sizes alone": ("/iiif-img/99/1/land", {}, "sizes", [[100, 75], [200, 150], [400, 300], [1024, 768]]),
    "type of v2": ("/iiif-img/v2/99/1/land", {}, "@type", "iiif:Image"),
}
SAID_OTHERWISE: dict[str, tuple[Any, str]] = {
    "path rule of a host": (
        "http://my-proxy.com/iiif-img/99/1/square",
        "rewriting addresses is the proxy's task; X-Forwarded-Path names what it took off",
    ),
    "stored sizes alone": (
        [[100, 75], [200, 150], [400, 300], [800, 600], [1024, 768], [1600, 1200]],
        "all that scale factors lead to is listed, stored sizes first for each of them",
    ),
    "type of v2": (None, "Image API 2.1 has no such property in its own documents, only in those that embed them"),
}


def picture(width: int, height: int) -> bytes:
    packed = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(packed, "JPEG")
    return packed.getvalue()


@pytest.fixture(scope="module")
def clients(
    serve: Serve, moto_s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, httpx.Client]]:
    """Two servers of the buckets of a DLCS as it leaves them, with settings for one; the second enlarges."""
    s3, masters, thumbs, archive = moto_s3.client(), moto_s3.bucket(), moto_s3.bucket(), moto_s3.bucket()
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
    s3.put_object(Bucket=archive, Key=ELSEWHERE, Body=picture(1600, 1200))
    s3.put_object(Bucket=masters, Key="99/1/land/info/Cantaloupe/v3/info.json", Body=b"{}")
    s3.put_object(Bucket=masters, Key="99/1/legacy", Body=picture(1600, 1200))
    s3.put_object(Bucket=thumbs, Key="99/1/legacy/full/400,300/0/default.jpg", Body=picture(400, 300))
    folder = tmp_path_factory.mktemp("dlcs")
    with closing(sqlite3.connect(folder / "catalogue.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE images (identifier PRIMARY KEY, url)")
        connection.execute("INSERT INTO images VALUES (?, ?)", ("99/1/elsewhere", f"s3://{archive}/{ELSEWHERE}"))
    (folder / "special.toml").write_text(f"""
id_segments = 3
id_map = ["customer=99", "display-name=2"]
redirect_canonical = true
[[sources]]
url = "s3://{archive}"
[[catalogue]]
kind = "sqlite"
file = "{folder / "catalogue.sqlite"}"
[[catalogue]]
kind = "templates"
""")
    with ExitStack() as stack:
        found = {}
        more = {"SPECIAL_UPSCALE_PERCENT": "100", "SPECIAL_KEYS": "{id},{id}/original"}
        for name, settings in {"plain": {}, "enlarging": more}.items():
            options = "--thumbs", f"s3://{thumbs}", "--config", str(folder / "special.toml")
            server = serve(f"s3://{masters}", *options, settings=settings | moto_s3.environ)
            found[name] = stack.enter_context(httpx.Client(base_url=server.url, timeout=60))
        yield found


@pytest.fixture
def client(clients: dict[str, httpx.Client]) -> httpx.Client:
    return clients["plain"]


def flaws(answer: httpx.Response, expected: Expected) -> list[str]:
    """What is otherwise than expected."""
    if answer.status_code != expected.status:
        return [f"{answer.status_code}: {answer.text[:100]}"]
    found = []
    if expected.size and Image.open(io.BytesIO(answer.content)).size != expected.size:
        found.append(f"{Image.open(io.BytesIO(answer.content)).size}")
    if expected.stored is not None and (answer.headers["x-special-route"] == "thumb") != expected.stored:
        found.append(answer.headers["x-special-route"])
    if expected.route and answer.headers["x-special-route"] != expected.route:
        found.append(answer.headers["x-special-route"])
    return found


@pytest.mark.parametrize(("name", "cases"), [("plain", CASES), ("enlarging", ENLARGING)])
def test_every_request_is_answered_as_a_dlcs_does_but_for_those_that_are_named(
    clients: dict[str, httpx.Client], name: str, cases: dict[str, Expected]
) -> None:
    faults = {}
    for path, expected in cases.items():
        answer = clients[name].get(path)
        ours, _ = DIFFERENCES.get(path, (expected, ""))
        if found := flaws(answer, ours):
            faults[path] = found
        if path in DIFFERENCES and not flaws(answer, expected):
            faults[path] = ["it is no difference any more"]
    assert faults == {}
    assert set(DIFFERENCES) <= {*CASES, *ENLARGING}


@pytest.mark.parametrize("name", SAID)
def test_documents_say_what_a_dlcs_says_but_for_those_that_are_named(client: httpx.Client, name: str) -> None:
    path, headers, property_, expected = SAID[name]
    answer = client.get(path if "info.json" in path else f"{path}/info.json", headers=headers)
    said = answer.json().get(property_)
    if property_ == "sizes":
        said = [[it["width"], it["height"]] for it in said]
    base = str(client.base_url).rstrip("/")
    ours, _ = SAID_OTHERWISE.get(name, (expected, ""))
    assert said == (ours.format(base=base) if isinstance(ours, str) else ours)
    assert name not in SAID_OTHERWISE or said != expected
    assert "X-Forwarded-Host" in headers or "public" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("path", "accept", "media_type"),
    [
        ("/thumbs/v2/99/1/square/info.json", "*/*", "application/json"),
        ("/thumbs/99/1/square/info.json", V2, "application/ld+json"),
        ("/thumbs/99/1/square/info.json", V3, V3),
    ],
)
def test_a_document_is_of_the_media_type_that_was_asked_for(
    client: httpx.Client, path: str, accept: str, media_type: str
) -> None:
    answer = client.get(path, headers={"Accept": accept})
    assert answer.headers["content-type"].replace("; ", ";") == media_type.replace("; ", ";")
    assert answer.headers["x-asset-id"] == "99/1/square"


@pytest.mark.parametrize("path", ["/iiif-img/1/1", "/iiif-img/1/1/info.json", "/iiif-img/1/1/full/1000,/0/default.jpg"])
def test_browsers_on_other_sites_may_ask(client: httpx.Client, path: str) -> None:
    answer = client.options(path)
    assert answer.status_code in (200, 204)
    assert {f"access-control-allow-{it}" for it in ("origin", "headers", "methods")} <= set(answer.headers)


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/thumbs/99/1/image", "/thumbs/99/1/image/info.json"),
        ("/thumbs/99/1/image?x=y", "/thumbs/99/1/image/info.json"),
        ("/thumbs/99/1/image/", "/thumbs/99/1/image/info.json"),
        ("/thumbs/99/1/image/?x=y", "/thumbs/99/1/image/info.json"),
        ("/thumbs/customer/1/image", "/thumbs/customer/1/image/info.json"),
        ("/thumbs/customer/1/image/", "/thumbs/customer/1/image/info.json"),
        ("/thumbs/v2/99/1/image", "/thumbs/v2/99/1/image/info.json"),
        ("/thumbs/v2/99/1/image/", "/thumbs/v2/99/1/image/info.json"),
        ("/thumbs/v2/customer/1/image?x=y", "/thumbs/v2/customer/1/image/info.json"),
        ("/thumbs/v3/99/1/image", "/thumbs/99/1/image/info.json"),
        ("/thumbs/v3/99/1/image?x=y", "/thumbs/99/1/image/info.json"),
        ("/thumbs/v3/99/1/image/", "/thumbs/99/1/image/info.json"),
        ("/thumbs/v3/customer/1/image", "/thumbs/customer/1/image/info.json"),
        ("/thumbs/v3/customer/1/image?x=y", "/thumbs/customer/1/image/info.json"),
        ("/thumbs/v3/customer/1/image/", "/thumbs/customer/1/image/info.json"),
        ("/iiif-img/2/1/image", "/iiif-img/2/1/image/info.json"),
        ("/iiif-img/2/1/image/", "/iiif-img/2/1/image/info.json"),
        ("/iiif-img/2/1/image/?x=y", "/iiif-img/2/1/image/info.json"),
        ("/iiif-img/display-name/1/image", "/iiif-img/display-name/1/image/info.json"),
        ("/iiif-img/v2/2/1/image", "/iiif-img/v2/2/1/image/info.json"),
        ("/iiif-img/v3/2/1/image", "/iiif-img/2/1/image/info.json"),
        ("/iiif-img/v3/2/1/image/", "/iiif-img/2/1/image/info.json"),
        ("/thumbs/v3/99/1/square/info.json", "/thumbs/99/1/square/info.json"),
        ("/iiif-img/v3/99/1/square/info.json", "/iiif-img/99/1/square/info.json"),
    ],
)
def test_redirects_lead_to_the_canonical_address(client: httpx.Client, path: str, location: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{client.base_url}{location}".replace(":/", ":/"))
    own = "/".join(location.split("/")[-4:-1]).replace("customer", "99").replace("display-name", "2")
    assert answer.headers["x-asset-id"] == own


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
    made = client.get("/thumbs/99/1/land/full/!300,300/0/default.jpg")
    assert (made.headers["x-thumb-resized"], made.headers["x-asset-id"]) == ("1", "99/1/land")
