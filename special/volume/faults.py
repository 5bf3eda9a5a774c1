"""Faults of the local disk: bypassed, counted, and logged once in a while.

The volume only makes things faster, so none of its faults may fail a request or change a
byte. They all come through here, and no other exception is ever swallowed.
"""

from __future__ import annotations

import logging
import sqlite3
from time import monotonic
from typing import Literal

from special.observability import VOLUME_FAULTS

Kind = Literal["open", "ledger", "read", "write", "corrupt", "full", "locked", "slow"]
"""`full`: all space is in use. `locked`: another process did not finish in time. `slow`: the disk did not.

The others name what was being done."""

FAULTS = (OSError, sqlite3.Error)
"""What a disk and a database raise."""

LOG_EVERY_S = 60.0

_log = logging.getLogger("special.volume")
_logged_s: dict[Kind, float] = {}


def record_fault(kind: Kind, reason: object, count: int = 1) -> None:
    """Count a fault that no request will notice, and log it unless that was done lately."""
    VOLUME_FAULTS.labels(kind).inc(count)
    now = monotonic()
    if now - _logged_s.get(kind, -LOG_EVERY_S) >= LOG_EVERY_S:
        _logged_s[kind] = now
        _log.warning("volume passed by (%s): %s", kind, str(reason))  # an exception refers to open files
