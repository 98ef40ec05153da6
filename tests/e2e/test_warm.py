"""Both ways of playing, through the API."""

import re

import httpx
import pytest

from tests.e2e.conftest import Connect, MakeServer
from tests.support.client import ONCE
from tests.support.server import Server


def plays(server: Server) -> dict[str, int]:
    """How many plays went which way, by the server's own metrics."""
    text = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"}).text
    return {way: int(float(count)) for way, count in re.findall(r'daos_plays_total\{way="(\w+)"\} (\S+)', text)}


@pytest.mark.parametrize(("setting", "expected"), [("true", {"warm": 1, "cold": 0}), ("false", {"warm": 0, "cold": 1})])
async def test_a_run_goes_the_way_that_the_setting_says(
    make_server: MakeServer, connect: Connect, project: str, setting: str, expected: dict[str, int]
) -> None:
    server = make_server(warm=setting)
    if setting == "true":
        server.wait_until_warm()
    client = connect(server)
    deployment = await client.deployment(await client.local_host(), await client.package({"once": ONCE}), project)
    assert (await client.play(deployment))["status"] == "SUCCESS"
    assert plays(server) == expected
