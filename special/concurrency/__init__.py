"""Waiting and sharing inside one process: caches, single flight, limits, queues, deadlines."""

from special.concurrency.caches import LRUCache, TTLCache
from special.concurrency.deadline import NEVER, Deadline
from special.concurrency.fair_queue import FairQueue
from special.concurrency.files import replace_file
from special.concurrency.limiter import KeyedLimiter, KeyState
from special.concurrency.singleflight import SingleFlight
from special.concurrency.yielding import FairStart, yield_to_others

__all__ = [
    "NEVER",
    "Deadline",
    "FairQueue",
    "FairStart",
    "KeyState",
    "KeyedLimiter",
    "LRUCache",
    "SingleFlight",
    "TTLCache",
    "replace_file",
    "yield_to_others",
]
