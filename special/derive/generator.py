"""Makes, estimates and verifies the renditions of one image at a time.

All that is decided is decided in `plan`; here are the reads, the writes and their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from special import formats
from special.auth import Rules
from special.catalogue import Catalogue
from special.codecs import Rendered
from special.derive.inputs import InputImage, locate
from special.derive.outcome import Outcome, Work
from special.derive.plan import (
    AccessPlan,
    Consent,
    Steps,
    Target,
    is_left_alone,
    is_of,
    plan,
    plan_access,
    remembered,
    stored_limit,
)
from special.derive.pyramids import current_key
from special.errors import Changed, MasterError, Missing
from special.formats import Layout, Parser, Piece, drive
from special.geometry import Box
from special.iiif import MEDIA, Job
from special.images import OPEN, Access, KeyTemplates, Rendition, Rule, stricter
from special.observability import trace
from special.renditions import (
    FOREIGN,
    Policy,
    PyramidName,
    RenditionStore,
    Sidecar,
    SizesFile,
    StoredRenditions,
    dump_layout,
    pyramid_file,
)
from special.serving import ReadLimits, govern, read_piece
from special.storage import Blob, Chunk, Source, Span, body

_HEAD = Span(0, 65536)
ACCESSES: tuple[Access, ...] = ("open", "auth")

Decode = Callable[[Piece, Sequence[Job]], Awaitable[Sequence[Rendered]]]
"""Turns a piece of a master into one picture for each job, in order. Raises `MasterError`, `DecodeError`."""


@dataclass(frozen=True, slots=True)
class OpenMaster:
    """A master whose headers are known."""

    blob: Blob
    layout: Layout
    seen: list[Chunk]
    """What was read of it already, and is not read again."""


class Generator:
    """Makes, checks and removes renditions. Its methods may run for many images at once.

    Each takes an image to an outcome and raises `SourceError`, `MasterError` or `DecodeError`.
    """

    def __init__(
        self,
        source: Source,
        store: RenditionStore,
        decode: Decode,
        policy: Policy,
        *,
        rules: Rules,
        consent: Consent,
        templates: KeyTemplates,
        catalogue: Catalogue | None = None,
        bounds: ReadLimits,
        masters_at_once: int,
        pyramid_name: PyramidName,
    ) -> None:
        """`masters_at_once`: how many may be in memory to be decoded, of all images in progress.

        `pyramid_name`: of the published pyramids that are current; others are strays.
        """
        self._pyramid_name = pyramid_name
        self._source = source
        self._store = store
        self._decode = decode
        self._policy = policy
        self._rules = rules
        self._consent = consent
        self._templates = templates
        self._catalogue = catalogue
        self._bounds = bounds
        self._decode_slots = asyncio.Semaphore(masters_at_once)

    async def make(self, image: InputImage) -> Outcome:
        """Do what is missing. Where everything is current: two GETs, and one HEAD unless a listing spared it."""
        return await self._bring_current(image, self._store.reload)

    async def remake(self, image: InputImage) -> Outcome:
        """Make everything again, believing nothing that is stored."""
        return await self._bring_current(image, self._distrusted)

    async def follow(self, image: InputImage, *, gone: Work) -> Outcome:
        """Bring renditions to what the master is by now, whatever an event said of it; `gone` where there is none.

        Asks for the master's version again at the end: of two runs that meet, the one that lost starts again.
        """
        identifier = image.identifier
        work: Work = self.make
        while True:
            before = await self._version(identifier)
            outcome = await (work(InputImage(identifier, before)) if before else gone(image))
            if outcome.result in ("stood", "foreign") or await self._version(identifier) == before:
                return outcome
            work = self.remake

    async def migrate(self, image: InputImage) -> Outcome:
        """Give an image that an older site left without a sizes file the layout of today. Reads no master.

        Legacy files are copied and stay; the sizes are theirs, whatever the policy makes of masters.
        """
        identifier = image.identifier
        if await self._store.reload(identifier) is not None:
            return Outcome(identifier, "stood")
        legacy = {size.long_side: (key, size) for key, size in reversed(await self._store.legacy(identifier))}
        policy, _ = await self._decided(identifier, None)
        divided = policy.divided([legacy[side][1] for side in sorted(legacy, reverse=True)])
        sizes = replace(divided, formats=("jpg",))
        renditions = sizes.renditions(identifier)
        for rendition in renditions:
            data = await body(await self._store.source.open(legacy[rendition.size.long_side][0]))
            await self._store.source.write(rendition.key, data, media=MEDIA[rendition.format])
        if not renditions:
            return Outcome(identifier, "stood", "there are no legacy files")
        await self._store.write_sizes_file(identifier, sizes)
        return Outcome(identifier, "made", f"{len(renditions)} legacy files copied", written=len(renditions))

    async def index(self, image: InputImage) -> Outcome:
        """Write a side-car beside the sizes file of others: servers then need not read the master's headers.

        Decodes nothing; sizes file, files and restrictions stay as they are. Two GETs, a HEAD, the reads of the
        headers and one write.
        """
        identifier, blob, stored = await self._state(image)
        if stored is None or not stored.foreign:
            return Outcome(identifier, "stood", "" if stored else "nothing is stored")
        if is_of(stored, blob):
            return Outcome(identifier, "stood")
        master = await self._open(blob)
        master = await self._read_on(master, master.layout.complete())
        sizes, limit = SizesFile.of(stored.renditions), stored_limit(stored)
        target = Target(identifier, blob, master.layout.size, sizes, limit, FOREIGN)
        await self._store.write_sidecar(identifier, target.sidecar(dump_layout(master.layout), settled=True))
        return Outcome(identifier, "made", "side-car")

    async def estimate(self, image: InputImage) -> Outcome:
        """Say what `make` would do. Reads no master."""
        identifier, blob, stored = await self._state(image)
        if is_left_alone(stored, self._consent):
            return foreign(identifier)
        _, access = await self._decided(identifier, stored)
        faults = await self._faults(identifier, blob, stored)
        if not faults:
            return Outcome(identifier, "stood", access=access.change)
        # Sizes file and side-car besides. Of a small master fewer renditions are made, and of many less is read.
        puts = len(self._policy.bounds) * len(self._policy.formats) + 2
        return Outcome(identifier, "due", faults[0], access=access.change, due_reads=blob.size, due_puts=puts)

    async def verify(self, image: InputImage) -> Outcome:
        """Say what is wrong with what is stored: one GET per rendition and one list besides.

        Raises `MasterError` for a master of a listing that has nothing stored because it cannot be shown.
        """
        identifier, blob, stored = await self._state(image)
        if stored is None and image.listed:
            await self._open(blob)
        faults = await self._faults(identifier, blob, stored)
        if stored:
            faults += [fault for it in stored.renditions if (fault := await self._fault(identifier, it))]
            if stored.rule.max_unauthorised is not None:
                strays = await self._restricted(identifier, stored.rule.max_unauthorised)
                faults += [f"{key} is restricted and under open/" for key in strays]
        return Outcome(identifier, "wrong", "; ".join(faults)) if faults else Outcome(identifier, "sound")

    def pruning(self, work: Work) -> Work:
        """The same work, and then the strays go."""

        async def both(image: InputImage) -> Outcome:
            outcome = await work(image)
            if outcome.result == "foreign":
                return outcome
            count = await self.prune(image.identifier)
            if not count:
                return outcome
            details = (outcome.detail, f"{count} stray files removed")
            return replace(outcome, result="made", detail=", ".join(filter(None, details)))

        return both

    async def prune(self, identifier: str) -> int:
        """Take away rendition files that the sizes file does not name, and pyramids of other versions or settings.

        Returns how many those were. Five lists.

        Where there is no sizes file of ours the files may be those of others.
        """
        stored = await self._store.reload(identifier)
        if stored is None or stored.foreign:
            return 0
        named = {(it.access, it.key.rpartition("/")[2]) for it in stored.renditions}
        strays = [
            key
            for access in ACCESSES
            for key, _ in await self._store.list_files(identifier, access)
            if (access, key.rpartition("/")[2]) not in named
        ]
        current = current_key(self._pyramid_name, identifier, stored.sidecar) if stored.sidecar else None
        strays += [key for key in await self._store.list_pyramids(identifier) if key != current]
        for key in strays:
            await self._store.source.delete(key)
        return len(strays)

    async def retain(self, image: InputImage) -> Outcome:
        """Leave what is stored of an image whose master is gone."""
        return Outcome(image.identifier, "stood", "the master is gone, its renditions are kept")

    async def remove(self, image: InputImage) -> Outcome:
        """Take away all that is stored of an image whose master is gone, and of its pages, but for the limit of a
        restricted one.
        """
        names, page = self._templates.form, self._templates.form.split(image.identifier)[1]
        pages = await self._store.list_pages(image.identifier, names) if page == 1 and names.pages else []
        for name in pages:
            await self.remove(InputImage(name))
        stored = await self._distrusted(image.identifier)
        if is_left_alone(stored, self._consent):
            return foreign(image.identifier)
        count = await self._store.remove(image.identifier, leaving=remembered(stored, image.identifier))
        return Outcome(image.identifier, "removed", f"{count} renditions removed")

    async def prune_missing(self, image: InputImage) -> Outcome:
        """Take away what is stored of an image if its master is gone."""
        found = await self.find_missing(image)
        return await self.remove(image) if found.result == "due" else found

    async def find_missing(self, image: InputImage) -> Outcome:
        """Say what `prune_missing` would do."""
        if await self._version(image.identifier) is not None:
            return _is_there(image)
        stored = await self._distrusted(image.identifier)
        if is_left_alone(stored, self._consent):
            return foreign(image.identifier)
        if stored is None or not stored.renditions:
            return Outcome(image.identifier, "stood", "the master is gone, and so are its renditions")
        return Outcome(image.identifier, "due", "the master is gone, its renditions would be removed")

    # Reads

    async def _locate(self, identifier: str) -> Blob:
        return await locate(self._source, self._templates, identifier, self._catalogue)

    def _named(self, blob: Blob) -> Blob:
        """A master as side-cars name it: by its key in the default source, else by its URL."""
        if self._catalogue is None or blob.root == self._catalogue.root_of(""):
            return blob
        return replace(blob, root="", key=blob.url)

    async def _version(self, identifier: str) -> Blob | None:
        try:
            return await self._locate(identifier)
        except Missing:
            return None

    async def _state(self, image: InputImage) -> tuple[str, Blob, StoredRenditions | None]:
        identifier = image.identifier
        blob = image.blob or await self._locate(identifier)
        return identifier, blob, await self._store.reload(identifier)

    async def _faults(self, identifier: str, blob: Blob, stored: StoredRenditions | None) -> list[str]:
        """How what is stored differs from what should be, as far as sizes file and side-car tell."""
        if stored is None:
            return ["nothing is stored"]
        if stored.sidecar is None:
            return ["no side-car goes with the sizes file, so the version of the master is unknown"]
        if not is_of(stored, self._named(blob)):
            return ["the master is another version by now"]
        policy, _ = await self._decided(identifier, stored)
        steps = plan(stored, Target.of(identifier, self._named(blob), stored.sidecar.shape, policy))
        return [] if steps.is_done else [summary_of(steps)]

    async def _decided(self, identifier: str, stored: StoredRenditions | None) -> tuple[Policy, AccessPlan]:
        """The policy with the limit that holds for this image, by its rules and by what is stored."""
        names = self._templates.form.names(identifier)
        if self._catalogue is None:
            rule = self._rules.govern(OPEN, *names, *self._templates.keys_of(identifier))
        else:
            entry = await self._catalogue.locate(identifier)
            rule = govern(self._rules, OPEN, entry, *names, *self._catalogue.names(entry))
        images = [await self._store.find(name) for name in names if name != identifier]
        limits = [it.rule.max_unauthorised for it in images if it is not None]
        wanted = stricter(self._policy.max_unauthorised, rule.max_unauthorised, *limits)
        access = plan_access(stored, wanted, self._consent)
        return replace(self._policy, max_unauthorised=access.max_unauthorised), access

    async def _fault(self, identifier: str, rendition: Rendition) -> str:
        """What is wrong with a file that the sizes file names; empty if nothing."""
        try:
            opened = await self._store.open_rendition(identifier, rendition, span=_HEAD)
            head = await body(opened)
            seen = [(Span(0, len(head)), head)] if head else []
            layout = await drive(formats.parse(opened.blob.size), self._store.source, opened.blob, seen=seen)
        except Missing:
            return f"{rendition.key} is missing"
        except MasterError as error:
            return f"{rendition.key} is no picture ({error})"
        return "" if layout.size == rendition.size else f"{rendition.key} has {layout.size}, not {rendition.size}"

    async def _restricted(self, identifier: str, limit: int) -> list[str]:
        """Files in `open/` that are larger than an anonymous client may have."""
        return [key for key, side in await self._store.list_files(identifier, "open") if side > limit]

    async def _distrusted(self, identifier: str) -> StoredRenditions | None:
        """What is stored, as if its side-car were missing; where it cannot be read, all of it may be restricted."""
        try:
            stored = await self._store.reload(identifier)
        except MasterError:
            return StoredRenditions((), Rule(0), None, "")
        return replace(stored, sidecar=None) if stored else None

    # Writes

    async def _bring_current(
        self, image: InputImage, reload: Callable[[str], Awaitable[StoredRenditions | None]]
    ) -> Outcome:
        identifier = image.identifier
        blob = image.blob or await self._locate(identifier)
        try:
            return await self._bring(identifier, blob, await reload(identifier))
        except Changed:
            # The master was overwritten meanwhile: start again from its new version.
            blob = await self._locate(identifier)
            return await self._bring(identifier, blob, await reload(identifier))

    async def _bring(self, identifier: str, blob: Blob, stored: StoredRenditions | None) -> Outcome:
        """The steps of the plan, in its order."""
        if is_left_alone(stored, self._consent):
            return foreign(identifier)
        policy, access = await self._decided(identifier, stored)
        known = stored.sidecar if stored and is_of(stored, self._named(blob)) else None
        master = None if known else await self._open(blob)
        shape = master.layout.size if master else known.shape if known else None
        assert shape is not None, "a side-car or the master's headers tell the shape"
        target = Target.of(identifier, self._named(blob), shape, policy)
        steps = plan(stored, target)
        if steps.is_done:
            return Outcome(identifier, "stood", access=access.change)
        if stored and stored.sidecar and steps.unsettle:
            await self._store.write_sidecar(identifier, replace(stored.sidecar, settled=False))
        if stored and steps.withdraw is not None:
            await self._withdraw(target, steps.withdraw, stored)
        if steps.render:
            master = await self._render(master or await self._reopen(blob, known), steps.render)
            master = await self._read_on(master, master.layout.complete())
        for stored_file, wanted in steps.move:
            try:
                data = await body(await self._store.open_rendition(identifier, stored_file))
            except Missing:
                # The file was deleted and is still in the sizes file: believe nothing of it.
                return await self._bring(identifier, blob, replace(stored, sidecar=None) if stored else None)
            await self._store.source.write(wanted.key, data, media=MEDIA[wanted.format])
        layout = dump_layout(master.layout) if master else known.layout if known else None
        if steps.publish:
            await self._store.publish(identifier, target.sidecar(layout, settled=not steps.settle))
        if steps.sweep:
            await self._sweep(target)
        if steps.settle:
            await self._store.write_sidecar(identifier, target.sidecar(layout, settled=True))
        written = len(steps.render) + len(steps.move)
        return Outcome(identifier, "made", summary_of(steps), access.change, written)

    async def _withdraw(self, target: Target, sizes: SizesFile, stored: StoredRenditions) -> None:
        """Let the sizes file name only what is valid throughout; the next run trusts nothing of it."""
        # What stays is of the old shape.
        shape = stored.sidecar.shape if stored.sidecar else stored.renditions[0].size
        interim = replace(target.sidecar(None, settled=False), etag="", sizes=sizes, shape=shape)
        await self._store.publish(target.identifier, interim)

    async def _sweep(self, target: Target) -> None:
        """Take what is restricted out of `open/`."""
        if target.max_unauthorised is not None:
            identifier = target.identifier
            open_pyramid, _ = pyramid_file.prefixes(identifier)
            pyramids = [it for it in await self._store.list_pyramids(identifier) if it.startswith(open_pyramid)]
            for key in [*await self._restricted(identifier, target.max_unauthorised), *pyramids]:
                await self._store.source.delete(key)

    async def _open(self, blob: Blob) -> OpenMaster:
        seen: list[Chunk] = []
        bounds = self._bounds
        parser = formats.parse(blob.size, blob.page, pdf_dpi=bounds.pdf_dpi)
        layout = await drive(parser, self._source, blob, max_gap_bytes=bounds.max_gap_bytes, seen=seen)
        return OpenMaster(blob, layout, seen)

    async def _reopen(self, blob: Blob, known: Sidecar | None) -> OpenMaster:
        if known and known.layout:
            return OpenMaster(blob, formats.load(known.layout), [])
        return await self._open(blob)

    async def _read_on(self, master: OpenMaster, missing: Parser[Layout] | None) -> OpenMaster:
        if missing is None:
            return master
        layout = await drive(missing, self._source, master.blob, first_bytes=0, chunk_bytes=0, seen=master.seen)
        return replace(master, layout=layout)

    async def _render(self, master: OpenMaster, renditions: Sequence[Rendition]) -> OpenMaster:
        """Write renditions from one decode of the smallest level that is enough; the master with all that was read."""
        box, largest = Box.whole(master.layout.size), renditions[0].size
        master = await self._read_on(master, master.layout.prepare(box, largest))
        jobs = [Job(box, it.size, mirror=False, angle=0, quality="default", format=it.format) for it in renditions]
        async with self._decode_slots:
            piece, layout = await read_piece(
                self._source, master.blob, master.layout, box, largest, limits=self._bounds, seen=master.seen
            )
            pictures = await self._decode(piece, jobs)
            del piece  # the largest thing of all, and the writes need it no more
        master = replace(master, layout=layout)
        trace().decode_ms += sum(it.decode_ms for it in pictures)
        trace().encode_ms += sum(it.encode_ms for it in pictures)
        writes = [
            self._store.source.write(rendition.key, picture.data, media=MEDIA[rendition.format])
            for rendition, picture in zip(renditions, pictures, strict=True)
        ]
        # All of them end before any step that comes after, or before another try.
        for done in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(done, BaseException):
                raise done
        return master


def _is_there(image: InputImage) -> Outcome:
    return Outcome(image.identifier, "stood", "the master is there")


def foreign(identifier: str) -> Outcome:
    """The outcome of an image whose renditions belong to others."""
    detail = "its sizes file was not written by special and is left alone; --adopt takes it over"
    return Outcome(identifier, "foreign", detail)


def summary_of(steps: Steps) -> str:
    """The steps in words, for the terminal."""
    words = [
        f"{len(steps.render)} renditions from the master" if steps.render else "",
        f"{len(steps.move)} renditions to their other folder" if steps.move else "",
        "sizes file and side-car" if steps.publish else "",
        "clear `open/`" if steps.sweep else "",
    ]
    return ", ".join(filter(None, words))
