"""What only an optional package decodes: refused by name where it is not installed."""

from __future__ import annotations

import importlib.util
from typing import Final, Literal

from special.errors import Unsupported

Extra = Literal["imagecodecs", "pdf"]
_MODULES: Final[dict[Extra, str]] = {"imagecodecs": "imagecodecs", "pdf": "pypdfium2_raw"}
"""By the name of the extra."""


def has_extra(extra: Extra) -> bool:
    """Whether the package of an extra is installed."""
    return importlib.util.find_spec(_MODULES[extra]) is not None


def require_extra(extra: Extra, what: str) -> None:
    """Raise `Unsupported` unless the package of an extra is installed, which decodes `what`.

    Parsers ask, so that a master is refused before any of its pixels is read, and decoders: a layout may have been
    stored by a machine that has the package.
    """
    if not has_extra(extra):
        raise Unsupported(f"{what} needs a package that is not installed: pip install 'special-iiif[{extra}]'")
