"""What a master is and what a request of it would read, and where a catalogue has images, without reading a pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from special import iiif
from special.auth import ANONYMOUS
from special.catalogue import Entry
from special.errors import BadRequest, ConfigurationError, Missing, SpecialError
from special.geometry import Box, Size, ceil_div
from special.iiif import ImageRequest, Spelling
from special.images import Asset, Master
from special.observability import Trace, tracing
from special.serving import Engine, is_flat
from special.storage import Blob


async def inspect(engine: Engine, identifier: str, request: str | None, console: Console) -> None:
    """Print the master behind an identifier, and what requests of it would read.

    `request` is `region/size/rotation/quality.format`; without one, each size and a tile of each scale factor
    that info.json names. Closes the engine, which need not be entered. Costs the header reads of one master.
    Raises `SourceError`, `MasterError`, `RequestError`.
    """
    try:
        with tracing() as spent:
            asset = await engine.catalog.find(identifier)
        master = engine.catalog.master(asset)
        entry = engine.catalog.catalogue.peek(identifier) if engine.catalog.catalogue is not None else None
        console.print(_master_table(asset, master, entry.origin if entry is not None else None, spent))
        for advice in master.layout.advice:
            console.print(f"• {advice}", highlight=False, markup=False)
        if request is None:
            console.print(await _costs(engine, identifier))
        else:
            console.print(await _estimated(engine, identifier, request))
    finally:
        await engine.close()


async def check_catalogue(engine: Engine, identifiers: Sequence[str], count: int, console: Console) -> bool:
    """Print where images are, who may see them, and whether there is an object; whether all is well with them.

    Without `identifiers` the first `count` that the catalogue lists. Closes the engine, which need not be entered.
    Costs a look-up and a HEAD each. Raises `ConfigurationError` where there is no catalogue, and `CatalogueError`.
    """
    catalogue = engine.catalog.catalogue
    try:
        if catalogue is None:
            raise ConfigurationError("there is no catalogue: set catalogue, sources or hooks")
        if not identifiers:
            identifiers = await catalogue.page("", count)
        if not identifiers:
            raise ConfigurationError("the catalogue lists no images: name some")
        columns = ("image", "of", "place", "open", "roles", "object")
        table, sound = Table(*(Column(it, overflow="fold") for it in columns)), True
        for identifier in identifiers:
            try:
                entry = await catalogue.locate(identifier)
                found = await _object(engine, entry)
            except SpecialError as error:
                said = f"[red]{error.code}[/]: {escape(str(error))}"
                table.add_row(escape(identifier), "", "", "", "", said)
                sound = False
                continue
            limit = entry.max_unauthorised
            roles = "" if limit is None else "default" if entry.roles is None else _roles(entry.roles)
            size = f"{found.size:,} bytes" if found is not None else "[red]missing[/]"
            place = found.url if found is not None else "\n".join(entry.places)
            table.add_row(escape(identifier), escape(entry.origin), escape(place), _open(limit), roles, size)
            sound &= found is not None
        console.print(table)
        return sound
    finally:
        await engine.close()


def _open(max_unauthorised: int | None) -> str:
    """How much of an image anybody may see."""
    return "all" if max_unauthorised is None else f"{max_unauthorised} px" if max_unauthorised else "nothing"


def _roles(roles: Iterable[str]) -> str:
    return escape(", ".join(sorted(roles))) or "none"


async def _object(engine: Engine, entry: Entry) -> Blob | None:
    """The object at the first of an entry's places that has one."""
    for place in entry.places:
        try:
            return await engine.source.stat(place)
        except Missing:
            continue
    return None


def _master_table(asset: Asset, master: Master, origin: str | None, spent: Trace) -> Table:
    layout, blob = master.layout, master.blob
    table = Table(title=escape(asset.identifier), show_header=False, title_justify="left", title_style="bold")
    if origin is not None:
        table.add_row("known to", escape(origin))
    table.add_row("object", escape(blob.url))
    if blob.page > 1:
        table.add_row("page", str(blob.page))
    table.add_row("open", _open(asset.rule.max_unauthorised))
    if asset.rule.max_unauthorised is not None:
        table.add_row("roles", _roles(asset.rule.roles))
    table.add_row("bytes", f"{blob.size:,}")
    table.add_row("ETag", escape(blob.etag))
    table.add_row("format", layout.format)
    table.add_row("size", f"{layout.size.width} × {layout.size.height}")
    if layout.density is not None:
        table.add_row("pixels per inch", f"{layout.density:,.1f}")
    table.add_row("colour", "colour" if layout.has_color else "grey")
    table.add_row("levels", "  ".join(f"{size.width}×{size.height}" for size in layout.levels))
    if layout.tiling:
        tile = layout.tiling.tile
        factors = " ".join(str(factor) for factor in layout.tiling.scale_factors)
        table.add_row("tiles", f"{tile.width}×{tile.height} at scale factors {factors}")
    else:
        table.add_row("tiles", "no grid of its own")
    table.add_row("first look", f"{spent.gets} GETs, {spent.bytes:,} bytes; kept from then on")
    table.add_row("in a viewer", _viewing(asset, master))
    return table


def _viewing(asset: Asset, master: Master) -> str:
    """What it costs to open a master in a viewer."""
    blob, pixels = master.blob, master.layout.size.area
    if asset.tiling is None or asset.tiling == master.layout.tiling:
        return "each tile is read and decoded by itself"
    if is_flat(master.layout):
        return (
            f"the first tile reads all {blob.size:,} bytes and decodes all {pixels:,} pixels, once for all tiles; "
            "they are kept in the volume"
        )
    return f"tiles are decoded one by one, until all {pixels:,} pixels are, once; then tiles are kept in the volume"


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
        planned = await engine.plan(
            _parsed(engine, identifier, f"{request}/0/default.jpg"), version=3, identity=ANONYMOUS
        )
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
    planned = await engine.plan(_parsed(engine, identifier, request), version=3, identity=ANONYMOUS)
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


def _parsed(engine: Engine, identifier: str, request: str) -> ImageRequest:
    form = replace(engine.catalog.form, spelling=Spelling.ODD)
    parsed = iiif.parse(f"{iiif.quote_identifier(identifier)}/{request}", form=form)
    if not isinstance(parsed, ImageRequest):
        raise BadRequest(f"'{request}' should be region/size/rotation/quality.format, such as full/max/0/default.jpg.")
    return parsed
