"""What only an optional package decodes: refused by name where it is not installed."""

from __future__ import annotations

import importlib.util

from special.errors import Unsupported


def require_imagecodecs(what: str) -> None:
    """Raise `Unsupported` unless the package imagecodecs is installed, which decodes `what`."""
    if importlib.util.find_spec("imagecodecs") is None:
        raise Unsupported(f"{what} needs a package that is not installed: pip install 'special-iiif[imagecodecs]'")
