"""The command `special`: serve, derive, inspect, compare, mount, volume, catalogue, forget, config, check, docs.

Exit codes: 0 done, 1 something failed (said which), 2 bad usage or a setting that cannot work; 130 and 143: stopped by
SIGINT or SIGTERM.

Each command imports its own package: `--help` need not wait for codecs, nor a server process for `derive`.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand

from special import machine, settings
from special.errors import ConfigurationError, SpecialError
from special.init_process import run_below_init
from special.version import __version__
from special.workers import begin

if TYPE_CHECKING:
    from special.derive import Task
    from special.preflight import Check
    from special.settings import Settings
    from special.volume import Cleared, Verified, VolumeStat

Done = TypeVar("Done")

HELP = {"help_option_names": ["-h", "--help"]}
cli = typer.Typer(
    name="special",
    context_settings=HELP,
    help="An IIIF image server that serves digital libraries straight out of S3.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
volume_cli = typer.Typer(help="Look after a volume.", no_args_is_help=True)
cli.add_typer(volume_cli, name="volume")
catalogue_cli = typer.Typer(help="Look into a catalogue.", no_args_is_help=True)
cli.add_typer(catalogue_cli, name="catalogue")

Source = Annotated[str, typer.Argument(help="A folder, s3://bucket/prefix, az://, gs:// or https://.")]
MaySource = Annotated[
    str | None,
    typer.Argument(help="A folder, s3://bucket/prefix, az://, gs:// or https://; without it, that of the settings."),
]
Thumbs = Annotated[str | None, typer.Option(help="Where stored renditions are: a folder or a bucket.")]
Config = Annotated[
    Path | None,
    typer.Option(help="TOML file with settings; flags and SPECIAL_* win over it.", envvar=settings.CONFIG_VARIABLE),
]


def main() -> None:
    """Run the command line; no traceback for a mistake of the user or a fault of the store."""
    try:
        cli()
    except ConfigurationError as error:
        _fail(error, 2)
    except SpecialError as error:
        _fail(error, 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter fails at its end on what is in the buffer
        _fail(f"{error.strerror}: the file that was written is incomplete; free some space and run it again", 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(work: Coroutine[Any, Any, Done]) -> Done:
    """Run a command's coroutine. SIGTERM cancels it, as Ctrl-C does; a second SIGTERM kills the process."""
    gc.freeze()  # what is imported lives as long as the process: nothing of it is garbage, at the end neither
    stopped = False

    async def stoppable() -> Done:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            nonlocal stopped
            stopped = True
            loop.remove_signal_handler(signal.SIGTERM)
            if task is not None:
                task.cancel()

        loop.add_signal_handler(signal.SIGTERM, stop)
        return await work

    try:
        import uvloop  # here: commands that only print something need no loop

        return uvloop.run(stoppable())
    except asyncio.CancelledError:
        if not stopped:
            raise
        sys.exit(128 + signal.SIGTERM)


def _fail(error: SpecialError | str, code: int) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]special:[/] {escape(str(error))}", highlight=False)
    sys.exit(code)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"special {__version__}")
        raise typer.Exit


@cli.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """An IIIF image server that serves digital libraries straight out of S3."""


@cli.command(
    epilog="""
[bold]Examples[/]

  special serve fixtures/masters

  special serve s3://archive/masters --thumbs s3://thumbs --volume /var/cache/special --volume-size 200GiB

  SPECIAL_KEYS='{id},{id}.jp2' special serve s3://archive --host 0.0.0.0 --workers 4
"""
)
def serve(
    source: MaySource = None,
    thumbs: Thumbs = None,
    volume: Annotated[Path | None, typer.Option(help="Folder of the volume, on a fast local disk.")] = None,
    volume_size: Annotated[str | None, typer.Option(help="Maximum size of the volume on disk, such as 10GiB.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. Default 8000.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Server processes. Default: one for each processor, at most 4.")
    ] = None,
    viewer_assets: Annotated[
        Path | None, typer.Option(help="Folder with another openseadragon.min.js than that of the package.")
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
    if os.getpid() == 1:
        run_below_init()
    machine.raise_descriptor_limit()
    from special.web import serve_with

    serve_with(chosen, config=config)


@cli.command(
    name="inspect",
    epilog="""
[bold]Examples[/]

  special inspect fixtures/masters map.jp2

  special inspect s3://archive 1/2/foo full/!200,200/0/default.jpg

  special inspect s3://archive --scan

  special inspect --scan --config special.toml
""",
)
def inspect_command(
    source: MaySource = None,
    identifier: Annotated[str | None, typer.Argument(help="The image's identifier, unquoted.")] = None,
    request: Annotated[
        str | None, typer.Argument(help="region/size/rotation/quality.format: say what it would read.")
    ] = None,
    all_of_it: Annotated[
        bool, typer.Option("--scan", help="Read the headers of all masters: their kinds, refusals and costs.")
    ] = False,
    thumbs: Thumbs = None,
    config: Config = None,
) -> None:
    """Tell what a master is and what a request of it would read, without reading a pixel.

    It asks without a login: of a restricted image it tells what an anonymous client would be answered. With --scan it
    exits with 1 if any master is refused or cannot be read.
    """
    from special import composition
    from special.formats.tiff import WANTED
    from special.inspect import inspect
    from special.scan import scan
    from special.storage import open_source

    if all_of_it is (identifier is not None):
        raise ConfigurationError("name one image, or say --scan for all of them")
    chosen = settings.load(config, source=source, thumbs=thumbs)
    if identifier is None:
        gap_bytes, templates = composition.read_limits(chosen).max_gap_bytes, composition.key_templates(chosen)
        masters, progress = open_source(chosen.source), Console(stderr=True)
        scanned = scan(
            masters,
            templates,
            Console(),
            tile=chosen.tile_size,
            wanted=WANTED[chosen.pyramids],
            max_gap_bytes=gap_bytes,
            progress=progress,
        )
        sys.exit(_run(scanned))
    _run(inspect(composition.engine(chosen), identifier, request, Console()))


class _DeriveCommand(TyperCommand):
    """`derive`: `--pyramids` alone is short for `--pyramids=expensive`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--pyramids=expensive" if it == "--pyramids" else it for it in args])


@cli.command(
    cls=_DeriveCommand,
    epilog="""
[bold]Examples[/]

  special derive scans --thumbs renditions

  special derive s3://archive/masters --thumbs s3://thumbs --sizes 1024,400,200,100 --max-unauthorised 400

  special derive s3://archive/masters --thumbs s3://thumbs --from failed.txt --json

  special derive s3://archive/masters --thumbs s3://thumbs --queue https://sqs.eu-west-1.amazonaws.com/1234/masters
""",
)
def derive(
    source: MaySource = None,
    identifiers: Annotated[list[str] | None, typer.Argument(help="Images to do; none: all of SOURCE.")] = None,
    thumbs: Thumbs = None,
    sizes: Annotated[
        str | None, typer.Option(help="Long sides (1024,400,200,100, the default), or IIIF sizes ('!800,800 400,').")
    ] = None,
    max_unauthorised: Annotated[
        int | None, typer.Option(help="Longest side that an anonymous client may have; -1: all is open, 0: nothing is.")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="jpg (the default), webp, or jpg,webp for both.")
    ] = None,
    quality: Annotated[int | None, typer.Option(help="Quality of what is made, 1 to 100.", min=1, max=100)] = None,
    jobs: Annotated[int | None, typer.Option(help="Decoder processes. Default: one for each core.", min=1)] = None,
    names_from: Annotated[
        str | None, typer.Option("--from", help="File of identifiers, an S3 inventory (CSV), or - for standard input.")
    ] = None,
    failed_to: Annotated[Path | None, typer.Option(help="Write identifiers that failed to this file.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done; do nothing.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Say what is wrong with what is there; do nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Make again what is up to date already.")] = False,
    migrate: Annotated[
        bool, typer.Option("--migrate-legacy", help="Take over files at the keys of older sites; decode nothing.")
    ] = False,
    index: Annotated[
        bool, typer.Option("--index", help="Write side-cars beside sizes files of others; decode nothing.")
    ] = False,
    pyramids: Annotated[
        Literal["expensive", "all"] | None,
        typer.Option(
            metavar="[=all]",
            help="Publish pyramids, too: of masters whose tiles are expensive, or of all that are larger than a tile.",
        ),
    ] = None,
    static: Annotated[
        str | None, typer.Option(help="Write static tile sets of open images to this folder or bucket; needs base_url.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove our own files that no sizes file names.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="With --prune: remove the renditions of masters that are gone, no more.")
    ] = False,
    include: Annotated[
        list[str] | None, typer.Option(help="Only identifiers of this pattern, such as 'maps/*'; may be repeated.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No identifiers of this pattern; may be repeated.")] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take over sizes files that others wrote, with their restrictions.")
    ] = False,
    open_restricted: Annotated[
        bool, typer.Option("--open-restricted", help="Open what is restricted, after a list of it.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail masters that end early.")] = False,
    queue: Annotated[
        str | None, typer.Option(help="URL of an SQS queue of S3 notifications: follow it until SIGTERM.")
    ] = None,
    keep_removed: Annotated[
        bool, typer.Option("--keep-removed", help="With --queue: keep renditions of masters that are deleted.")
    ] = False,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler whose workers do the work, such as tcp://host:8786.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a row for each image to this CSV file: outcome, reason, time, bytes."),
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Write the totals to this file, as a JSON object.")] = None,
    allow_failures: Annotated[
        int, typer.Option(help="Exit with 0 if at most that many images failed or are wrong.", min=0)
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but failures.")] = False,
    config: Config = None,
) -> None:
    """Make the stored renditions of the images of SOURCE.

    What is restricted stays so, and sizes files of others are left alone, which is no error. Exits with 1 if any
    image failed or is wrong.
    """
    decodes = not (plan or verify or migrate or index or missing or scheduler)
    begun = begin() if decodes else None  # it loads its codecs while this process does the same
    from special.derive import Consent, Options, derive_images

    asked: dict[Task, bool] = {"estimate": plan, "verify": verify, "remake": force}
    asked |= {"migrate": migrate, "index": index}
    tasks = [task for task, is_asked in asked.items() if is_asked]
    if len(tasks) > 1:
        raise ConfigurationError("choose one of --plan, --verify, --force, --migrate-legacy and --index")
    chosen = settings.load(
        config,
        source=source,
        thumbs=thumbs,
        sizes=sizes,
        formats=formats,
        max_unauthorised=max_unauthorised,
        jpeg_quality=quality,
        webp_quality=quality,
        workers=1,
        decoders=jobs,
        pyramids=pyramids,
    )
    options = Options(
        task=tasks[0] if tasks else "make",
        names_from=names_from,
        failed_to=failed_to,
        pyramids=pyramids is not None,
        static=static,
        prune=prune,
        queue=queue,
        keep_removed=keep_removed,
        scheduler=scheduler,
        consent=Consent(adopt, open_restricted),
        strict=strict,
        json=json,
        report=report,
        summary=summary,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        allowed_failures=allow_failures,
        quiet=quiet,
        missing=missing,
    )
    machine.raise_descriptor_limit()
    sys.exit(_run(derive_images(chosen, identifiers or [], options, begun=begun)))


@cli.command(
    epilog="""
[bold]Examples[/]

  special mount s3://archive/masters /srv/masters --volume /var/cache/special --volume-size 200GiB

  special mount s3://archive/masters /srv/masters --allow-other --daemon

  fusermount3 -u /srv/masters
"""
)
def mount(
    source: Source,
    directory: Annotated[Path, typer.Argument(help="The folder to mount on.")],
    volume: Annotated[Path | None, typer.Option(help="Folder of the volume, on a fast local disk.")] = None,
    volume_size: Annotated[str | None, typer.Option(help="Maximum size of the volume on disk, such as 10GiB.")] = None,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Let other users read it; root, or user_allow_other in fuse.conf.")
    ] = False,
    no_list: Annotated[
        bool, typer.Option("--no-list", help="Never list the bucket: any name without an object is a folder.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds after which a program gets EIO from a store that does not answer.", min=0.1)
    ] = 30.0,
    daemon: Annotated[bool, typer.Option("--daemon", help="Return when it is mounted, and go on behind.")] = False,
    config: Config = None,
) -> None:
    """Show SOURCE as a read-only file system on DIRECTORY, through the volume."""
    chosen = settings.load(config, source=source, volume=volume, volume_size=volume_size)
    from special.mount import in_background

    def work(ready: Callable[[], None] = lambda: None) -> None:
        from special import composition
        from special.mount import MountOptions, run

        found, through = composition.mounted(chosen)
        options = MountOptions(
            directory,
            entry_s=chosen.asset_ttl_s,
            deadline_s=timeout,
            shared=allow_other,
            lists=not no_list,
        )
        asyncio.run(run(found, through, options, ready=ready))

    if daemon:
        in_background(work)
    else:
        work()


@cli.command(
    name="compare",
    epilog="""
[bold]Examples[/]

  special compare access.log.gz --old https://old.example.org/iiif/2 --new http://localhost:8000/iiif/2 --report it.html

  special compare access.log --old 'https://old.example.org/iipsrv.fcgi?IIIF=' --record old.sqlite

  special compare --old old.sqlite --new http://localhost:8000/iiif/2 --tolerate 0.5 --ignore headers,rounding
""",
)
def compare_command(
    old: Annotated[str, typer.Option(help="Address of the old server up to the identifier, or a recording of it.")],
    logs: Annotated[
        list[str] | None, typer.Argument(help="Access logs or lists of URLs, .gz too; - for standard input.")
    ] = None,
    new: Annotated[str | None, typer.Option(help="Address of the new server up to the identifier.")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="What the log's addresses begin with. Default: the path of --old.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of lines that are asked: a sample.", min=1)] = 10_000,
    rate: Annotated[float, typer.Option(help="Maximum number of requests a second to each server.", min=0.01)] = 10.0,
    concurrency: Annotated[int, typer.Option(help="Maximum number of addresses asked at a time.", min=1, max=64)] = 4,
    psnr: Annotated[float, typer.Option(help="Pictures differ below this PSNR, in dB.", min=0)] = 30.0,
    ignore: Annotated[
        str, typer.Option(help="Kinds of differences that are told and do not count, with commas.")
    ] = "headers",
    tolerate: Annotated[float, typer.Option(help="Percent of requests that may differ.", min=0, max=100)] = 0.0,
    record: Annotated[Path | None, typer.Option(help="Record the old server's answers to this file.")] = None,
    prices: Annotated[
        Path | None, typer.Option(help="TOML file with currency, per_1000_gets and per_gb of the store.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report with both pictures to this HTML file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all that was found as one JSON object.")] = False,
) -> None:
    """Ask an old server and a new one what an access log has, and tell what differs.

    Of the log only the paths below the prefix are used: no address, query or user agent leaves it. Exits with 1 if
    more requests differ than are tolerated.
    """
    from special.compare import DIFFERENCES, Options, Prices, run

    ignored = {it.strip() for it in ignore.split(",")} - {""}
    if unknown := ignored - set(DIFFERENCES):
        raise ConfigurationError(f"--ignore: '{unknown.pop()}' is none of {', '.join(DIFFERENCES)}")
    options = Options(
        old,
        new,
        prefix,
        limit=limit,
        rate=rate,
        concurrency=concurrency,
        psnr_db=psnr,
        ignore=frozenset(kind for kind in DIFFERENCES if kind in ignored),
        tolerate_percent=tolerate,
        record=record,
        prices=Prices.load(prices) if prices else Prices(),
        report=report,
        json=json,
    )
    sys.exit(_run(run(logs or [], options, out=Console(), progress=Console(stderr=True))))


@cli.command(
    epilog="""
[bold]Examples[/]

  special forget maps/1 --thumbs s3://thumbs --source s3://archive/masters

  special forget maps/1 maps/2 --config special.toml
"""
)
def forget(
    identifiers: Annotated[list[str], typer.Argument(help="The images to take down.")],
    source: Annotated[str | None, typer.Option(help="Where their masters are, or were.")] = None,
    thumbs: Thumbs = None,
    volume: Annotated[Path | None, typer.Option(help="Folder of the volume.")] = None,
    config: Config = None,
) -> None:
    """Remove what special has stored of images, and have servers of this machine forget them. Masters stay.

    Delete or restrict the master first: one that is there is served again. Run it on each machine that has a volume.
    """
    from special.derive import forget_images

    chosen = settings.load(config, source=source, thumbs=thumbs, volume=volume)
    sys.exit(_run(forget_images(chosen, identifiers, out=sys.stdout)))


@cli.command(
    name="config",
    epilog="""
[bold]Examples[/]

  special config s3://archive --config special.toml

  SPECIAL_SOURCE=s3://archive special config > special.toml

  special config --cantaloupe cantaloupe.properties > special.toml
""",
)
def config_command(
    source: MaySource = None,
    thumbs: Thumbs = None,
    cantaloupe: Annotated[
        Path | None, typer.Option(help="Print what this cantaloupe.properties asks for instead.", metavar="FILE")
    ] = None,
    config: Config = None,
) -> None:
    """Print the settings in force as a file for --config, with what each is and where it comes from."""
    from special.cantaloupe import translate
    from special.settings_file import commented_toml

    if cantaloupe is not None:
        try:
            print(translate(cantaloupe.read_text("utf-8")), end="")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{cantaloupe} cannot be read: {error}") from None
        return
    flags = {"source": source, "thumbs": thumbs}
    print(commented_toml(settings.load(config, **flags), settings.origins(config, flags)), end="")


@cli.command(
    epilog="""
[bold]Examples[/]

  special docs

  special docs sizing

  special docs examples/compose.yaml > compose.yaml
"""
)
def docs(
    page: Annotated[str | None, typer.Argument(help="A page or an example; without it, which there are.")] = None,
    launch: Annotated[
        bool, typer.Option("--open", help="Open it with this machine's program for such files instead.")
    ] = False,
) -> None:
    """Print a page of the operator's reference, or an example of it."""
    folder = Path(__file__).parent / "docs"
    files = (it for it in sorted(folder.rglob("*")) if it.is_file() and it.suffix not in (".pyc", ".webp", ".svg"))
    pages = {str(it.relative_to(folder)).removesuffix(".md"): it for it in files}
    if page is None:
        print("\n".join(pages))
        return
    path = pages.get(page.removesuffix(".md"))
    if path is None:
        raise ConfigurationError(f"there is no page '{page}'; there are {', '.join(pages)}")
    if launch:
        sys.exit(typer.launch(str(path)))
    print(path.read_text("utf-8"), end="")


@cli.command(
    epilog="""
[bold]Examples[/]

  special check s3://archive/masters --thumbs s3://thumbs

  special check --config special.toml --write

  special check --health
"""
)
def check(
    source: MaySource = None,
    thumbs: Thumbs = None,
    write: Annotated[
        bool, typer.Option("--write", help="Also store a file in THUMBS and delete it, as derive must be able to.")
    ] = False,
    health: Annotated[
        bool, typer.Option("--health", help="Only ask the running server whether it lives: for containers.")
    ] = False,
    config: Config = None,
) -> None:
    """Check settings, stores, permissions, disk and decoders, one line each. Exits with 1 if anything failed."""
    from special import preflight
    from special.observability import logs

    logs.setup("brief", sys.stderr)
    if health:
        print(preflight.is_alive(settings.load(config, source=source or ".")).said)  # the source does not matter
        return
    given = settings.load(config, source=source, thumbs=thumbs)
    machine.raise_descriptor_limit()  # as `serve` does
    checks = {**preflight.AT_START, "decoders": preflight.decoders}
    if write:
        checks["writing"] = preflight.writing
    sys.exit(0 if _run(_checked(checks, given)) else 1)


async def _checked(checks: Mapping[str, Check], chosen: Settings) -> bool:
    """Run all checks and say what each found; whether none failed."""
    good = True
    for name, run_check in checks.items():
        try:
            report = await run_check(chosen)
        except SpecialError as error:
            good = False
            print(f"failed   {name}: {error}")
            continue
        for warning in report.warnings:
            print(f"warning  {name}: {warning}")
        print(f"ok       {name}: {report.said}")
    return good


Directory = Annotated[Path, typer.Argument(help="The volume's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object.")]


@volume_cli.command(epilog="[bold]Example[/]   special volume stat /var/cache/special --json")
def stat(directory: Directory, json: AsJson = False) -> None:
    """Tell how a volume does: objects, bytes, hit rate, age, the images that are read most."""
    from special.volume import admin

    found = admin.stat(directory)
    _print_record(found, as_json=json, hit_rate=round(found.hit_rate, 4))


@volume_cli.command(epilog="[bold]Example[/]   special volume verify /var/cache/special")
def verify(directory: Directory, json: AsJson = False) -> None:
    """Check every block, and drop what is wrong: it will be fetched again. Exits with 1 if anything was."""
    from special.volume import admin

    found = admin.verify(directory)
    _print_record(found, as_json=json)
    sys.exit(0 if found.sound else 1)


@volume_cli.command(
    epilog="""
[bold]Examples[/]

  special volume clear /var/cache/special map.jp2

  SPECIAL_KEYS='{id},{id}.jp2' special volume clear /var/cache/special 1/2/map --source s3://archive/masters

  special volume clear /var/cache/special s3://archive/masters/map.jp2

  special volume clear /var/cache/special
"""
)
def clear(
    directory: Directory,
    image: Annotated[
        str | None, typer.Argument(help="The one image to remove, by its identifier or its master's URL; none: all.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Where its master is, if the volume has masters of several sources.")
    ] = None,
    json: AsJson = False,
    config: Config = None,
) -> None:
    """Remove one image, or all, from a volume; what is being read stays. Exits with 1 if anything had to stay."""
    from special import composition
    from special.storage import open_source, with_endpoint
    from special.volume import admin

    if image is None:
        gone = admin.clear(directory)
    else:
        keys = composition.key_templates(settings.load(config, source=source or "")).keys_of(image)
        opened = open_source(source) if source else None
        root = with_endpoint(opened)(opened.root) if opened is not None else None
        gone = admin.clear(directory, admin.find(directory, image, keys=keys, root=root))
    _print_record(gone, as_json=json)
    sys.exit(1 if gone.kept else 0)


@catalogue_cli.command(
    name="check",
    epilog="""
[bold]Examples[/]

  special catalogue check s3://archive/masters --config special.toml

  special catalogue check --config special.toml

  special catalogue check s3://archive/masters 1/2/foo 1/2/bar --config special.toml
""",
)
def check_catalogue(
    source: MaySource = None,
    identifiers: Annotated[list[str] | None, typer.Argument(help="Images; none: the first that are listed.")] = None,
    count: Annotated[int, typer.Option(help="How many images are looked up if none is named.", min=1)] = 20,
    config: Config = None,
) -> None:
    """Tell where a catalogue has images, who may see them, and whether they are there. Exits with 1 if any is not."""
    from special import composition, inspect

    chosen = settings.load(config, source=source)
    sound = _run(inspect.check_catalogue(composition.engine(chosen), identifiers or [], count, Console()))
    sys.exit(0 if sound else 1)


def _print_record(record: VolumeStat | Verified | Cleared, *, as_json: bool, **more: float) -> None:
    fields = asdict(record) | more
    if as_json:
        print(dumps(fields, default=str))
        return
    table = Table(show_header=False, box=None)
    for name, value in fields.items():
        if name == "top":
            value = "\n".join(f"{it['hits'] + it['misses']:,} blocks read of {it['url']}" for it in value) or "–"
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name.replace("_", " "), escape(shown))
    Console().print(table)
