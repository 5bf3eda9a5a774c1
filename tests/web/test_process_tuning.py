"""A server process keeps what it has freed, and what will never be garbage out of sight."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.service

ANSWERS = """
import gc, resource
from special.web.process_tuning import tune

def taken() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):  # what comes from a decoder, and its copy
        received = bytearray(1_300_000)
        bytes(received)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

tune()
first, again = taken(), taken()
print(gc.get_freeze_count() > 1000, first, again)
"""


def test_large_answers_take_no_new_memory_after_the_first() -> None:
    """Counted in pages that the kernel had to find; a thousand for each pair of copies otherwise."""
    frozen, first, again = subprocess.check_output([sys.executable, "-c", ANSWERS], text=True).split()
    assert frozen == "True"
    assert int(first) < 1500
    assert int(again) < 100
