"""A Chromium that talks to nobody but the servers of the tests, and pages that note what goes wrong in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
# Root needs no sandbox; the rest keeps Chromium from talking to anybody else.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield launched
        launched.close()


@pytest.fixture
def problems() -> list[str]:
    """Whatever went wrong in the page: its errors, and requests that failed."""
    return []


@pytest.fixture
def page(browser: Browser, problems: list[str]) -> Iterator[Page]:
    """A page with a state of its own, whose certificates need no authority."""
    opened = browser.new_page(viewport={"width": 1280, "height": 800}, ignore_https_errors=True)
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("requestfailed", lambda request: problems.append(f"{request.url}: {request.failure}"))
    opened.on("response", lambda it: problems.append(f"{it.url}: {it.status}") if it.status >= 400 else None)
    yield opened
    opened.close()
