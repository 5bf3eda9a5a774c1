"""The examples that the package brings along do what they say."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from special import composition
from special.auth import ANONYMOUS
from special.catalogue import Caller, Catalogue
from special.errors import Missing
from special.serving import Engine
from special.settings import load
from tests.support.catalogue_server import catalogue_server

pytestmark = pytest.mark.service

EXAMPLES = Path(__file__).parents[2] / "special" / "docs" / "examples" / "catalogue"


@asynccontextmanager
async def example(name: str, root: Path, source: str | None = None, **names: str) -> AsyncIterator[Engine]:
    """An engine by an example, with `/srv` and other places of this test in it."""
    text = (EXAMPLES / name).read_text("utf-8").replace("/srv", str(root))
    for old, new in names.items():
        text = text.replace(old.replace("_", "/"), new)
    for folder in ("masters", "more-masters"):
        (root / folder).mkdir(exist_ok=True)
    (root / name).write_text(text)
    engine = composition.engine(load(root / name, source=source or str(root / "masters"), home=root / "home"))
    try:
        yield engine
    finally:
        await engine.close()


def catalogue_of(engine: Engine) -> Catalogue:
    assert engine.catalog.catalogue is not None
    return engine.catalog.catalogue


async def test_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[profile partner]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with example("templates.toml", tmp_path, "s3://archive/masters") as engine:
        places = await catalogue_of(engine).places("leaf__12")
        assert (
            places[0]
            == f"s3://archive/masters/{hashlib.sha1(b'leaf/12', usedforsecurity=False).hexdigest()[:2]}/leaf/12.jp2"
        )
        assert places[0] in (EXAMPLES / "templates.toml").read_text()
        assert places[1:] == (
            places[0].replace("archive/masters", "partner/scans"),
            "s3://archive/masters/pairtree/le/af/=1/2/master.tif",
            "s3://partner/scans/pairtree/le/af/=1/2/master.tif",
            "s3://archive/masters/leaf/12.tif",
            "s3://partner/scans/leaf/12.tif",
        )
        with pytest.raises(Missing):
            await catalogue_of(engine).places("leaf/12")


async def test_sqlite(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "catalogue.sqlite")) as connection:
        connection.executescript((EXAMPLES / "sqlite.sql").read_text().replace("/srv", str(tmp_path)))
    async with example("sqlite.toml", tmp_path) as engine:
        catalogue = catalogue_of(engine)
        leaf, letter = await catalogue.locate("leaf"), await catalogue.locate("letter")
        assert leaf.places == (f"{(tmp_path / 'more-masters').as_uri()}/2019/0001.tif",)
        assert (leaf.max_unauthorised, leaf.filename) == (None, "leaf")
        assert (letter.max_unauthorised, letter.roles) == (400, {"staff"})


async def test_http(tmp_path: Path) -> None:
    with catalogue_server(tmp_path, {"leaf": json.loads((EXAMPLES / "http.json").read_text())}) as server:
        async with example(
            "http.toml", tmp_path, **{"https:__catalogue.example.org_images_{id}": server.url}
        ) as engine:
            leaf = await catalogue_of(engine).locate("leaf")
            assert leaf.places == (f"{(tmp_path / 'masters').as_uri()}/2019/0001.tif",)
            assert (leaf.max_unauthorised, leaf.roles, leaf.filename) == (400, {"staff"}, "leaf")
            assert [it["type"] for it in leaf.description.part_of] == ["Manifest"]
            with pytest.raises(Missing):
                await catalogue_of(engine).locate("other")


async def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library.py").write_text((EXAMPLES / "library.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    async with example("python.toml", tmp_path) as engine:
        assert (await catalogue_of(engine).places("1987-12"))[0].endswith("/masters/1987/0012.tif")
        for identifier, address, roles, side, private in [
            ("1987-12", "192.0.2.1", (), None, False),
            ("2019-3", "192.0.2.1", (), 400, True),
            ("2019-3", "10.1.2.3", (), None, True),
            ("2019-3", "192.0.2.1", ("staff",), None, True),
        ]:
            caller = Caller(identifier, {}, address, frozenset(roles), known=bool(roles))
            verdict = (await engine.authorised(ANONYMOUS, caller)).verdict
            assert verdict is not None
            assert (verdict.max_side, verdict.private) == (side, private)
    del sys.modules["library"]


async def test_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stamp.py").write_text((EXAMPLES / "stamp.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "masters").mkdir()
    for name in ("letter.png", "map.png"):
        (tmp_path / "masters" / name).write_bytes(b"")
    async with example("stamp.toml", tmp_path) as engine:
        for identifier, roles, boxes in [
            ("letter.png", (), [(60, 94, 38, 4), (10, 5, 40, 12)]),
            ("map.png", (), [(60, 94, 38, 4)]),
            ("letter.png", ("staff",), []),
        ]:
            caller = Caller(identifier, {}, "192.0.2.1", frozenset(roles), known=bool(roles))
            verdict = (await engine.authorised(ANONYMOUS, caller)).verdict
            assert verdict is not None
            assert verdict.private
            assert [(it.x, it.y, it.width, it.height) for it in verdict.marks] == boxes
            assert [it.picture is not None for it in verdict.marks] == [True, False][: len(boxes)]
    del sys.modules["stamp"]


async def test_s3(tmp_path: Path) -> None:
    async with example("s3.toml", tmp_path, "s3://archive/masters") as engine:
        for identifier in ("s3:/archive/masters/leaf.tif", "s3:/eu-west-1/archive/masters/leaf.tif"):
            assert await catalogue_of(engine).places(identifier) == ("s3://archive/masters/leaf.tif",)
        with pytest.raises(Missing):
            await catalogue_of(engine).places("s3:/archive/other/leaf.tif")
