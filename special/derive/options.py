"""What one run is asked to do, beside the settings that it shares with the server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from special.derive.generator import Generator
from special.derive.inputs import comes_once
from special.derive.outcome import Work
from special.derive.plan import Consent
from special.derive.resources import ResourceOptions, Resources, open_read_only, open_with_decoders
from special.errors import ConfigurationError
from special.workers import Begun

Task = Literal["make", "remake", "migrate", "index", "estimate", "verify"]
"""The default, `--force`, `--migrate-legacy`, `--index`, `--plan` and `--verify`."""
DECODES: frozenset[Task] = frozenset({"make", "remake"})
READS_ONLY: frozenset[Task] = frozenset({"estimate", "verify"})
CONTINUES: frozenset[Task] = frozenset({"make", "migrate", "index"})
"""Those whose next run skips what is done."""


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Raises `ConfigurationError` where options exclude each other."""

    task: Task = "make"
    names_from: str | None = None
    """A file of identifiers, an S3 inventory, or `-`."""
    failed_to: Path | None = None
    """Where identifiers go that need another run; `names_from` takes it back."""
    pyramids: bool = False
    """Whether pyramids are published too, of the masters that the settings say."""
    static: str | None = None
    """Folder or URL to which static tile sets are written."""
    prune: bool = False
    """Whether files that no sizes file names are taken away."""
    queue: str | None = None
    """URL of an SQS queue of S3 notifications to follow until SIGTERM, instead of any list."""
    keep_removed: bool = False
    """Whether renditions stay where an event reported that their master was deleted."""
    scheduler: str | None = None
    """Address of a Dask scheduler whose workers do the work, such as `tcp://host:8786`."""
    consent: Consent = field(default_factory=Consent)
    strict: bool = False
    """Whether masters that end early fail."""
    json: bool = False
    """Whether each outcome is a JSON object on standard output."""
    report: Path | None = None
    """Where every outcome goes as a row of CSV."""
    summary: Path | None = None
    """Where the totals go as a JSON object."""
    include: tuple[str, ...] = ()
    """Patterns of identifiers; if there are any, the others are left out."""
    exclude: tuple[str, ...] = ()
    """Patterns of identifiers that are left out."""
    allowed_failures: int = 0
    """Number of bad images with which a run still ends well."""
    quiet: bool = False
    """Whether nothing but failures is shown."""
    missing: bool = False
    """With `prune`: whether renditions go whose master is not there any more."""

    def __post_init__(self) -> None:
        named = (self.names_from, self.failed_to, self.report, self.summary)
        files = [Path(it).resolve() for it in named if it is not None and not comes_once(str(it))]
        if len(set(files)) < len(files):
            raise ConfigurationError(
                "two of --from, --failed-to, --report and --summary are one file, which would be overwritten: "
                "name another file"
            )
        if self.missing and (not (self.prune or self.task == "estimate") or self.queue or self.names_from):
            raise ConfigurationError(
                "--missing looks at all renditions: use it with --prune, or with --plan to see them first, "
                "and without a list"
            )
        if self.prune and self.task in READS_ONLY:
            raise ConfigurationError("--prune removes files, --plan and --verify only look: choose one")
        if self.pyramids and self.task not in ("make", "remake", "estimate"):
            raise ConfigurationError("--pyramids goes with --force or --plan at most: leave out every other task")
        if self.static is not None and self.task not in DECODES:
            raise ConfigurationError("--static writes files: leave out --plan, --verify and --migrate-legacy")
        if self.queue is not None and (self.pyramids or self.static is not None):
            raise ConfigurationError("--queue makes renditions alone: run --pyramids or --static by itself")
        if self.queue is not None and (self.task != "make" or self.names_from is not None):
            raise ConfigurationError("--queue makes what its messages name: leave out --from and every other task")
        if self.queue is not None and self.scheduler is not None:
            raise ConfigurationError("--queue and --scheduler exclude each other: start several runs with --queue")
        if self.consent.open_restricted and (self.queue is not None or comes_once(self.names_from or "")):
            raise ConfigurationError(
                "--open-restricted lists what it opens before it does: name images as arguments or in a file, "
                "not by --queue, standard input or a pipe"
            )

    def open(self, options: ResourceOptions, begun: Begun | None = None) -> AbstractAsyncContextManager[Resources]:
        """What the task works with; decoders only where it decodes. Raises `ConfigurationError`."""
        decodes = self.task in DECODES and not self.missing
        return open_with_decoders(options, begun) if decodes else open_read_only(options)

    def work(self, resources: Resources) -> Work:
        """What is done for each image."""
        generator, work = resources.generator, self._basic(resources.generator)
        if self.pyramids:
            publisher = resources.pyramids
            is_plan = self.task == "estimate"
            work = publisher.planning(work) if is_plan else publisher.publishing(work, remake=self.task == "remake")
        if resources.static is not None:
            work = resources.static.writing(work)
        return generator.pruning(work) if self.prune else work

    def _basic(self, generator: Generator) -> Work:
        if self.missing:
            return generator.find_missing if self.task == "estimate" else generator.prune_missing
        match self.task:
            case "make":
                return generator.make
            case "remake":
                return generator.remake
            case "migrate":
                return generator.migrate
            case "index":
                return generator.index
            case "estimate":
                return generator.estimate
            case "verify":
                return generator.verify
