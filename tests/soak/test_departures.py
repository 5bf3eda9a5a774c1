"""P3: whoever leaves, dies or fails harms nobody else, and a failure is never shared as a success."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import pytest

from special.errors import Busy
from special.geometry import Box
from special.storage.blob import Blob, Span
from special.volume.blocks import BlockMap
from special.volume.directory import VolumeDirectory
from tests.soak.conftest import Library
from tests.soak.crowd import ask, ask_again, asked, at_once
from tests.soak.noise import Noise, address
from tests.soak.proxy import Held, Refused, blocks_got
from tests.soak.viewers import metric
from tests.support import processes
from tests.support.waiting import LONGEST_S, until

REGION = Box(100, 100, 128, 128)


def left_over(volume: Path, name: str) -> list[str]:
    """Locks on the blocks of a master, and reservations for it."""
    directory, found = VolumeDirectory(volume, at=lambda step: None), []
    directory.join(None)
    try:
        for entry in directory.ledger.objects():
            if entry.url.endswith(f"/{name}"):
                blocks = BlockMap.of(Blob("", entry.url, entry.etag, entry.size_bytes), directory.terms.block_bytes)
                files = directory.find(blocks)
                assert files is not None
                wanted = list(blocks.indices(Span(0, blocks.size_bytes)))
                found += [f"lock on block {index}" for index in set(wanted) - set(files.lock_blocks(wanted))]
                files.close()
                found += [f"reservation {hold}" for hold, _, of in directory.ledger.reservations() if of == blocks.name]
    finally:
        directory.leave()
    return found


async def decoders_up(library: Library) -> int:
    """How many decoders there are, once there are two servers and the metric counts just theirs."""
    async with asyncio.timeout(60):
        while True:
            servers = processes.servers(library.server.process.pid)
            counts = [len(processes.children(server)) for server in servers]
            if len(counts) == 2 and all(counts) and await metric(library.url, "special_decoders_up") == sum(counts):
                return sum(counts)
            await asyncio.sleep(0.1)


async def test_nine_hundred_ninety_nine_are_answered_when_the_first_leaves(library: Library) -> None:
    master = Noise(3)
    name = library.put(master.jpeg_file)
    held = Held()
    library.between.choose = lambda exchange: held if exchange.key == name and exchange.match else None
    path = f"/iiif/3/{name}/0,0,256,256/max/0/default.jpg"
    async with asked(library.url, path):
        await until(lambda: library.pinned(name) != [])
        others = asyncio.create_task(at_once(library.url, [path] * 999))
        async with asyncio.timeout(LONGEST_S):  # others wait for the same read before the first leaves
            while await metric(library.url, "special_tasks") < 300:  # noqa: ASYNC110  another process
                await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)
    held.released.set()
    replies = await others
    assert Counter(reply.status for reply in replies) == {200: 999}
    assert len({reply.body for reply in replies}) == 1
    assert set(blocks_got(library.pinned(name), library.block_bytes).values()) == {1}


async def test_nothing_is_left_two_seconds_after_all_have_left(library: Library) -> None:
    master = Noise(4)
    name, held = library.put(master.file), Held()
    library.between.choose = lambda exchange: held if exchange.key == name and exchange.match else None
    async with AsyncExitStack() as crowd:
        for _ in range(100):
            await crowd.enter_async_context(asked(library.url, address(name, REGION)))
        await until(lambda: library.pinned(name) != [])
    left_s = monotonic()
    await until(lambda: library.between.running == [])
    stopped_s = monotonic() - left_s
    print(f"\nthe last read stopped {stopped_s:.1f} s after the last client had left")
    await until(lambda: left_over(library.volume, name) == [])
    assert stopped_s < 5  # 1 s of it is meant: somebody may come back
    assert {each.sent_bytes for each in library.pinned(name)} == {0}
    held.released.set()
    reply = await ask_again(library.url, address(name, REGION))
    assert master.shows(REGION, reply.body)


async def test_a_killed_process_harms_only_its_own_clients(library: Library) -> None:
    supervisor = library.server.process.pid
    up = await decoders_up(library)
    master, held = Noise(5), Held()
    name = library.put(master.file)
    library.between.choose = lambda exchange: held if exchange.key == name and exchange.match else None
    crowd = [asyncio.create_task(ask_again(library.url, address(name, REGION))) for _ in range(40)]
    await until(lambda: library.pinned(name) != [])
    await asyncio.sleep(1)  # for the other process to have clients, and to wait for the first one
    leader = processes.owner_of_port(supervisor, library.pinned(name)[0].client_port)
    assert leader in processes.servers(supervisor)
    decoders = processes.children(leader)
    before, killed_s = len(library.pinned(name)), monotonic()
    os.kill(leader, signal.SIGKILL)
    held.released.set()
    library.between.choose = lambda exchange: None
    replies = await asyncio.gather(*crowd)
    assert all(master.shows(REGION, reply.body) for reply in replies)
    assert sum(reply.broken > 0 for reply in replies) < len(replies), "all clients were the killed one's"
    taken_over = library.pinned(name)[before]
    print(f"\ntaken over after {taken_over.arrived_s - killed_s:.2f} s")
    assert taken_over.arrived_s - killed_s < 4  # a leader that hangs is waited for longer
    assert max(blocks_got(library.pinned(name), library.block_bytes).values()) <= 2
    await until(lambda: not any(processes.lives(each) for each in decoders))
    # Its supervisor starts another one, and the decoders of the dead are not counted any more.
    assert await decoders_up(library) == up
    assert leader not in processes.servers(supervisor)
    assert left_over(library.volume, name) == []


@pytest.mark.parametrize(
    ("refusal", "status", "tries"),
    [pytest.param(Refused(), 503, 4, id="throttled"), pytest.param(Refused(403, "AccessDenied"), 502, 1, id="denied")],
)
async def test_all_get_the_same_error_and_the_next_one_tries_again(
    library: Library, refusal: Refused, status: int, tries: int
) -> None:
    master = Noise(6)
    name = library.put(master.file)
    library.between.choose = lambda exchange: refusal if exchange.key == name and exchange.match else None
    replies = await asyncio.gather(*(ask(library.url, address(name, REGION)) for _ in range(50)))
    told = [reply for reply in replies if reply.body.decode() != f"{Busy.sentence}\n"]  # nobody waits longer than that
    assert len(told) > 25
    assert {(reply.status, reply.body) for reply in told} == {(status, told[0].body)}
    spans = Counter(each.span for each in library.pinned(name))
    # Each of two processes asks for itself, and again for those who were let in later; each may be refused so often.
    assert max(spans.values()) <= 4 * tries
    # 0: nobody waited for it any more, and it was broken off before the refusal was sent.
    assert {each.status for each in library.pinned(name)} <= {refusal.status, 0}
    library.between.choose = lambda exchange: None
    await asyncio.sleep(1)  # longer than a failure is remembered
    assert master.shows(REGION, (await ask(library.url, address(name, REGION))).body)
