"""The stores of masters and renditions, each behind the `Source` protocol."""

from typing import TYPE_CHECKING

from special.lazy_face import later
from special.storage.blob import Absent, Blob, Chunk, NotModified, Span, Suffix, Unless
from special.storage.ranges import coalesce, read_spans, runs_of
from special.storage.source import Opened, Reader, Source, Tree, body

if TYPE_CHECKING:
    from special.storage.bucket import Bucket
    from special.storage.local import Folder
    from special.storage.opening import SCHEMES, check_source, folder_path, learning_absence, open_source
    from special.storage.overlap import check_apart
    from special.storage.retry import RetryPolicy
    from special.storage.s3_options import S3Options
    from special.storage.sources import Sources, with_endpoint

__all__ = [
    "SCHEMES",
    "Absent",
    "Blob",
    "Bucket",
    "Chunk",
    "Folder",
    "NotModified",
    "Opened",
    "Reader",
    "RetryPolicy",
    "S3Options",
    "Source",
    "Sources",
    "Span",
    "Suffix",
    "Tree",
    "Unless",
    "body",
    "check_apart",
    "check_source",
    "coalesce",
    "folder_path",
    "learning_absence",
    "open_source",
    "read_spans",
    "runs_of",
    "with_endpoint",
]

__getattr__ = later(
    __name__,
    {
        "bucket": ("Bucket",),
        "local": ("Folder",),
        "opening": ("SCHEMES", "check_source", "folder_path", "learning_absence", "open_source"),
        "overlap": ("check_apart",),
        "retry": ("RetryPolicy",),
        "s3_options": ("S3Options",),
        "sources": ("Sources", "with_endpoint"),
    },
)
