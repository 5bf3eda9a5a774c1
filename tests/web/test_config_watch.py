"""Rules are read again while the server runs, and only whole ones are used."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from PIL import Image

from special.errors import ConfigurationError
from special.settings import load, with_rules_of
from special.web.config_watch import ConfigWatch
from tests.conftest import Serve
from tests.support import processes
from tests.support.live import LiveServer

RULE = '[[rules]]\nidentifiers = "{}"\nmax_unauthorised = 0\n'


@dataclass
class Bench:
    """A watch of a file whose text is its value, and a clock that stands still."""

    path: Path
    now_s: float = 100.0
    reads: int = 0
    used: list[str] = field(default_factory=list)

    def read(self) -> str:
        self.reads += 1
        text = self.path.read_text()
        if "broken" in text:
            raise ConfigurationError(f"it says {text}")
        return text

    def watch(self) -> ConfigWatch[str]:
        watch = ConfigWatch(self.path, self.read, self.used.append, clock=lambda: self.now_s)
        watch.reload()
        return watch

    def looks(self, watch: ConfigWatch[str], times: int) -> None:
        for _ in range(times):
            self.now_s += 1
            watch.check()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    path = tmp_path / "special.toml"
    path.write_text("first")
    return Bench(path)


def test_a_file_that_stands_is_read_once(bench: Bench) -> None:
    bench.looks(bench.watch(), 5)
    assert (bench.used, bench.reads) == (["first"], 1)


def test_a_changed_file_is_read_once_when_two_looks_found_it_the_same(bench: Bench) -> None:
    watch = bench.watch()
    bench.path.write_text("half")
    bench.looks(watch, 1)
    bench.path.write_text("half of it")
    bench.looks(watch, 1)
    assert bench.used == ["first"]
    bench.looks(watch, 4)
    assert (bench.used, bench.reads) == (["first", "half of it"], 2)


def test_a_file_of_the_same_size_and_time_in_its_place_is_another(bench: Bench) -> None:
    watch = bench.watch()
    was = bench.path.stat()
    other = bench.path.with_name("other")
    other.write_text("fir5t")
    os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns))
    other.replace(bench.path)
    bench.looks(watch, 2)
    assert bench.used == ["first", "fir5t"]


def test_it_looks_at_most_once_a_second(bench: Bench) -> None:
    watch = bench.watch()
    bench.looks(watch, 1)
    bench.path.write_text("second")
    for _ in range(9):
        bench.now_s += 0.1
        watch.check()
    bench.looks(watch, 1)
    assert bench.used == ["first"]
    bench.looks(watch, 1)
    assert bench.used == ["first", "second"]


def test_after_a_broken_file_the_last_value_stays_and_the_log_says_so_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    watch = bench.watch()
    bench.path.write_text("broken")
    bench.looks(watch, 6)
    assert (bench.used, bench.reads) == (["first"], 2)
    assert [it.getMessage() for it in caplog.records] == [
        "the rules stay as they are, the new configuration cannot be used: it says broken"
    ]
    bench.path.write_text("mended")
    bench.looks(watch, 2)
    assert bench.used == ["first", "mended"]


def test_a_file_that_is_gone_leaves_the_last_value_until_it_is_back(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    watch = bench.watch()
    bench.path.unlink()
    bench.looks(watch, 6)
    assert bench.used == ["first"]
    assert len(caplog.records) == 1
    bench.path.write_text("again")
    bench.looks(watch, 2)
    assert bench.used == ["first", "again"]


async def test_at_sighup_a_file_is_read_at_once(bench: Bench) -> None:
    read = asyncio.Event()
    loop = asyncio.get_running_loop()

    def use(text: str) -> None:
        bench.used.append(text)
        loop.call_soon_threadsafe(read.set)

    watch = ConfigWatch(bench.path, bench.read, use, clock=lambda: bench.now_s)
    async with watch.running():
        assert bench.used == ["first"]
        read.clear()
        bench.path.write_text("second")
        os.kill(os.getpid(), signal.SIGHUP)
        await read.wait()
    assert bench.used == ["first", "second"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(RULE.format("a") + RULE.format("b"), (["a", "b"], ("reader",)), id="rules"),
        pytest.param('default_roles = ["x"]\n', ([], ("x",)), id="roles"),
        pytest.param(
            'port = 9\nsource = "other"\n' + RULE.format("a"), (["a"], ("reader",)), id="and no other setting"
        ),
    ],
)
def test_only_rules_and_default_roles_are_read_again(
    tmp_path: Path, text: str, expected: tuple[list[str], tuple[str, ...]]
) -> None:
    config = tmp_path / "special.toml"
    config.write_text('port = 1\nhost = "::1"\n' + RULE.format("old"))
    chosen = load(config, source="masters", workers=2)
    config.write_text(text)
    found = with_rules_of(config, chosen)
    assert ([it.identifiers for it in found.rules], found.default_roles) == expected
    assert found.model_dump(exclude={"rules", "default_roles"}) == chosen.model_dump(exclude={"rules", "default_roles"})


@pytest.mark.parametrize(
    "text",
    ["[[rules]\n", "[[rules]]\nmax_unauthorised = 0\n", RULE.format("a") + 'roles = "x"\n', "porte = 1\n", "\x00"],
)
def test_broken_rules_are_no_rules(tmp_path: Path, text: str) -> None:
    config = tmp_path / "special.toml"
    config.write_text(RULE.format("old"))
    chosen = load(config, source="masters")
    config.write_text(text)
    with pytest.raises(ConfigurationError):
        with_rules_of(config, chosen)


def test_variables_win_over_the_file_when_it_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "special.toml"
    config.write_text('default_roles = ["file"]\n')
    monkeypatch.setenv("SPECIAL_DEFAULT_ROLES", "variable")
    chosen = load(config, source="masters")
    assert with_rules_of(config, chosen).default_roles == ("variable",)


async def _restricted(client: httpx.AsyncClient, name: str) -> set[bool]:
    """By 40 requests on as many connections, so that every process has some of them."""
    answers = await asyncio.gather(*(client.get(f"/iiif/3/{name}/info.json") for _ in range(40)))
    statuses = {it.status_code for it in answers}
    assert statuses <= {200, 401}
    return {status == 401 for status in statuses}


async def _until_restricted(client: httpx.AsyncClient, name: str, is_restricted: bool) -> None:
    """Wait until three rounds in a row have one answer."""
    rounds = 0
    while rounds < 3:
        rounds = rounds + 1 if await _restricted(client, name) == {is_restricted} else 0
        await asyncio.sleep(0.2)


async def _until_logged(server: LiveServer, text: str, count: int) -> None:
    while True:
        if server.log.read_text().count(text) >= count:
            return
        await asyncio.sleep(0.2)


@pytest.mark.service
@pytest.mark.parametrize("workers", [1, 2])
async def test_every_process_of_a_server_has_the_last_rules_that_could_be_used(
    serve: Serve, tmp_path: Path, workers: int
) -> None:
    masters, config = tmp_path / "masters", tmp_path / "special.toml"
    masters.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (60, 40)).save(masters / name)
    config.write_text(RULE.format("a.jpg"))
    server = serve(masters, "--config", str(config), workers=workers, settings={"SPECIAL_DECODERS": "1"})

    def write(text: str) -> None:
        new = config.with_name("new")
        new.write_text(text)
        new.replace(config)

    limits = httpx.Limits(max_keepalive_connections=0)
    async with asyncio.timeout(120), httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
        assert (await _restricted(client, "a.jpg"), await _restricted(client, "b.jpg")) == ({True}, {False})
        write(RULE.format("b.jpg"))
        await _until_restricted(client, "b.jpg", True)
        await _until_restricted(client, "a.jpg", False)
        write("[[rules]\n")
        said, logging = f"configuration file {config}", 1 if workers == 1 else workers + 1  # the supervisor too
        await _until_logged(server, said, logging)
        if workers == 1:
            os.kill(server.process.pid, signal.SIGHUP)
        else:  # its successor starts while the file is broken
            os.kill(_server_process(server.process.pid), signal.SIGKILL)
        await _until_logged(server, said, logging + 1)
        await _until_restricted(client, "b.jpg", True)
        assert await _restricted(client, "a.jpg") == {False}


def _server_process(supervisor: int) -> int:
    """One of a supervisor's server processes; not the tracker of their shared resources."""
    return next(
        it for it in processes.children(supervisor) if b"spawn_main" in Path(f"/proc/{it}/cmdline").read_bytes()
    )
