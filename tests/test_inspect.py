"""`special inspect`: what it says must be what a server then does."""

import io
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from PIL import Image
from rich.console import Console

from special import composition
from special.errors import BadRequest, Missing, NoSuchPage, Unauthorised
from special.inspect import check_catalogue, inspect
from special.observability.trace import tracing
from special.settings import load
from tests.support.live import MASTERS, LiveServer


async def told(identifier: str, request: str | None = None, *, source: Path = MASTERS) -> str:
    out = io.StringIO()
    await inspect(composition.engine(load(source=str(source))), identifier, request, Console(file=out, width=240))
    return out.getvalue()


async def test_it_tells_what_a_master_is_and_what_its_sizes_and_tiles_cost() -> None:
    text = await told("herbarium.tif")
    for words in ("tiff", "2100 × 2800", "1050×1400", "256×256 at scale factors 1 2 4 8 16", "full/1050,1400", "tile"):
        assert words in text


async def test_it_tells_what_the_first_look_costs() -> None:
    """Exactly what a server's first look at it reads."""
    for name in ("herbarium.tif", "moon.jpg"):
        engine = composition.engine(load(source=str(MASTERS)))
        with tracing() as spent:
            await engine.catalog.find(name)
        await engine.close()
        assert f"{spent.gets} GETs, {spent.bytes:,} bytes" in await told(name)


async def test_it_tells_of_a_page(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (300, 200)), Image.new("L", (120, 90))
    first.save(tmp_path / "book.tif", save_all=True, append_images=[second], compression="tiff_deflate")
    text = await told("book.tif;2", source=tmp_path)
    assert re.search(r"page\s*│\s*2", text)
    for words in ("book.tif;2", "120 × 90", "grey"):
        assert words in text
    assert "60 × 45" in await told("book.tif;2", "full/60,/0/default.jpg", source=tmp_path)
    with pytest.raises(NoSuchPage, match="it has 2 pages"):
        await told("book.tif;3", source=tmp_path)


async def test_it_tells_what_it_costs_to_open_a_master_in_a_viewer(tmp_path: Path) -> None:
    assert "each tile is read and decoded by itself" in await told("herbarium.tif")
    assert "tiles are decoded one by one, until all" in await told("map.jp2")
    Image.new("L", (4200, 4000)).save(tmp_path / "flat.png")
    size = f"{(tmp_path / 'flat.png').stat().st_size:,}"
    text = " ".join((await told("flat.png", source=tmp_path)).split())
    assert f"the first tile reads all {size} bytes and decodes all 16,800,000 pixels, once for all tiles" in text


@pytest.mark.parametrize(
    "request_",
    [
        "full/!200,200/0/default.jpg",
        "0,0,512,512/512,/0/default.png",
        "512,512,256,256/256,/0/default.jpg",
    ],
)
@pytest.mark.parametrize("identifier", ["herbarium.tif", "map.jp2", "stars.tif"])
async def test_what_it_foresees_is_what_the_source_is_asked(
    live_server: LiveServer, identifier: str, request_: str
) -> None:
    text = (await told(identifier, request_)).rpartition(request_)[2]
    url = f"{live_server.url}/iiif/3/{identifier}/{request_}"
    route = re.search(r"route\s*│\s*(\w+)", text)
    size = re.search(r"output\s*│\s*(\d+) × (\d+)", text)
    assert route
    assert size
    async with httpx.AsyncClient(timeout=60) as client:
        # The first request looks at the master's head, too; the second reads what is foreseen and no more.
        await client.get(url)
        answer = await client.get(url)
    assert Image.open(io.BytesIO(answer.content)).size == (int(size[1]), int(size[2]))
    assert answer.headers["x-special-route"] == route[1]
    if route[1] == "stream":
        gets = re.search(r"GETs\s*│\s*(\d+)", text)
        read = re.search(r"bytes\s*│\s*([\d,]+)", text)
        assert gets
        assert read
        assert f'gets={gets[1]} bytes={read[1].replace(",", "")}"' in answer.headers["server-timing"]


async def test_mistakes_are_named() -> None:
    with pytest.raises(Missing):
        await told("nothing")
    with pytest.raises(BadRequest, match="region/size/rotation"):
        await told("map.jp2", "info.json")


async def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    name = "[bold]leaf[/b][verso].png"
    (tmp_path / name).parent.mkdir(parents=True)
    Image.new("L", (30, 20)).save(tmp_path / name)
    assert (await told(name, source=tmp_path)).count(name) == 2  # the identifier, the object
    (tmp_path / "c.toml").write_text(f'source = "{tmp_path}"\n[[catalogue]]\nkind = "templates"\n')
    out = io.StringIO()
    engine = composition.engine(load(tmp_path / "c.toml"))
    await check_catalogue(engine, [name, f"{name}[none]"], 20, Console(file=out, width=1000))
    assert out.getvalue().count(name) >= 4  # with their places, of which one has no object
    assert f"{name}[none]" in out.getvalue()


@pytest.mark.service
def test_errors_with_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "special", "inspect", str(tmp_path), "leaf[/b][verso].png"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("special: ")
    assert "leaf[/b][verso].png" in ran.stderr


@pytest.mark.parametrize(("limit", "told_as"), [(None, "all"), (400, "400 px"), (0, "nothing")])
async def test_it_tells_who_may_see_an_image(tmp_path: Path, limit: int | None, told_as: str) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "leaf.png")
    rule = "" if limit is None else f'[[rules]]\nidentifiers = "*"\nmax_unauthorised = {limit}\nroles = ["staff"]\n'
    (tmp_path / "rules.toml").write_text(rule)
    out = io.StringIO()
    engine = composition.engine(load(tmp_path / "rules.toml", source=str(tmp_path)))
    with suppress(Unauthorised):
        await inspect(engine, "leaf.png", "full/20,/0/default.png", Console(file=out, width=240))
    assert re.search(rf"open\s*│ {told_as} ", out.getvalue())
    assert bool(re.search(r"roles\s*│ staff ", out.getvalue())) == (limit is not None)
