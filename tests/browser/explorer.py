"""GraphiQL in a browser: what a person does there and sees."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Locator, Page, WebSocket, expect

from tests.support.server import LINK, Server

Json = dict[str, Any]

# Monaco shows the lines in view only, in any order, and puts the text on the screen with spaces that do not break.
SHOWN_JSON = r"""() => {
    const lines = [...document.querySelectorAll('.result-window .view-line')];
    lines.sort((one, other) => parseFloat(one.style.top) - parseFloat(other.style.top));
    try {
        return JSON.parse(lines.map((line) => line.textContent).join('').replaceAll('\u00a0', ' '));
    } catch {
        return null;
    }
}"""


@dataclass
class Explorer:
    """One tab of the browser, at a server.

    `requests` are the addresses that it asked for, `complaints` what it wrote to the console as an error or a warning.
    """

    server: Server
    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", self._record_websocket)
        self.page.on("console", self._record_message)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    @property
    def link(self) -> str:
        """The link that `daos serve` has printed."""
        link = LINK.search(self.server.output)
        assert link is not None
        return link[0].removeprefix("GraphiQL: ")

    @property
    def foreign_requests(self) -> list[str]:
        """What was asked of anybody but the server."""
        ours = urlsplit(self.server.url).netloc
        return [url for url in self.requests if urlsplit(url).scheme != "data" and urlsplit(url).netloc != ours]

    @property
    def form(self) -> Locator:
        """The form that asks for a token."""
        return self.page.get_by_role("dialog", name="daos")

    @property
    def answer(self) -> Locator:
        return self.page.get_by_role("region", name="Result Window")

    @property
    def run_button(self) -> Locator:
        """The pink button, while nothing runs."""
        return self.page.get_by_role("button", name="Execute query")

    async def open(self, url: str) -> None:
        await self.page.goto(url)

    async def give_token(self, text: str) -> None:
        """Type into the form and send it."""
        await self.form.get_by_label("Access token").fill(text)
        await self.form.get_by_role("button", name="Use token").click()

    async def choose(self, tab: str) -> None:
        """Go to the tab with this document."""
        await self.page.get_by_role("tab").get_by_role("button", name=tab, exact=True).click()
        await expect(self._editor("Operation Editor")).to_contain_text(tab)

    async def fill_in(self, variables: Json) -> None:
        """Paste these over the document's variables.  Typed, the editor would close brackets once more."""
        editor = self._editor("Variables")
        await editor.click()
        await self.page.evaluate("text => navigator.clipboard.writeText(text)", json.dumps(variables))
        await self.page.keyboard.press("ControlOrMeta+A")
        await self.page.keyboard.press("ControlOrMeta+V")
        await expect(editor).to_have_text(json.dumps(variables))

    async def press_run(self) -> None:
        await self.run_button.click()

    async def data(self) -> Json:
        """The data of the answer on the screen, as soon as there is one that fits on it."""
        shown = await self.page.wait_for_function(SHOWN_JSON)
        answer: Json = await shown.json_value()
        data: Json = answer["data"]
        return data

    async def run(self, tab: str, variables: Json | None = None) -> Json:
        """Choose a tab, fill in its variables where there are some, run it, and give its data."""
        await self.choose(tab)
        if variables is not None:
            await self.fill_in(variables)
        await self.press_run()
        return await self.data()

    async def works(self) -> None:
        """Run a query and wait for its answer."""
        await self.choose("Overview")
        await self.press_run()
        await expect(self.answer).to_contain_text('"totalCount"')

    async def stored(self, storage: str) -> Json:
        """What the page keeps in `localStorage` or `sessionStorage`."""
        stored: Json = await self.page.evaluate(f"({{...{storage}}})")
        return stored

    async def history(self) -> list[str]:
        """The addresses that the buttons Back and Forward lead to, and the one in between."""
        session = await self.page.context.new_cdp_session(self.page)
        entries = (await session.send("Page.getNavigationHistory"))["entries"]
        return [entry["url"] for entry in entries]

    def _editor(self, name: str) -> Locator:
        return self.page.get_by_role("region", name=name).locator(".view-lines").filter(visible=True)

    def _record_websocket(self, websocket: WebSocket) -> None:
        self.requests.append(websocket.url)

    def _record_message(self, message: ConsoleMessage) -> None:
        # Chromium's own words about each token that the server refused.
        refused = "responded with a status of 401" in message.text
        if message.type in {"error", "warning"} and not refused:
            self.complaints.append(message.text)
