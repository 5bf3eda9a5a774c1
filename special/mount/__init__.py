"""A source as a read-only file system: files of a bucket for programs that know nothing of one, through the volume.

    kernel ── protocol ── session ── filesystem ── volume ── source
                             └ nodes      └ names, read_ahead

A file is one version of one object: its bytes, its length and the kernel's own cache of it never mix with another's.
Linux only. `special/docs/mount.md` tells how to run it.
"""

from special.mount.daemon import in_background
from special.mount.run import MountOptions, run

__all__ = ["MountOptions", "in_background", "run"]
