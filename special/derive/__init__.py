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
"""

from special.derive.options import Task
from special.derive.plan import Consent
from special.derive.run import Options, forget, run

__all__ = ["Consent", "Options", "Task", "forget", "run"]
