"""A server process keeps what it has freed, what will never be garbage out of sight, and asks for a short slice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from special.web.process_tuning import SLICE_NS

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


SLICES = """
import os, sys
from special.web.process_tuning import tune
from tests.support.jobs import slice_ns

os.nice(3)
if sys.argv[1] == "batch":
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
before = slice_ns()
tune()
print(slice_ns() - before if sys.argv[1] == "batch" else slice_ns(), os.sched_getscheduler(0), os.nice(0))
"""


@pytest.mark.parametrize("policy", ["usual", "batch"])
def test_it_asks_for_a_short_slice_unless_it_was_given_another_policy(policy: str) -> None:
    """Kernels that know of no slices take the wish and forget it."""
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    command = [sys.executable, "-c", SLICES, policy]
    found = subprocess.check_output(command, text=True).split()
    short = SLICE_NS if release >= (6, 12) else 0
    expected = (short, os.SCHED_OTHER) if policy == "usual" else (0, os.SCHED_BATCH)
    assert tuple(map(int, found)) == (*expected, min(19, os.nice(0) + 3))
