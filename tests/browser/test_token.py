"""The token: how it gets into the page, where it is kept, and what happens to one that the server does not take."""

import os
import subprocess
import sys

import pytest
from playwright.async_api import expect

from tests.browser.conftest import NewTab
from tests.browser.explorer import Explorer
from tests.support.server import Server


async def test_the_printed_link_opens_graphiql_and_a_query_runs(explorer: Explorer) -> None:
    await explorer.open(explorer.link)
    await explorer.works()
    await expect(explorer.form).to_have_count(0)
    assert explorer.requests


async def test_a_query_runs_by_keyboard(explorer: Explorer) -> None:
    await explorer.open(explorer.link)
    await explorer.choose("Overview")
    await explorer.page.get_by_role("region", name="Operation Editor").click()
    await explorer.page.keyboard.press("ControlOrMeta+Enter")
    await expect(explorer.answer).to_contain_text('"totalCount"')


async def test_the_token_leaves_the_address_bar_and_outlives_no_tab(explorer: Explorer, new_tab: NewTab) -> None:
    await explorer.open(explorer.link)
    await explorer.works()
    assert explorer.page.url == f"{explorer.server.url}/graphql/ide/"
    assert [url for url in await explorer.history() + explorer.requests if explorer.server.token in url] == []
    assert await explorer.stored("localStorage") == {}
    assert await explorer.page.context.cookies() == []

    other = await new_tab()
    await other.open(f"{other.server.url}/graphql")
    await expect(other.form).to_be_visible()


async def test_a_reload_keeps_the_token(explorer: Explorer) -> None:
    await explorer.open(explorer.link)
    await explorer.works()
    await explorer.page.reload()
    await explorer.works()


async def test_without_a_token_the_form_asks_for_one_and_does_not_go_away(explorer: Explorer) -> None:
    await explorer.open(f"{explorer.server.url}/graphql")
    await expect(explorer.form.get_by_label("Access token")).to_be_focused()
    for _ in range(2):
        await explorer.page.keyboard.press("Escape")
        await expect(explorer.form).to_be_visible()
    assert not any(url.endswith("/graphql") for url in explorer.requests[1:])  # the API was not asked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrong", "The server did not accept the token."),
        ("two words", "That is not a token: it has no spaces and no accented letters."),
    ],
)
async def test_a_wrong_token_is_refused_with_a_message(explorer: Explorer, text: str, message: str) -> None:
    await explorer.open(f"{explorer.server.url}/graphql")
    await explorer.give_token(text)
    await expect(explorer.form.get_by_role("alert")).to_have_text(message)


async def test_a_pasted_link_opens_graphiql(explorer: Explorer) -> None:
    await explorer.open(f"{explorer.server.url}/graphql")
    await explorer.give_token(explorer.link)
    await explorer.works()


async def test_a_link_opens_graphiql_in_a_tab_that_has_the_form(explorer: Explorer) -> None:
    await explorer.open(f"{explorer.server.url}/graphql/ide/")
    await expect(explorer.form).to_be_visible()
    await explorer.open(f"{explorer.server.url}/graphql/ide/#token={explorer.server.token}")
    await explorer.works()
    assert [url for url in await explorer.history() if explorer.server.token in url] == []


async def test_a_forgotten_token_is_asked_for_again(explorer: Explorer) -> None:
    await explorer.open(explorer.link)
    await explorer.works()
    await explorer.page.get_by_role("button", name="Forget token").click()
    await expect(explorer.form).to_be_visible()
    assert explorer.server.token not in str(await explorer.stored("sessionStorage"))


async def test_a_token_that_is_revoked_meanwhile_is_asked_for_again(explorer: Explorer) -> None:
    await explorer.open(f"{explorer.server.url}/graphql#token={_daos(explorer.server, 'create', 'browser')}")
    await explorer.works()
    _daos(explorer.server, "revoke", "browser")
    for tab in ("Overview", "Watch"):  # by POST, by websocket
        await explorer.choose(tab)
        await explorer.press_run()
        await expect(explorer.form.get_by_role("alert")).to_have_text("The server did not accept the token.")
        await explorer.form.get_by_role("button", name="Not now").click()
    await explorer.press_run()
    await explorer.give_token(explorer.server.token)
    await explorer.works()


def _daos(server: Server, *arguments: str) -> str:
    """What `daos token ARGUMENTS` prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "daos", "token", *arguments],
        env={**os.environ, "DAOS_DATA_DIR": str(server.data_dir)},
        check=True,
        capture_output=True,
        text=True,
    )
    return ended.stdout.strip()
