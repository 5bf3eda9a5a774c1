"""What must be done so that one image's renditions are as they should be. Pure.

The order of the steps is what makes a run safe to kill. Read `Steps` from top to bottom:

    unsettle   where files come into `open/` that were restricted, the side-car says so
    withdraw   sizes whose files are about to be overwritten by others leave the sizes file
    render     files are written that are not there
    move       files whose access changes are copied to their other folder
    publish    side-car, then sizes file: the commit
    sweep      files that are now restricted leave `open/`
    settle     the side-car says that nothing is left to do

After any step a reader of the sizes file finds every file that it names, at the size that it names.
A side-car that is not `settled` makes the next run sweep, and tells it that a sizes file of other sizes is its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from special.geometry import Size
from special.images import Rendition, StoredFormat, stricter
from special.renditions import Policy, Sidecar, SizesFile, StoredRenditions
from special.storage import Blob

AccessChange = Literal["", "opened", "closed", "held"]
"""opened and closed: anonymous clients may have more, or less, than before; held: less than the policy would give
them, because that much was restricted already."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What an operator allows a run to do with what is stored."""

    adopt: bool = False
    """Whether sizes files of others are taken over, with their restrictions."""
    open_restricted: bool = False
    """Whether what is restricted is opened where policy and rules allow it."""


@dataclass(frozen=True, slots=True)
class AccessPlan:
    """Who may have an image's renditions after a run."""

    max_unauthorised: int | None
    """Longest side that an anonymous client may have; None: everything is open."""
    change: AccessChange


def is_left_alone(stored: StoredRenditions | None, consent: Consent) -> bool:
    """Whether what is stored belongs to others, who did not agree to our writing it."""
    return stored is not None and stored.foreign and not consent.adopt


def plan_access(stored: StoredRenditions | None, wanted: int | None, consent: Consent) -> AccessPlan:
    """Who may have what, given the limit by policy and rules: what is restricted stays so without consent."""
    if stored is None:
        return AccessPlan(wanted, "")
    current = stored_limit(stored)
    limit = wanted if consent.open_restricted else stricter(current, wanted)
    if limit == current:
        return AccessPlan(limit, "" if limit == wanted else "held")
    return AccessPlan(limit, "closed" if stricter(current, limit) == limit else "opened")


def stored_limit(stored: StoredRenditions) -> int | None:
    """Longest side that an anonymous client may have of what is stored; None: everything is open.

    A side-car without a limit may go with restricted sizes: a server that adds one under a rule writes no limit.
    """
    if stored.rule.max_unauthorised is not None:
        return stored.rule.max_unauthorised
    return SizesFile.of(stored.renditions).max_unauthorised


def remembered(stored: StoredRenditions | None, identifier: str) -> Sidecar | None:
    """What stays of an image whose master is gone: its limit, should the master come back; None if it was open."""
    limit = stored_limit(stored) if stored else None
    if limit is None:
        return None
    # Of no version of any master, so that nothing but the limit is believed.
    master = Blob("", identifier, "", 0)
    return Target(identifier, master, Size(1, 1), SizesFile(), limit, "").sidecar(None, settled=True)


@dataclass(frozen=True, slots=True)
class Target:
    """What should be stored of one version of one master."""

    identifier: str
    blob: Blob
    shape: Size
    sizes: SizesFile
    max_unauthorised: int | None
    encoding: str

    @classmethod
    def of(cls, identifier: str, blob: Blob, shape: Size, policy: Policy) -> Target:
        """What a policy wants of a master."""
        return cls(identifier, blob, shape, policy.sizes(shape), policy.max_unauthorised, policy.encoding)

    @property
    def renditions(self) -> tuple[Rendition, ...]:
        """The files that should be stored, largest first."""
        return self.sizes.renditions(self.identifier)

    def sidecar(self, layout: bytes | None, *, settled: bool) -> Sidecar:
        """The side-car that says that all of this holds."""
        return Sidecar(
            key=self.blob.key,
            etag=self.blob.etag,
            size_bytes=self.blob.size,
            media=self.blob.media,
            modified=self.blob.modified,
            shape=self.shape,
            layout=layout,
            sizes=self.sizes,
            max_unauthorised=self.max_unauthorised,
            encoding=self.encoding,
            settled=settled,
            page=self.blob.page,
        )


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps, in their order. None of them: everything is current."""

    unsettle: bool
    """Whether a run that ends before `publish` leaves files in `open/` that the rule of before restricts."""
    withdraw: SizesFile | None
    """What the sizes file says while files are overwritten by other sizes; None: it may stay as it is."""
    render: tuple[Rendition, ...]
    """Made from the master, which is decoded once for all of them; largest first."""
    move: tuple[tuple[Rendition, Rendition], ...]
    """Copied from one folder to the other: as they are, as they should be."""
    publish: bool
    sweep: bool
    settle: bool
    """Whether the side-car is not settled until the steps before are done."""

    @property
    def is_done(self) -> bool:
        """Whether nothing needs doing."""
        return not (self.render or self.move or self.publish or self.sweep)


def is_of(stored: StoredRenditions | None, blob: Blob) -> bool:
    """Whether the side-car is of this version of the master: its shape is then known without reading it."""
    return (
        stored is not None
        and stored.sidecar is not None
        and _version(stored.sidecar) == (blob.key, blob.etag, blob.page)
    )


def plan(stored: StoredRenditions | None, target: Target) -> Steps:
    """What must be done, given what is stored."""
    named = stored.renditions if stored else ()
    sidecar = stored.sidecar if stored else None
    current = {_file(it): it for it in named} if sidecar and _trusted(sidecar, named, target) else {}
    wanted = target.renditions
    render = tuple(it for it in wanted if _file(it) not in current)
    move = tuple((current[_file(it)], it) for it in wanted if _file(it) in current and current[_file(it)] != it)
    publish = bool(render or move) or sidecar is None or not _says(sidecar, named, target)
    restricting = target.max_unauthorised is not None and publish
    sweep = restricting or (sidecar is not None and not sidecar.settled)
    return Steps(
        unsettle=sidecar is not None and sidecar.settled and _opens(sidecar, (*render, *(it for _, it in move))),
        withdraw=_withdrawn(named, render),
        render=render,
        move=move,
        publish=publish,
        sweep=sweep,
        settle=sweep or (bool(named) and SizesFile.of(named) != target.sizes),
    )


def _file(rendition: Rendition) -> tuple[Size, StoredFormat]:
    """What a rendition is, in either folder."""
    return rendition.size, rendition.format


def _version(sidecar: Sidecar) -> tuple[str, str, int]:
    return sidecar.key, sidecar.etag, sidecar.page


def _trusted(sidecar: Sidecar, named: tuple[Rendition, ...], target: Target) -> bool:
    """Whether the files that are named were made from this master, in this encoding, by us."""
    return (
        _version(sidecar) == (target.blob.key, target.blob.etag, target.blob.page)
        and sidecar.encoding == target.encoding
        and sidecar.sizes == SizesFile.of(named)
    )


def _opens(sidecar: Sidecar, written: Iterable[Rendition]) -> bool:
    """Whether anything is written into `open/` that a side-car's rule restricts."""
    limit = sidecar.max_unauthorised
    return limit is not None and any(it.access == "open" and it.size.long_side > limit for it in written)


def _says(sidecar: Sidecar, named: tuple[Rendition, ...], target: Target) -> bool:
    return (
        _version(sidecar) == (target.blob.key, target.blob.etag, target.blob.page)
        and SizesFile.of(named) == sidecar.sizes == target.sizes
        and sidecar.max_unauthorised == target.max_unauthorised
        and sidecar.encoding == target.encoding
    )


def _withdrawn(named: tuple[Rendition, ...], render: tuple[Rendition, ...]) -> SizesFile | None:
    overwritten = {it.key: it.size for it in render}
    going = {it.size for it in named if overwritten.get(it.key, it.size) != it.size}
    staying = [it for it in named if it.size not in going]
    return SizesFile.of(staying) if len(staying) < len(named) else None
