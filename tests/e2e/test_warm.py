"""Both ways of playing, through the API."""

import re
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.client import SLEEPER, Client
from tests.e2e.conftest import MakeServer
from tests.e2e.server import Server, wait_until


def plays(server: Server) -> dict[str, int]:
    """How many plays went which way, by the server's own metrics."""
    text = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"}).text
    return {way: int(float(count)) for way, count in re.findall(r'daos_plays_total\{way="(\w+)"\} (\S+)', text)}


@pytest.mark.parametrize(("setting", "expected"), [("true", {"warm": 1, "cold": 0}), ("false", {"warm": 0, "cold": 1})])
async def test_a_run_goes_the_way_that_the_setting_says(
    make_server: MakeServer, connect: Callable[[Server], Client], project: str, setting: str, expected: dict[str, int]
) -> None:
    server = make_server(warm=setting)
    if setting == "true":
        wait_until(lambda: "plays go to the warm process" in server.log, "the warm process is there", 60)
    client = connect(server)
    deployment = await client.deployment(await client.local_host(), await client.package({"web": SLEEPER}), project)
    assert (await client.play(deployment))["status"] == "SUCCESS"
    assert plays(server) == expected
