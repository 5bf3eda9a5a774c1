"""Waiting and sharing inside one process: caches, single flight, limits, queues, deadlines, background tasks, files."""

from special.concurrency.caches import LRUCache, StoreSilence, TTLCache
from special.concurrency.deadline import NEVER, Deadline
from special.concurrency.fair_queue import FairQueue
from special.concurrency.files import replace_file, temporary_file
from special.concurrency.keyed_tasks import KeyedTasks
from special.concurrency.limiter import KeyedLimiter, KeyState
from special.concurrency.pace import Pace
from special.concurrency.singleflight import SingleFlight
from special.concurrency.yielding import FairStart, yield_to_others

__all__ = [
    "NEVER",
    "Deadline",
    "FairQueue",
    "FairStart",
    "KeyState",
    "KeyedLimiter",
    "KeyedTasks",
    "LRUCache",
    "Pace",
    "SingleFlight",
    "StoreSilence",
    "TTLCache",
    "replace_file",
    "temporary_file",
    "yield_to_others",
]
