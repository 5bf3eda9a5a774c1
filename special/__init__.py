"""An IIIF image server that serves digital libraries straight out of S3.

    from special import Settings, create_app

    app = create_app(Settings(source="s3://archive/masters", thumbs="s3://thumbs"))

Importing this package does nothing but name the version: no environment is read, no client is made, no codec is
loaded. What it offers besides is imported at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from special.version import __version__

if TYPE_CHECKING:
    from special.catalogue import Hooks
    from special.serving import Engine
    from special.settings import Settings
    from special.web import create_app

__all__ = ["Engine", "Hooks", "Settings", "__version__", "create_app"]

_OFFERED = {
    "Engine": "special.serving",
    "Hooks": "special.catalogue",
    "Settings": "special.settings",
    "create_app": "special.web",
}


def __getattr__(name: str) -> object:
    if name not in _OFFERED:
        raise AttributeError(f"module 'special' has no attribute '{name}'")
    return getattr(import_module(_OFFERED[name]), name)
