"""Making renditions: of one master, of a bucket of them, from a queue, on a cluster.

policy, candidates          which sizes; which masters
plan                        what must be done for one of them; pure
maker                       does it, foresees it, verifies it
fleet                       many at once, in bounded memory
events, mailbox, attend     from a queue of notifications
cluster                     in batches, on Dask
options, rooms              what a run is asked, and what it works with
progress, run               what the terminal shows; the exit code
"""

from special.derive.options import Task
from special.derive.run import Options, run

__all__ = ["Options", "Task", "run"]
