"""Fixtures that several packages share, the marker `unit`, and the rule that CI skips nothing.

What takes long to import (moto, boto3, httpx) is imported inside the fixtures that need it.
"""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support import azurite, live, processes, servers
from tests.support.azurite import AzureServer
from tests.support.live import LiveServer
from tests.support.servers import S3Server

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of servers are started: none compiles the package again


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3Server]:
    """A forgiving S3 server: quick, accepts any credentials."""
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server: it checks signatures and keeps a request log (`server.logged(bucket)`)."""
    with servers.seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def azure() -> Iterator[AzureServer]:
    """Azure's blob store, as its emulator plays it."""
    if azurite.NPM is None:
        pytest.skip("npm, which fetches Azurite, is not installed")
    with azurite.azurite() as server:
        yield server


Serve = Callable[..., LiveServer]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts servers, each with a state folder of its own: `serve(source, *options, settings={…}, workers=1)`."""
    with ExitStack() as running:

        def start(*arguments: object, **settings: object) -> LiveServer:
            home = tmp_path_factory.mktemp("home")
            return running.enter_context(live.special(*arguments, home=home, **settings))

        yield start


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of the sample masters, with everything as a newcomer has it."""
    with live.special(live.MASTERS, home=tmp_path_factory.mktemp("home"), workers=None) as server:
        yield server


STARTING = {"serve", "live_server", "moto_s3", "seaweed_s3", "azure", "library"}
"""Fixtures that start a server."""
OTHERS = ("service", "browser", "long")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test is `unit` unless it starts something: by its fixtures, or as its marker says."""
    for item in items:
        if STARTING & set(getattr(item, "fixturenames", ())):
            item.add_marker("service")
        if not any(item.get_closest_marker(name) for name in OTHERS):
            item.add_marker("unit")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without garbage collections, and out of their reach: a million objects, none of them garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


_BEFORE = pytest.StashKey[tuple[list[int], int]]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[_BEFORE] = _children()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A `unit` test that starts a process fails: it wants the marker `service`."""
    outcome = yield
    if item.get_closest_marker("unit") and _children() != item.stash[_BEFORE]:
        pytest.fail("a unit test started a process: mark it with pytest.mark.service", pytrace=False)
    return outcome


def _children() -> tuple[list[int], int]:
    """The processes that run below this one, and the page faults of those that have ended: any of them adds some."""
    return processes.children(os.getpid()), resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything that tests need is installed, so a skipped test is a test that went missing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and _skipped_in_ci(reporter) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped := _skipped_in_ci(terminalreporter):
        terminalreporter.write_line(f"CI=true: {skipped} skipped, which counts as failed", red=True)


def _skipped_in_ci(reporter: pytest.TerminalReporter) -> int:
    return len(reporter.stats.get("skipped", [])) if os.environ.get("CI") == "true" else 0
