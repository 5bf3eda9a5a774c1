"""`special inspect SOURCE --scan`: kinds, refusals and costs of a whole source, from headers alone."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from special.cli import cli
from special.errors import ConfigurationError, Unreachable
from special.formats.tiff import WANTED
from special.images import KeyTemplates
from special.scan import scan
from special.storage.source import Opened
from tests.support.live import MASTERS
from tests.support.memory import MemorySource
from tests.support.servers import S3Server
from tests.support.waiting import until
from tests.sweep import refused_inputs

TILE, GAP_BYTES = 512, 65536
NAMES = ("herbarium.tif", "map.jp2", "manuscript.jpg", "dragon.gif")


def masters() -> dict[str, bytes]:
    return {name: (MASTERS / name).read_bytes() for name in NAMES}


async def told(source: MemorySource) -> tuple[str, int]:
    out, progress = io.StringIO(), Console(file=io.StringIO())
    code = await scan(
        source,
        KeyTemplates(),
        Console(file=out, width=240),
        tile=TILE,
        wanted=WANTED["expensive"],
        max_gap_bytes=GAP_BYTES,
        progress=progress,
    )
    return out.getvalue(), code


async def test_each_kind_has_a_row_with_its_costs() -> None:
    source = MemorySource(masters())
    text, code = await told(source)
    assert code == 0
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in text.splitlines()
        if "│" in line
    }
    # bytes and GETs as tests/README.md has them
    assert rows["tiff, jpeg, colour, tiles of 256×256, with smaller levels"][:4] == [
        "1",
        "471,646",
        "2100×2800",
        "1 · 11,712",
    ]
    assert rows["jp2, colour, with smaller levels"][3] == "1 · 25,257"
    assert rows["jpeg, colour"][3:] == ["1 · 238,732", "1 · 238,732", "yes"]
    assert "vips tiffsave IN OUT.tif --tile --pyramid" in text
    assert "4 can be shown, 0 are refused, 0 could not be read, 0 objects are no pictures." in text


async def test_no_pixel_is_read() -> None:
    source = MemorySource({"dragon.gif": masters()["dragon.gif"], "manuscript.jpg": masters()["manuscript.jpg"]})
    await told(source)
    assert sorted(map(str, source.verbs("open"))) == ["dragon.gif", "manuscript.jpg"]
    assert not source.verbs("read")


async def test_refusals_are_listed_by_their_reasons_and_other_files_counted() -> None:
    refused = {it.name: it.data for it in refused_inputs.inputs() if it.name in ("jbig.tif", "other.psd")}
    text, code = await told(MemorySource({**refused, "copy.tif": refused["jbig.tif"], "letter": b"Dear reader, " * 9}))
    assert code == 1
    assert "2 refused: TIFF compression 34661 (JBIG)" in text
    assert "1 refused: the master is a file of Photoshop" in text
    assert "• copy.tif" in text
    assert "0 can be shown, 3 are refused, 0 could not be read, 1 objects are no pictures." in text


class Silent(MemorySource):
    """Lists its objects and gives none."""

    async def open(self, key: str, **options: object) -> Opened:
        raise Unreachable(f"{key}: nobody answers")


async def test_what_the_store_does_not_give_is_no_refusal() -> None:
    text, code = await told(Silent(masters()))
    assert code == 1
    assert "4 not read: The image's store does not answer; ask again." in text
    assert "0 are refused, 4 could not be read" in text


def test_the_command_takes_a_folder(tmp_path: Path) -> None:
    for name, data in masters().items():
        (tmp_path / name).write_bytes(data)
    ran = CliRunner().invoke(cli, ["inspect", str(tmp_path), "--scan"])
    assert ran.exit_code == 0
    assert "4 can be shown" in ran.output
    (tmp_path / "jbig.tif").write_bytes(next(it.data for it in refused_inputs.inputs() if it.name == "jbig.tif"))
    assert CliRunner().invoke(cli, ["inspect", str(tmp_path), "--scan"]).exit_code == 1


def test_the_command_takes_a_bucket(moto_s3: S3Server) -> None:
    bucket = moto_s3.bucket()
    client = moto_s3.client()
    for name, data in masters().items():
        client.put_object(Bucket=bucket, Key=name, Body=data)
    ran = CliRunner(env=moto_s3.environ).invoke(cli, ["inspect", f"s3://{bucket}", "--scan"])
    assert ran.exit_code == 0, ran.output
    assert "4 can be shown" in ran.output


class Stuck(MemorySource):
    """Never gives the object `stuck`."""

    async def open(self, key: str, **how: Any) -> Opened:
        if key == "stuck":
            await asyncio.Event().wait()
        return await super().open(key, **how)


async def test_a_scan_that_is_stopped_tells_what_it_has_found() -> None:
    out, source, progress = io.StringIO(), Stuck({**masters(), "stuck": b"1"}), io.StringIO()
    shown = Console(file=progress, force_terminal=True, _environ={"TERM": "xterm"})
    work = scan(
        source,
        KeyTemplates(),
        Console(file=out, width=240),
        tile=1,
        wanted=WANTED["expensive"],
        max_gap_bytes=0,
        progress=shown,
    )
    task = asyncio.create_task(work)
    await until(lambda: "4 masters read" in progress.getvalue())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "4 can be shown" in out.getvalue()
    assert out.getvalue().endswith("Interrupted: not all masters were read.\n")


@pytest.mark.parametrize("arguments", [["."], [".", "map.jp2", "--scan"]], ids=["neither", "both"])
def test_one_image_or_all(arguments: list[str]) -> None:
    ran = CliRunner().invoke(cli, ["inspect", *arguments])
    assert isinstance(ran.exception, ConfigurationError)
    assert str(ran.exception) == "name one image, or say --scan for all of them"


@pytest.mark.parametrize(
    "command", [pytest.param(["inspect", "--scan"], id="scan"), pytest.param(["catalogue", "check"], id="catalogue")]
)
def test_the_source_may_be_that_of_the_settings(command: list[str], tmp_path: Path) -> None:
    config = tmp_path / "special.toml"
    config.write_text(f'source = "{MASTERS}"\n[[catalogue]]\nkind = "templates"\n')
    asked = CliRunner().invoke(cli, [*command, "--config", str(config)])
    assert asked.exit_code == 0, asked.output
    without = CliRunner().invoke(cli, command)
    assert isinstance(without.exception, ConfigurationError)
