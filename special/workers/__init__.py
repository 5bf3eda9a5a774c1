"""Decoder processes: pixels are worked on where a crash, a hang or a bomb costs one job only.

    async with Workers(count, memory_bytes=...) as workers:
        rendered = await workers.run(render, piece, job, encoding, deadline=Deadline.after(10.0))

A codec may crash on a bad file, loop in it, or ask for all the memory there is, and a thread inside
one cannot be stopped. So codecs run in child processes, started by spawn (libvips and obstore hang
in forked ones), in a sandbox, without credentials, killed at the deadline and replaced. A pool of
`concurrent.futures` does not fit: one death breaks all of it.
"""

from typing import TYPE_CHECKING

from special.lazy_face import later

if TYPE_CHECKING:
    from special.workers.admission import Admission, AdmissionController
    from special.workers.lanes import Lane, standard_lanes
    from special.workers.pool import Talk, Workers
    from special.workers.process import Begun, begin
    from special.workers.sandbox import forbid_inspection

__all__ = [
    "Admission",
    "AdmissionController",
    "Begun",
    "Lane",
    "Talk",
    "Workers",
    "begin",
    "forbid_inspection",
    "standard_lanes",
]

__getattr__ = later(
    __name__,
    {
        "admission": ("Admission", "AdmissionController"),
        "lanes": ("Lane", "standard_lanes"),
        "pool": ("Talk", "Workers"),
        "process": ("Begun", "begin"),
        "sandbox": ("forbid_inspection",),
    },
)
