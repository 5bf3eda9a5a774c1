"""A bucket of many masters: the command goes through all of it at one rate, in the same memory at its end as at first.

python -m pytest -m long -s tests/derive/test_scale.py      100,000 masters; prints what they cost
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from PIL import Image

from special.storage import open_source
from tests.support import processes, servers
from tests.support.servers import S3Server

pytestmark = pytest.mark.service

MANY, FEW = 100_000, 300
UPLOADS_AT_ONCE = 32
GROWTH_BYTES = 32 << 20
"""What the last nine tenths of a run may add to what the first tenth took."""


@dataclass(frozen=True)
class Run:
    """What one run of the command did."""

    results: Counter[str]
    peaks: dict[int, int]
    """Peak memory of all its processes together in bytes, by how much of the work was done then, in per cent."""
    summary: str


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with servers.seaweed(tmp_path_factory.mktemp("seaweed"), audited=False) as server:
        yield server


async def fill(bucket: str, count: int) -> None:
    """Small masters, a thousand to a folder."""
    file = io.BytesIO()
    Image.effect_noise((48, 32), 50).save(file, "JPEG")
    source, turns = open_source(f"s3://{bucket}"), asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def put(number: int) -> None:
        async with turns:
            await source.write(f"{number // 1000:03}/{number:06}.jpg", file.getvalue(), media="image/jpeg")

    for start in range(0, count, 1000):
        async with asyncio.TaskGroup() as group:
            for number in range(start, min(start + 1000, count)):
                group.create_task(put(number))
    await source.close()


def derive(masters: str, thumbs: str, *options: str, count: int) -> Run:
    """One run, watched while it goes."""
    command = [sys.executable, "-m", "special", "derive", f"s3://{masters}", "--thumbs", f"s3://{thumbs}"]
    results: Counter[str] = Counter()
    peaks: dict[int, int] = {}
    with subprocess.Popen(
        [*command, "--sizes", "32", "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        for number, line in enumerate(process.stdout, 1):
            results[json.loads(line)["result"]] += 1
            if number * 10 % count == 0:
                peaks[number * 100 // count] = processes.peak_bytes(process.pid)
        summary = process.stderr.read()
    assert process.returncode == 0, summary
    return Run(results, peaks, summary.splitlines()[-1])


async def go_through(s3: S3Server, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    masters, thumbs = s3.bucket(), s3.bucket()
    await fill(masters, count)
    for options, result in ((("--plan",), "due"), ((), "made"), (("--plan",), "stood"), ((), "stood")):
        run = derive(masters, thumbs, *options, count=count)
        early, most = run.peaks[10], max(run.peaks.values())  # at the very end some processes have gone
        peaks = f"{early >> 20} MiB at 10 %, {most >> 20} MiB at most"
        print(f"\n{' '.join(('derive', *options))} on {os.cpu_count()} cores: {run.summary} Peak memory: {peaks}.")
        assert run.results == {result: count}
        assert most <= early + GROWTH_BYTES


@pytest.mark.service
async def test_a_bucket_of_hundreds(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await go_through(store, FEW, monkeypatch)


@pytest.mark.long
async def test_a_bucket_of_a_hundred_thousand(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await go_through(store, MANY, monkeypatch)
