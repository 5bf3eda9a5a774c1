"""What a decoder can still do once it is ready, by this kernel; and by the program of its filter on any."""

from __future__ import annotations

import asyncio
import errno
import io
import re
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image
from prometheus_client import REGISTRY

from special.codecs import Encoding, pdf, render
from special.concurrency import NEVER
from special.formats import parse, solve
from special.geometry import Box, Size
from special.iiif import Job, OutputFormat
from special.observability import figures
from special.workers import Workers
from special.workers.sandbox import ARCHITECTURES, Architecture, Landlock, landlock_rights, seccomp_filter
from special.workers.system_calls import DENIED, NEEDED
from tests.support import jobs
from tests.support.pdfs import Page, Rectangle, document, written
from tests.support.pieces import encoded, smooth

pytestmark = pytest.mark.service

FIXTURES = Path(__file__).parents[2] / "fixtures"
ATTEMPTS = [
    "read a file",
    "write a file",
    "make a folder",
    "read the parent's environment",
    "open an internet socket",
    "open a local socket",
    "make a pair of sockets",
    "fork",
    "execute a program",
    "spawn a program",
    "signal the parent",
    "trace the parent",
    "read the parent's memory",
    "hold the parent by a descriptor",
    "limit the parent",
    "make a file in memory",
    "renice",
    "become another user",
    "type into a terminal",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers() -> AsyncIterator[Workers]:
    pdf.prepare()  # this process renders, too
    async with Workers(1, memory_bytes=4 << 30, spare=0, prepare=jobs.prepare) as pool:
        yield pool


def require(layer: str) -> None:
    """Skip, and say why, where this kernel does not have a layer."""
    if not figures()["decoders"]["sandbox"][layer]:
        pytest.skip(f"this kernel holds no decoder by {layer}: {figures()['decoders']['sandbox']}")


def status_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


@pytest.mark.asyncio(loop_scope="module")
async def test_each_layer_is_reported(workers: Workers) -> None:
    shown = figures()["decoders"]["sandbox"]
    assert shown.keys() == {"no_new_privs", "landlock", "seccomp", "limits"}
    assert shown["no_new_privs"] == shown["limits"] == 1, "any Linux has these"
    for layer, holds in shown.items():
        assert REGISTRY.get_sample_value("special_decoder_sandbox", {"layer": layer}) == holds
    (child,) = workers._jobs
    status = status_of(child.pid)
    assert "NoNewPrivs:\t1" in status
    assert ("Seccomp:\t2" in status) == bool(shown["seccomp"])


@pytest.mark.parametrize("name", ATTEMPTS)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_decoder_is_refused_what_it_does_not_need(workers: Workers, name: str) -> None:
    require("seccomp")
    assert await workers.run(jobs.attempt, name, deadline=NEVER) == "EPERM"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_decoder_may_start_threads(workers: Workers) -> None:
    assert await workers.run(jobs.threads, deadline=NEVER) == 4


ALONE = """
import os, socket, sys, tempfile
from special.workers import sandbox
file, _ = tempfile.mkstemp(dir=sys.argv[3])
sandbox._libc.prctl(38, 1, 0, 0, 0)
held = getattr(sandbox, sys.argv[1])()
try:
    exec(sys.argv[2])
    print("no" if not held else "gained")
except OSError as error:
    print("held" if held else "no", error.errno)
"""


@pytest.mark.parametrize(
    ("layer", "attempt", "refusal"),
    [
        pytest.param("_landlock", "open('/etc/passwd')", errno.EACCES, id="landlock, a file"),
        pytest.param("_landlock", "socket.create_connection(('127.0.0.1', 1))", errno.EACCES, id="landlock, a port"),
        pytest.param("_seccomp", "open('/etc/passwd')", errno.EPERM, id="seccomp, a file"),
        pytest.param("_limit", "[socket.socket() for _ in range(9)]", errno.EMFILE, id="limits, a descriptor"),
        pytest.param("_limit", "os.write(file, b'x')", errno.EFBIG, id="limits, a file"),
    ],
)
def test_each_layer_holds_by_itself(tmp_path: Path, layer: str, attempt: str, refusal: int) -> None:
    command = [sys.executable, "-c", ALONE, layer, attempt, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if done.stdout.startswith("no"):
        pytest.skip(f"this kernel has no {layer.removeprefix('_')}")
    assert done.stdout.split() == ["held", str(refusal)]


def test_a_process_that_forbids_inspection_is_not_dumpable() -> None:
    program = """
import ctypes
from special.workers import forbid_inspection
print(forbid_inspection(), ctypes.CDLL(None).prctl(3))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]


MASTERS = {it.name: it.read_bytes() for it in sorted(FIXTURES.glob("masters/*.*"))}
MASTERS |= {f"made.{kind}": encoded(smooth(300, 200), kind) for kind in ("avif", "bmp")}
MASTERS["made.pdf"] = written(document([Page([Rectangle(10, 20, 70, 30, (1, 0.5, 0))], written="A page")]))
JOBS: list[tuple[OutputFormat, str]] = [
    ("jpg", "default"),
    ("png", "gray"),
    ("webp", "default"),
    ("gif", "default"),
    ("tif", "bitonal"),
]


@pytest.mark.parametrize("name", MASTERS)
@pytest.mark.asyncio(loop_scope="module")
async def test_every_fixture_decodes_as_without_a_sandbox(workers: Workers, name: str) -> None:
    data = MASTERS[name]
    layout = solve(parse(len(data)), data)
    box = Box.whole(layout.size)
    size = Size(max(1, box.width // 5), max(1, box.height // 5))
    extract = layout.extract(box, size)
    piece = layout.rebuild(extract, [data[span.start : span.stop] for span in extract.spans])
    for output, quality in JOBS:
        job = Job(box, size, True, 30.0, quality, output)  # type: ignore[arg-type]
        made = await workers.run(render, piece, job, Encoding(), deadline=NEVER)
        assert made.data == (await asyncio.to_thread(render, piece, job, Encoding())).data
    # Its encoder makes other bytes, not other pictures, by several threads: only decoders are kept to one.
    job = Job(box, size, False, 0.0, "default", "avif")
    made = await workers.run(render, piece, job, Encoding(), deadline=NEVER)
    with Image.open(io.BytesIO(made.data)) as image:
        image.load()
        assert (image.format, image.size) == ("AVIF", (size.width, size.height))


LOAD, RETURN = 0x20, 0x06


def outcome(program: bytes, data: bytes) -> int:
    """What a program of classic BPF returns: an interpreter for the few steps that filters have."""
    steps = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        code, true, false, value = steps[at]
        at += 1
        if code == LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == RETURN:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += true if holds else false


def call(architecture: Architecture, number: int, argument: int = 0, *, audit: int | None = None) -> int:
    """What the filter of a process with the id 77 makes of one system call (struct seccomp_data)."""
    chosen = architecture.audit if audit is None else audit
    return outcome(seccomp_filter(architecture, 77), struct.pack("=IIQ6Q", number, chosen, 0, argument, *[0] * 5))


ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_filter_denies_just_what_is_listed(name: str) -> None:
    architecture = ARCHITECTURES[name]
    special = {architecture.number(it) for it in ("clone", "clone3", "tgkill", "prlimit64")}
    denied = set(architecture.denied)
    assert not denied & special
    for number in range(500):
        if number not in special:
            assert call(architecture, number) == (EPERM if number in denied else ALLOW), number
    assert call(architecture, architecture.number("clone"), 0x11) == EPERM, "a process"
    assert call(architecture, architecture.number("clone"), 0x3D0F00) == ALLOW, "a thread"
    assert call(architecture, architecture.number("clone3")) == ENOSYS
    assert call(architecture, architecture.number("tgkill"), 77) == ALLOW, "itself"
    assert call(architecture, architecture.number("tgkill"), 1) == EPERM
    assert call(architecture, architecture.number("prlimit64"), 0) == ALLOW, "itself"
    assert call(architecture, architecture.number("prlimit64"), 1) == EPERM
    assert call(architecture, 0x40000000 + 59) == EPERM, "x32"
    assert call(architecture, 0, audit=0x40000003) == KILL, "another kind of processor"


@pytest.mark.parametrize(
    ("column", "header"),
    [
        pytest.param(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", id="x86_64"),
        pytest.param(1, "/usr/include/asm-generic/unistd.h", id="aarch64"),
    ],
)
def test_the_numbers_are_those_of_the_kernels_headers(column: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"there is no {header}")
    lines = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text(), re.MULTILINE)
    known = {name: int(number) for name, number in lines}
    listed = {name: numbers[column] for name, numbers in (NEEDED | DENIED).items()}
    if "fchmodat2" not in known:  # headers before Linux 6.6
        del listed["fchmodat2"]
    assert listed == {name: known.get(name) for name in listed}


@pytest.mark.parametrize(
    ("version", "rights"),
    [
        (1, Landlock(0x1FFF, 0, 0)),
        (2, Landlock(0x3FFF, 0, 0)),
        (3, Landlock(0x7FFF, 0, 0)),
        (4, Landlock(0x7FFF, 3, 0)),
        (5, Landlock(0xFFFF, 3, 0)),
        (6, Landlock(0xFFFF, 3, 3)),
        (9, Landlock(0xFFFF, 3, 3)),
    ],
)
def test_landlock_refuses_all_that_its_version_can(version: int, rights: Landlock) -> None:
    assert landlock_rights(version) == rights
