"""What a master is and what a request of it would read, found without reading a pixel."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from special import iiif
from special.auth import ANONYMOUS
from special.errors import BadRequest
from special.geometry import Box, Size, ceil_div
from special.iiif import IdentifierForm, ImageRequest
from special.images import Master
from special.serving import Engine


async def inspect(engine: Engine, identifier: str, request: str | None, console: Console) -> None:
    """Print the master behind an identifier, and what requests of it would read.

    `request` is `region/size/rotation/quality.format`; without one, each size and a tile of each scale factor
    that info.json names. Closes the engine, which need not be entered. Costs the header reads of one master.
    Raises `SourceError`, `MasterError`, `RequestError`.
    """
    try:
        master = engine.catalog.master(await engine.catalog.find(identifier))
        console.print(_master_table(identifier, master))
        for advice in master.layout.advice:
            console.print(f"• {advice}", highlight=False)
        if request is None:
            console.print(await _costs(engine, identifier))
        else:
            console.print(await _estimated(engine, identifier, request))
    finally:
        await engine.close()


def _master_table(identifier: str, master: Master) -> Table:
    layout, blob = master.layout, master.blob
    table = Table(title=identifier, show_header=False, title_justify="left", title_style="bold")
    table.add_row("object", blob.url)
    table.add_row("bytes", f"{blob.size:,}")
    table.add_row("ETag", blob.etag)
    table.add_row("format", layout.format)
    table.add_row("size", f"{layout.size.width} × {layout.size.height}")
    table.add_row("colour", "colour" if layout.has_color else "grey")
    table.add_row("levels", "  ".join(f"{size.width}×{size.height}" for size in layout.levels))
    if layout.tiling:
        tile = layout.tiling.tile
        factors = " ".join(str(factor) for factor in layout.tiling.scale_factors)
        table.add_row("tiles", f"{tile.width}×{tile.height} at scale factors {factors}")
    else:
        table.add_row("tiles", "no grid of its own")
    return table


async def _costs(engine: Engine, identifier: str) -> Table:
    """What each size and the middle tile of each scale factor that info.json names would read."""
    document = (await engine.info(identifier, "", version=3, identity=ANONYMOUS)).document
    width, height = document["width"], document["height"]
    requests = [f"full/{size['width']},{size['height']}" for size in document.get("sizes", [])]
    for grid in document.get("tiles", []):
        tile = Size(grid["width"], grid.get("height", grid["width"]))
        requests += [_middle_tile(Size(width, height), tile, factor) for factor in grid["scaleFactors"]]
    table = Table("request", "route", Column("GETs", justify="right"), Column("bytes", justify="right"))
    for request in requests:
        planned = await engine.plan(_parsed(identifier, f"{request}/0/default.jpg"), version=3, identity=ANONYMOUS)
        runs = await engine.estimate(planned)
        table.add_row(request, planned.plan.name, str(len(runs)), f"{sum(len(run) for run in runs):,}")
    return table


def _middle_tile(image: Size, tile: Size, factor: int) -> str:
    """`region/size` of the tile over the image's middle."""
    x = image.width // 2 // (tile.width * factor) * tile.width * factor
    y = image.height // 2 // (tile.height * factor) * tile.height * factor
    box = Box(x, y, tile.width * factor, tile.height * factor).within(image)
    assert box is not None, "the image's middle is inside it"
    return f"{box}/{ceil_div(box.width, factor)},{ceil_div(box.height, factor)}"


async def _estimated(engine: Engine, identifier: str, request: str) -> Table:
    planned = await engine.plan(_parsed(identifier, request), version=3, identity=ANONYMOUS)
    runs = await engine.estimate(planned)
    table = Table(title=request, show_header=False, title_justify="left", title_style="bold")
    output = planned.job.output
    table.add_row("route", planned.plan.name)
    table.add_row("canonical", planned.canonical)
    table.add_row("output", f"{output.width} × {output.height}")
    table.add_row("GETs", str(len(runs)))
    table.add_row("bytes", f"{sum(len(run) for run in runs):,}")
    shown = [f"{run.start:,}–{run.stop:,}" for run in runs[:8]]
    table.add_row("spans", "\n".join(shown + ([f"… {len(runs) - 8} more"] if len(runs) > 8 else [])))
    return table


def _parsed(identifier: str, request: str) -> ImageRequest:
    parsed = iiif.parse(f"{iiif.quote_identifier(identifier)}/{request}", form=IdentifierForm.ODD)
    if not isinstance(parsed, ImageRequest):
        raise BadRequest(f"'{request}' should be region/size/rotation/quality.format, such as full/max/0/default.jpg.")
    return parsed
