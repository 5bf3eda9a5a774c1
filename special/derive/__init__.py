"""Making renditions: of one master, of a bucket of them, from a queue, on a cluster.

policy, inputs              which sizes; which masters
plan                        what must be done for one of them; pure
generator                   does it, estimates it, verifies it
concurrency                 many at once, in bounded memory
events, sqs, queue_worker   from a queue of notifications
cluster                     in batches, on Dask
takedown                    what is ours of an image goes, everywhere
options, resources          what a run is asked, and what it works with
outcome, progress, run      what became of each image; what the terminal shows; the exit code

`run` knows the settings; it is imported at its first use, so that planning needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from special.derive.options import Options, Task
from special.derive.plan import Consent

if TYPE_CHECKING:
    from special.derive.run import derive_images, forget_images

__all__ = ["Consent", "Options", "Task", "derive_images", "forget_images"]


def __getattr__(name: str) -> object:
    if name not in ("derive_images", "forget_images"):
        raise AttributeError(f"module 'special.derive' has no attribute '{name}'")
    return getattr(import_module("special.derive.run"), name)
