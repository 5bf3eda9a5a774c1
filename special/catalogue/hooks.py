"""The operator's own code: a class whose methods say where images are, who may see them, and what is said of them.

    from special.catalogue import NOTHING, PUBLIC, Caller, Entry, Hooks, Verdict

    class Library(Hooks):
        async def locate(self, identifier: str) -> Entry | None:
            return Entry((f"s3://archive/{identifier}.tif",))

        async def authorise(self, caller: Caller, image: Entry) -> Verdict:
            return PUBLIC if caller.address.startswith("10.") else NOTHING

The setting `hooks = "package.module:Library"` names it. Every server process makes one object of it, in its event loop.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from special.catalogue.entry import Entry
from special.errors import ConfigurationError, HookError, SpecialError
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

    async def close(self) -> None:
        """Let go of what was opened."""


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


class GuardedHooks:
    """Hooks as the server calls them: only what is overridden, and with their errors told from our own."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.locates, self.authorises, self.describes = (
            getattr(type(hooks), name) is not getattr(Hooks, name) for name in ("locate", "authorise", "describe")
        )

    @property
    def name(self) -> str:
        return f"{type(self._hooks).__module__}:{type(self._hooks).__qualname__}"

    async def locate(self, identifier: str) -> Entry | None:
        return await self._guarded("locate", partial(self._hooks.locate, identifier), Entry, type(None))

    async def authorise(self, caller: Caller, image: Entry) -> Verdict:
        return await self._guarded("authorise", partial(self._hooks.authorise, caller, image), Verdict)

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

    async def identifiers_of(self, url: str) -> Sequence[str]:
        return ()

    async def close(self) -> None:
        """The hooks are closed by the engine, which calls them too."""
