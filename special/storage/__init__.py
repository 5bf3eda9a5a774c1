"""The places that masters and renditions live in, each behind the `Source` protocol."""

from special.storage.bucket import Bucket
from special.storage.local import Folder
from special.storage.opening import SCHEMES, check_source, open_source
from special.storage.retry import RetryPolicy

__all__ = ["SCHEMES", "Bucket", "Folder", "RetryPolicy", "check_source", "open_source"]
