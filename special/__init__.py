"""An IIIF image server that serves digital libraries straight out of S3.

    from special import Settings, create_app

    app = create_app(Settings(source="s3://archive/masters", thumbs="s3://thumbs"))

Importing this package does nothing but name the version: no environment is read, no client is made, no codec is
loaded. What it offers besides is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from special.lazy_face import later
from special.version import __version__

if TYPE_CHECKING:
    from special.catalogue import Hooks
    from special.serving import Engine
    from special.settings import Settings
    from special.web import create_app

__all__ = ["Engine", "Hooks", "Settings", "__version__", "create_app"]

__getattr__ = later(
    __name__,
    {"serving": ("Engine",), "catalogue": ("Hooks",), "settings": ("Settings",), "web": ("create_app",)},
)
