"""A server with GraphiQL, and browser tabs that may ask nobody else and complain of nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, async_playwright, expect

from daos.http.explorer import FILES
from tests.browser.explorer import Explorer
from tests.support.chromium import Chromium
from tests.support.requirement import require
from tests.support.server import Server

TIMEOUT = 15_000  # milliseconds that something may take to be on the page
PERMISSIONS = ["clipboard-read", "clipboard-write"]

NewTab = Callable[[], Awaitable[Explorer]]


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests in a browser."""
    built = (FILES / "index.html").exists()
    require("explorer", None if built else "GraphiQL is not built (scripts/explorer)")
    server = Server(tmp_path_factory.mktemp("server"), {"DAOS_SETTLE_SECONDS": "0.5"})
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="package")
async def context(chromium: Chromium) -> AsyncIterator[BrowserContext]:
    """A browser with an empty profile.  Tests share it, as the page keeps nothing outside of its tab."""
    async with async_playwright() as playwright:
        # Playwright's own options keep Chromium headless, without a sandbox and quiet.
        browser = await playwright.chromium.launch(executable_path=chromium.path, args=["--disable-quic"])
        context = await browser.new_context(viewport={"width": 1400, "height": 900}, permissions=PERMISSIONS)
        context.set_default_timeout(TIMEOUT)
        expect.set_options(timeout=TIMEOUT)
        yield context
        await browser.close()


@pytest.fixture
async def new_tab(context: BrowserContext, server: Server, tmp_path: Path) -> AsyncIterator[NewTab]:
    """Opens tabs; a picture of each is in `tmp_path` afterwards."""
    tabs: list[Explorer] = []

    async def make() -> Explorer:
        tabs.append(Explorer(server, await context.new_page()))
        return tabs[-1]

    yield make
    for number, tab in enumerate(tabs, 1):
        await tab.page.screenshot(path=tmp_path / f"tab-{number}.png")
        await tab.page.close()
        assert tab.foreign_requests == []
        assert tab.complaints == []


@pytest.fixture
async def explorer(new_tab: NewTab) -> Explorer:
    """An empty tab."""
    return await new_tab()
