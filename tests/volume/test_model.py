"""Everything at once, in any order: two servers on one directory against a plain dict.

Every read must give the bytes of the version that it pins, or the error that the source gives
for it; and whatever happens, the directory stays within its size.
"""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from special.errors import Changed, Missing
from special.storage.blob import Blob, Span
from special.volume import Volume, clear, verify
from special.volume.directory import Step
from tests.support.waiting import until
from tests.volume.made import Made, blob, expected, taken_bytes

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 128 * KIB
SIZES = {"a": 1, "b": BLOCK, "c": 2 * MIB, "d": 3 * MIB - 1, "e": 2 * MIB, "f": 2 * MIB + 77, "g": 40 * MIB}

keys = st.sampled_from(sorted(SIZES))
steps: st.SearchStrategy[Step] = st.sampled_from(
    ["admit", "create", "reserve", "write", "publish", "settle", "evict", "strike"]
)
servers = st.integers(0, 1)


class Died(OSError):
    """From here on nothing that this server does reaches the disk."""


class Trouble:
    """What happens to one server's disk."""

    def __init__(self) -> None:
        self.dies_at: Step | None = None
        self.dead = False
        self.fails: list[Step] = []

    def __call__(self, step: Step) -> None:
        if self.dead or step == self.dies_at:
            self.dead = True
            raise Died(5, "died")
        if step in self.fails:
            self.fails.remove(step)
            raise OSError(28, "No space left on device")


class TwoServers(RuleBasedStateMachine):
    """Two volumes on one directory, in one process: their locks exclude each other as if in two."""

    @initialize(size=st.sampled_from([8 * MIB, 12 * MIB]))
    def start(self, size: int) -> None:
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="special-model-"))
        self.size = size
        self.source = Made(dict.fromkeys(SIZES, 1))
        self.versions = dict.fromkeys(SIZES, 1)
        self.open_both()

    def open_both(self) -> None:
        self.troubles = [Trouble(), Trouble()]
        self.volumes = [self.opened(trouble) for trouble in self.troubles]

    def opened(self, trouble: Trouble) -> Volume:
        volume = Volume(
            self.directory,
            size_bytes=self.size,
            block_bytes=BLOCK,
            failure_memory_s=0.0,
            leader_timeout_s=0.5,
            at=trouble,
        )
        self.runner.run(volume.open())
        assert volume.broken is None
        return volume

    def close_both(self) -> None:
        for volume in self.volumes:
            self.runner.run(volume.close())

    @rule(
        server=servers,
        key=keys,
        behind=st.sampled_from([0, 0, 0, 1]),
        parts=st.lists(st.tuples(st.floats(0, 0.99), st.sampled_from([1, 5 * KIB, MIB])), min_size=1, max_size=3),
    )
    def read(self, server: int, key: str, behind: int, parts: list[tuple[float, int]]) -> None:
        of = blob(key, SIZES[key], max(1, self.versions[key] - behind))
        starts = [(int(of.size * part), length) for part, length in parts]
        self.check([(server, of, [Span(start, min(of.size, start + length)) for start, length in starts])])

    @rule(server=servers)
    def read_everything(self, server: int) -> None:
        for key in "abcdef":
            of = blob(key, SIZES[key], self.versions[key])
            self.check([(server, of, [Span.whole(of)])])

    @rule(many=st.lists(st.tuples(servers, keys, st.integers(0, 2)), min_size=2, max_size=8))
    def read_at_once(self, many: list[tuple[int, str, int]]) -> None:
        reads = []
        for server, key, third in many:
            of = blob(key, SIZES[key], self.versions[key])
            start = of.size * third // 3
            reads.append((server, of, [Span(start, start + max(1, min(of.size // 3, MIB)))]))
        self.check(reads)

    def check(self, reads: list[tuple[int, Blob, list[Span]]]) -> None:
        """Read all at once; each gets the bytes that it pins, or the source's error; then let all writing end."""

        async def read() -> list[list[bytes] | BaseException]:
            readers = [volume.reader(self.source) for volume in self.volumes]
            answers = await asyncio.gather(
                *(readers[server].read(of, spans) for server, of, spans in reads), return_exceptions=True
            )
            await until(lambda: all(each.idle for volume in self.volumes for each in volume.objects))
            return answers

        for (_, of, spans), answer in zip(reads, self.runner.run(read()), strict=True):
            current = self.source.current.get(of.key)
            if isinstance(answer, Missing):
                assert current is None
            elif isinstance(answer, Changed):
                assert of.etag != f'"{current}"'
            else:
                assert answer == expected(of, spans)

    @rule(key=keys)
    def overwrite(self, key: str) -> None:
        self.versions[key] += 1
        self.source.current[key] = self.versions[key]

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.source.current.pop(key, None)

    @rule(key=st.one_of(st.none(), keys))
    def evict(self, key: str | None) -> None:
        clear(self.directory, None if key is None else [blob(key, 1).url])

    @rule(server=servers, step=steps)
    def crash_soon(self, server: int, step: Step) -> None:
        self.troubles[server].dies_at = step

    @rule()
    def start_again(self) -> None:
        for server, trouble in enumerate(self.troubles):
            if trouble.dead:
                self.runner.run(self.volumes[server].close())
                self.troubles[server] = Trouble()
                self.volumes[server] = self.opened(self.troubles[server])

    @rule(size=st.sampled_from([8 * MIB, 10 * MIB, 16 * MIB]))
    def resize(self, size: int) -> None:
        self.close_both()
        self.size = size
        self.open_both()

    @rule(server=servers, fails=st.lists(steps, max_size=4))
    def fault(self, server: int, fails: list[Step]) -> None:
        self.troubles[server].fails = fails

    @rule(
        kind=st.sampled_from(["flip", "hole", "truncate", "remove"]),
        name=st.sampled_from(["map", "data"]),
        part=st.floats(0, 0.99),
        server=servers,
    )
    def corrupt(self, kind: str, name: str, part: float, server: int) -> None:
        for file in self.directory.glob(f"objects/*/*/{name}"):
            at = int(file.stat().st_size * part)
            match kind:
                case "remove":
                    file.unlink()
                case "truncate":
                    os.truncate(file, at)
                case _:
                    with file.open("r+b") as opened:
                        opened.seek(at)
                        old = opened.read(BLOCK)
                        opened.seek(at)
                        opened.write(bytes(len(old)) if kind == "hole" else bytes(byte ^ 4 for byte in old[:1]))
        self.read_everything(server)

    @rule()
    def verify(self) -> None:
        verify(self.directory)

    @rule()
    def let_maintenance_pass(self) -> None:
        async def maintain() -> None:
            for volume in self.volumes:
                for each in volume.objects:
                    if each.idle:
                        each.files.release()

        self.runner.run(maintain())

    @invariant()
    def the_size_holds(self) -> None:
        assert taken_bytes(self.directory) <= self.size

    @invariant()
    def nothing_is_left_running(self) -> None:
        assert self.source.running == 0

    def teardown(self) -> None:
        if hasattr(self, "volumes"):
            self.close_both()
            self.runner.close()
            shutil.rmtree(self.directory)


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        TwoServers,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_the_model_holds() -> None:
    run(examples=10, steps=25)


@pytest.mark.long
def test_the_model_holds_for_long() -> None:
    run(examples=500, steps=50)
