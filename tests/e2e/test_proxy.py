"""The proxy of compose.yaml in front of two real servers."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import QUICK, Connect
from tests.support.client import Client
from tests.support.port import free_port
from tests.support.requirement import find_program, require
from tests.support.server import Server, wait_until

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "compose" / "haproxy.cfg"
TOKEN = "daos_of-both"
COUNT = "{ hosts { totalCount } }"


@contextlib.contextmanager
def _two_servers(directory: Path) -> Iterator[list[Server]]:
    settings = {**QUICK, "DAOS_WARM": "false", "DAOS_ADMIN_TOKEN": TOKEN}
    servers = [Server(directory / name, settings) for name in ("api-1", "api-2")]
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
            server.start()
        yield servers


@contextlib.contextmanager
def _behind_proxy(servers: list[Server], directory: Path) -> Iterator[Server]:
    """Both servers as one, at the proxy's address."""
    haproxy = find_program("haproxy")
    require("haproxy", None if haproxy else "there is no haproxy (Debian: haproxy)")
    assert haproxy is not None
    address = f"127.0.0.1:{free_port()}"
    text = CONFIGURATION.read_text()
    for written, own in {
        "bind :8080": f"bind {address}",
        # Docker's own name server is not here.
        " resolvers docker init-addr none": "",
        **{f"api-{number}:8000": urlsplit(server.url).netloc for number, server in enumerate(servers, 1)},
    }.items():
        assert written in text
        text = text.replace(written, own)
    configuration = directory / "haproxy.cfg"
    configuration.write_text(text)
    with (directory / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([haproxy, "-db", "-f", configuration], stdout=log, stderr=log)
    try:
        proxied = replace(servers[0], url=f"http://{address}")
        wait_until(lambda: _answers(proxied.url), "the proxy answers")
        yield proxied
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers for all tests that leave them running: they take longer to start than any of these to run."""
    with _two_servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture(scope="module")
def proxied(servers: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Both servers as one, at the proxy's address."""
    with _behind_proxy(servers, tmp_path_factory.mktemp("proxy")) as proxied:
        yield proxied


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def test_both_nodes_get_requests(proxied: Server, servers: list[Server], connect: Connect) -> None:
    for server in servers:
        await connect(server).local_host()
    await connect(servers[1]).local_host()
    client = connect(proxied)
    counts = {(await client.ask(COUNT))["hosts"]["totalCount"] for _ in range(20)}
    assert counts == {1, 2}


async def test_a_websocket_goes_through(proxied: Server, connect: Connect) -> None:
    client = connect(proxied)
    async with client.connected() as socket:
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": "{ viewer { name } }"}}))
        assert json.loads(await socket.recv())["payload"]["data"] == {"viewer": {"name": "admin"}}


async def test_an_event_arrives_while_its_stream_goes_on(proxied: Server) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/event-stream"}
    body = {"query": "subscription { deploymentsChanged { status } }"}
    async with (
        asyncio.timeout(30),
        httpx.AsyncClient(timeout=30) as http,
        http.stream("POST", f"{proxied.url}/graphql", json=body, headers=headers) as answer,
    ):
        assert answer.status_code == httpx.codes.OK
        assert await anext(answer.aiter_raw())  # a comment, for nothing happens


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "//metrics", "/metrics/", "/graphql/../metrics", "/"])
def test_what_is_not_the_apis_is_not_there(proxied: Server, path: str) -> None:
    answer = httpx.get(httpx.URL(f"{proxied.url}/").copy_with(raw_path=path.encode()), follow_redirects=True)
    assert answer.status_code == httpx.codes.NOT_FOUND


async def test_nobody_notices_that_a_node_stops(tmp_path: Path, connect: Connect) -> None:
    with _two_servers(tmp_path) as servers, _behind_proxy(servers, tmp_path) as proxied:
        client = connect(proxied)
        asking = asyncio.create_task(_ask_until(client, stopped := asyncio.Event()))
        assert await asyncio.to_thread(servers[1].stop) == 0
        stopped.set()
        assert await asking > 0


async def _ask_until(client: Client, stopped: asyncio.Event) -> int:
    """How many questions were answered.  Raises: what an answer that is none raises."""
    answered = 0
    while not stopped.is_set():
        await client.ask(COUNT)
        answered += 1
    return answered
