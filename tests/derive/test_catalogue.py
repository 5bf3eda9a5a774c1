"""`derive` asks the same catalogue as the server: for places, for names and for who may see how much."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from special import composition
from special.catalogue import CatalogueOptions, SqliteOptions, open_catalogue, open_sources
from special.derive import Options, derive_images
from special.derive.concurrency import BatchOptions
from special.derive.inputs import InputImage, read
from special.derive.outcome import Outcome
from special.derive.queue_worker import QueueWorker
from special.errors import ConfigurationError
from special.images import KeyTemplates
from special.inspect import check_catalogue
from special.observability import tracing
from special.settings import Settings, load
from tests.derive.test_queue_worker import RecordingQueue, message

pytestmark = pytest.mark.service

ROWS = [
    ("one", "red.png", None),
    ("two", "{root}/b/lime.png", 30),
    ("far", "{root}/c/far.png", None),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/red.png", "b/lime.png", "c/far.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (200, 100), "red").save(tmp_path / name)
    with closing(sqlite3.connect(tmp_path / "c.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE images (identifier PRIMARY KEY, url, max_unauthorised)")
        rows = [(name, url.replace("{root}", str(tmp_path)), limit) for name, url, limit in ROWS]
        connection.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)
    return tmp_path


def settings(root: Path) -> Settings:
    catalogue = f'[[catalogue]]\nkind = "sqlite"\nfile = "{root}/c.sqlite"\n'
    (root / "special.toml").write_text(f'sizes = "60,30"\n[[sources]]\nurl = "{root}/b"\n{catalogue}')
    return load(root / "special.toml", source=str(root / "a"), home=root / "home", decoders=1)


async def test_all_images_of_a_catalogue_are_made_as_it_says(root: Path) -> None:
    out, said = io.StringIO(), Console(file=io.StringIO())
    assert await derive_images(settings(root), [], Options(json=True), out=out, console=said) == 1
    results = {it["identifier"]: it["result"] for it in map(json.loads, out.getvalue().splitlines())}
    assert results == {"far": "failed", "one": "made", "two": "made"}
    thumbs = root / "home" / "thumbs"
    assert json.loads((thumbs / "one" / "s.json").read_text()) == {"o": [[60, 30], [30, 15]], "a": []}
    assert json.loads((thumbs / "two" / "s.json").read_text()) == {"o": [[30, 15]], "a": [[60, 30]]}
    keys = [json.loads((thumbs / name / "special.json").read_text())["master"]["key"] for name in ("one", "two")]
    assert keys == ["red.png", f"{(root / 'b').as_uri()}/lime.png"]

    out = io.StringIO()
    await derive_images(settings(root), ["one", "two"], Options(json=True), out=out, console=said)
    assert [json.loads(it)["result"] for it in out.getvalue().splitlines()] == ["stood", "stood"]

    # The server believes the side-car of a master in another source: it reads that and the sizes file.
    engine = composition.engine(settings(root))
    with tracing() as used:
        asset = await engine.catalog.find("two")
    assert used.gets == 2
    assert asset.blob is not None
    assert (asset.blob.root, asset.blob.key) == (f"{(root / 'b').as_uri()}/", "lime.png")
    assert (asset.rule.max_unauthorised, len(asset.renditions)) == (30, 2)
    await engine.close()


async def test_events_and_inventories_name_objects_which_a_catalogue_turns_into_images(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "c.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE images (identifier PRIMARY KEY, url)")
        connection.executemany("INSERT INTO images VALUES (?, ?)", [("one", "s3://b/x y"), ("same", "s3://b/x y")])
    sources = open_sources([(str(tmp_path), None)])
    options = CatalogueOptions(((str(tmp_path), None),), (SqliteOptions(tmp_path / "c.sqlite"),), 60)
    catalogue = open_catalogue(options, sources, None)
    inventory = tmp_path / "i.csv"
    inventory.write_text('"b","x+y"\n"b","z"\n"c","x+y"\n')
    images = read(str(inventory), root="s3://b/", templates=KeyTemplates(), catalogue=catalogue)
    assert [it.identifier async for it in images] == ["one", "same"]

    event = {"detail-type": "Object Created", "detail": {"bucket": {"name": "b"}, "object": {"key": "x y"}}}
    stop = asyncio.Event()
    queue = RecordingQueue([message("1", json.dumps(event))], stop)

    async def work(image: InputImage) -> Outcome:
        return Outcome(image.identifier, "made")

    worker = QueueWorker(queue, work, "s3://other/", KeyTemplates(), BatchOptions(1), catalogue=catalogue)
    assert [it.identifier async for it in worker.run(stop)] == ["one", "same"]
    await catalogue.close()


async def told(chosen: Settings, *identifiers: str) -> tuple[bool, str]:
    out = io.StringIO()
    sound = await check_catalogue(composition.engine(chosen), identifiers, 20, Console(file=out, width=1000))
    return sound, out.getvalue()


async def test_check_tells_what_would_be_found(root: Path) -> None:
    sound, text = await told(settings(root))
    assert not sound
    assert "'far' in no source" in text
    assert f"{(root / 'b').as_uri()}/lime.png" in text
    assert "30 px" in text
    (sound, text), size = await told(settings(root), "one", "two"), (root / "a" / "red.png").stat().st_size
    assert sound
    assert f"{size} bytes" in text
    sound, text = await told(settings(root), "none")
    assert not sound
    assert "missing" in text


async def test_check_without_a_catalogue_or_images_says_so(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no catalogue"):
        await told(load(source=str(root / "a"), home=root / "home"))
    (root / "c.toml").write_text('[[catalogue]]\nkind = "s3"\n')
    with pytest.raises(ConfigurationError, match="lists no images"):
        await told(load(root / "c.toml", source=str(root / "a"), home=root / "home"))
