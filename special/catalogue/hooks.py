"""The operator's own code: a class whose methods say where images are, who may see them, and what is said of them.

    from special.catalogue import ALL, NOTHING, Caller, Entry, Hooks, Verdict

    class Library(Hooks):
        async def locate(self, identifier: str) -> Entry | None:
            return Entry((f"s3://archive/{identifier}.tif",))

        async def authorise(self, caller: Caller, image: Entry) -> Verdict:
            return ALL if caller.address.startswith("10.") else NOTHING

The setting `hooks = "package.module:Library"` names it. Every server process makes one object of it, in its event loop.
"""

from __future__ import annotations

import importlib
import io
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

from special.catalogue.entry import Entry
from special.errors import ConfigurationError, HookError, SpecialError
from special.iiif import Mark
from special.images import PUBLIC, Verdict

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for an image."""

    identifier: str
    """Of the image."""
    headers: Mapping[str, str]
    """Of the request, with names in small letters."""
    address: str
    """Of the client, as far as trusted proxies tell it."""
    roles: frozenset[str]
    """What the client's token proves."""
    known: bool
    """Whether the client has a token that is believed."""
    page: int = 1
    """Which page of the image it asks for: `{id};3` is page 3 of `{id}`."""


class Hooks:
    """The base class. Methods that are not overridden cost nothing.

    What a method raises is a 500 for that one request, with the traceback in the log; errors of `special.errors` are
    answered as what they are. Each request has a deadline, at which a method is cancelled.
    """

    async def locate(self, identifier: str) -> Entry | None:
        """Where an image is; None for one that other catalogues may know. Asked first, and remembered as they are."""
        return None

    async def authorise(self, caller: Caller, image: Entry) -> Verdict:
        """How much of an image one caller may see: `ALL`, `NOTHING`, `Verdict(400)` for sides up to 400 pixels.

        Rules, sizes files and catalogues hold as well; the strictest counts. Called for each request, before any
        cache: remember what is slow to find out. What depends on the caller is never `PUBLIC`: that lets shared
        caches keep the answer.
        """
        return PUBLIC

    async def describe(self, identifier: str, image: Entry, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Further properties of an info.json. They are the same for all callers, and replace none that it has."""
        return {}

    async def overlay(self, caller: Caller, image: Entry) -> Sequence[Mark]:
        """Pictures to draw over an image for one caller: `Mark(5, 90, 30, 5, text_picture("© A library"))`.

        Called as `authorise` is. No shared cache may keep any image then; what a mark touches is decoded and encoded
        for this caller, also where a stored tile or size would do for others.
        """
        return ()

    async def redact(self, caller: Caller, image: Entry) -> Sequence[Mark]:
        """Rectangles of an image that one caller may not see, and gets black: `Mark(10, 20, 5, 5)`.

        As `overlay`; drawn last. Of a master that others may read elsewhere, such as renditions in a bucket, it
        hides nothing there.
        """
        return ()

    async def close(self) -> None:
        """Let go of what was opened."""


_METHODS = ("locate", "authorise", "describe", "overlay", "redact")


def load_hooks(name: str) -> Hooks:
    """The hooks that `package.module:Class` names. Raises `ConfigurationError`."""
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"the hooks '{name}' cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Hooks)):
        raise ConfigurationError(f"the hooks '{name}' are no subclass of special.catalogue.Hooks")
    return found()


@lru_cache(64)
def text_picture(text: str, *, colour: str = "white", opacity: float = 0.6, height: int = 64) -> bytes:
    """A line of text on nothing, as the picture of a mark: a PNG of some KB, of that height in pixels.

    The mark stretches it: give it the width that goes with its height. Raises `ValueError` for a colour that is none.
    """
    from PIL import Image, ImageColor, ImageDraw, ImageFont

    font = ImageFont.load_default(height * 0.75)
    left, top, right, bottom = font.getbbox(text)
    picture = Image.new("RGBA", (max(1, math.ceil(right - left)), height))
    fill = (*ImageColor.getrgb(colour)[:3], round(255 * opacity))
    ImageDraw.Draw(picture).text((-left, (height - top - bottom) / 2), text, fill, font)
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


class GuardedHooks:
    """Hooks as the server calls them: only what is overridden, and with their errors told from our own."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._own = {name for name in _METHODS if getattr(type(hooks), name) is not getattr(Hooks, name)}

    @property
    def locates(self) -> bool:
        """Whether they know where images are."""
        return "locate" in self._own

    @property
    def describes(self) -> bool:
        """Whether they add to info.json."""
        return "describe" in self._own

    @property
    def judges(self) -> bool:
        """Whether they have a say in who may see what."""
        return not self._own.isdisjoint(("authorise", "overlay", "redact"))

    @property
    def name(self) -> str:
        return f"{type(self._hooks).__module__}:{type(self._hooks).__qualname__}"

    async def locate(self, identifier: str) -> Entry | None:
        return await self._guarded("locate", partial(self._hooks.locate, identifier), Entry, type(None))

    async def verdict(self, caller: Caller, image: Entry) -> Verdict:
        """How much of an image a caller may see, and what is drawn over it."""
        verdict = PUBLIC
        if "authorise" in self._own:
            verdict = await self._guarded("authorise", partial(self._hooks.authorise, caller, image), Verdict)
        for name in ("overlay", "redact"):
            if name in self._own:
                method = getattr(self._hooks, name)
                found: Sequence[Mark] = await self._guarded(name, partial(method, caller, image), Sequence)
                if not all(isinstance(mark, Mark) and (name == "overlay") == bool(mark.picture) for mark in found):
                    raise HookError(f"{self.name}.{name} returned no marks, with a picture or without as it should")
                # Also without marks: another caller may get some.
                verdict = replace(verdict, private=True, marks=(*verdict.marks, *found))
        return verdict

    async def describe(self, identifier: str, image: Entry, document: Mapping[str, Any]) -> Mapping[str, Any]:
        work = partial(self._hooks.describe, identifier, image, document)
        return await self._guarded("describe", work, Mapping)

    async def close(self) -> None:
        await self._hooks.close()

    async def _guarded(self, method: str, work: Callable[[], Awaitable[T]], *kinds: type) -> T:
        try:
            result = await work()
        except SpecialError:
            raise
        except Exception as error:
            log.exception("%s.%s failed", self.name, method)
            raise HookError(f"{self.name}.{method}: {type(error).__name__}: {error}") from error
        if not isinstance(result, kinds):
            raise HookError(f"{self.name}.{method} returned {result!r}, not {' or '.join(it.__name__ for it in kinds)}")
        return result


class HookKind:
    """The kind of catalogue that hooks with a `locate` are."""

    def __init__(self, hooks: GuardedHooks) -> None:
        self._hooks = hooks

    @property
    def name(self) -> str:
        return f"python {self._hooks.name}"

    async def locate(self, identifier: str, previous: Entry | None) -> Entry | None:
        return await self._hooks.locate(identifier)

    def identifiers(self, after: str = "") -> AsyncIterator[str] | None:
        return None

    async def identifiers_of(self, place: str) -> Sequence[str] | None:
        return None

    async def close(self) -> None:
        """The hooks are closed by the engine, which calls them too."""
