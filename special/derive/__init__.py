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

from typing import TYPE_CHECKING

from special.derive.options import Options, Task
from special.derive.plan import Consent
from special.lazy_face import later

if TYPE_CHECKING:
    from special.derive.run import derive_images, forget_images

__all__ = ["Consent", "Options", "Task", "derive_images", "forget_images"]

__getattr__ = later(__name__, {"run": ("derive_images", "forget_images")})
