"""The command `special`: serve, derive, inspect, volume.

Exit codes: 0 done, 1 something failed (said which), 2 bad usage or a setting that cannot work.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvicorn
from rich.console import Console
from uvicorn.supervisors import Multiprocess

from special import __version__, settings
from special.app import SETTINGS_VARIABLE, App
from special.errors import ConfigurationError, SpecialError
from special.inspect import inspect
from special.settings import Settings
from special.sources import open_source

cli = typer.Typer(
    name="special",
    help="An IIIF image server that serves digital libraries straight out of S3.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
volume_cli = typer.Typer(help="Look after a volume.", no_args_is_help=True)
cli.add_typer(volume_cli, name="volume")

Source = Annotated[str, typer.Argument(help="A folder, s3://bucket/prefix, az://, gs:// or https://.")]
Thumbs = Annotated[str | None, typer.Option(help="Where stored renditions are: a folder or a bucket.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings; flags and SPECIAL_* win over it.")]


def main() -> None:
    """Run the command line; no traceback for what is the user's or the store's doing."""
    try:
        cli()
    except ConfigurationError as error:
        _fail(error, 2)
    except SpecialError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: SpecialError, code: int) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]special:[/] {error}", highlight=False)
    sys.exit(code)


@cli.command(
    epilog="""
[bold]Examples[/]

  special serve fixtures/masters

  special serve s3://archive/masters --thumbs s3://thumbs --volume /var/cache/special --volume-size 200GiB

  SPECIAL_KEYS='{id},{id}.jp2' special serve s3://archive --host 0.0.0.0 --workers 4
"""
)
def serve(
    source: Source,
    thumbs: Thumbs = None,
    volume: Annotated[Path | None, typer.Option(help="Folder of the volume, on a fast local disk.")] = None,
    volume_size: Annotated[str | None, typer.Option(help="Most that the volume may take, such as 10GiB.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. Default 8000.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes. Default 1.")] = None,
    viewer_assets: Annotated[
        Path | None, typer.Option(help="Folder with openseadragon.min.js, instead of the CDN.")
    ] = None,
    config: Config = None,
) -> None:
    """Answer IIIF requests for the images of SOURCE."""
    chosen = settings.load(
        config,
        source=source,
        thumbs=thumbs,
        volume=volume,
        volume_size=volume_size,
        host=host,
        port=port,
        workers=workers,
        viewer_assets=viewer_assets,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    asyncio.run(_check(chosen))
    listener = _listen(chosen.host, chosen.port)
    host, port = listener.getsockname()[:2]
    Console(stderr=True, soft_wrap=True).print(
        f"[bold]special {__version__}[/] serves {chosen.source} at http://{host}:{port}/  (Ctrl-C stops it)",
        highlight=False,
    )
    options: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "lifespan": "on",
        "timeout_graceful_shutdown": 30,
    }
    if chosen.workers == 1:
        uvicorn.Server(uvicorn.Config(App(chosen), **options)).run(sockets=[listener])
        return
    with tempfile.TemporaryDirectory(prefix="special-metrics-") as counts:
        os.environ |= {SETTINGS_VARIABLE: chosen.model_dump_json(), "PROMETHEUS_MULTIPROC_DIR": counts}
        processes = uvicorn.Config("special.app:create", factory=True, workers=chosen.workers, **options)
        Multiprocess(processes, sockets=[listener]).run()


async def _check(chosen: Settings) -> None:
    """Find out before serving what would fail at every request: no bucket, no permission, no folder."""
    for url, create in ((chosen.source, False), (chosen.thumbs_url, True)):
        source = open_source(url, create=create)
        try:
            await source.check()
        finally:
            await source.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port"
        ) from None


@cli.command(
    name="inspect",
    epilog="""
[bold]Examples[/]

  special inspect fixtures/masters map.jp2

  special inspect s3://archive 1/2/foo full/!200,200/0/default.jpg
""",
)
def inspect_command(
    source: Source,
    identifier: Annotated[str, typer.Argument(help="The image's identifier, unquoted.")],
    request: Annotated[
        str | None, typer.Argument(help="region/size/rotation/quality.format: tell what it would cost.")
    ] = None,
    thumbs: Thumbs = None,
    config: Config = None,
) -> None:
    """Tell what a master is and what a request of it would read, without reading a pixel."""
    chosen = settings.load(config, source=source, thumbs=thumbs)
    asyncio.run(inspect(chosen, identifier, request, Console()))
