"""The audits of GraphQL over HTTP, and the reference clients of the streaming protocols.  They run on Node.js."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import factories
from tests.daos.serving import ADMIN_TOKEN, PATIENCE, Served
from tests.support.requirement import require

NODE = Path(__file__).parent / "node"
AUDITS = 61
DELETE = "mutation ($id: ID!) { deleteHost(input: {hostId: $id}) { deletedHostId } }"
TYPENAME = {"data": {"__typename": "Query"}}


@pytest.fixture(scope="session")
def node() -> str:
    """Node.js, with the packages of the lock file beside the scripts."""
    program = shutil.which("node")
    npm = shutil.which("npm")
    require("node", None if program and npm else "there is no node with npm (Debian: nodejs npm)")
    assert program is not None
    assert npm is not None
    lock, installed = NODE / "package-lock.json", NODE / "node_modules" / ".of"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        subprocess.run([npm, "ci", "--no-progress", "--loglevel=error"], cwd=NODE, check=True)
        shutil.copy(lock, installed)
    return program


async def run(node: str, script: str, *arguments: str, given: object = None) -> Any:
    """What a script prints."""
    process = await asyncio.create_subprocess_exec(
        node, NODE / script, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    async with asyncio.timeout(2 * PATIENCE):
        output, _ = await process.communicate(json.dumps(given).encode())
    assert process.returncode == 0
    return json.loads(output)


async def test_all_audits_of_graphql_over_http_pass(node: str, served: Served) -> None:
    results = await run(node, "audits.js", served.url, ADMIN_TOKEN)
    assert len(results) == AUDITS
    assert [result for result in results if result["status"] != "ok"] == []


@pytest.mark.parametrize("kind", ["ws", "sse"])
async def test_a_reference_client_is_served(node: str, served: Served, kind: str) -> None:
    deployment = await factories.deployment(served.db)
    follow = f'subscription {{ deploymentStatus(id: "{deployment.id}") {{ status }} }}'
    missing = 'subscription { deploymentStatus(id: "nothing") { status } }'
    documents = [
        {"query": "{ __typename }"},
        {"query": DELETE, "variables": {"id": "nothing"}},
        {"query": follow},
        {"query": missing},
        {"query": "{ nope }"},
        {"query": "{"},
    ]
    url = served.url.replace("http:", "ws:") if kind == "ws" else served.url
    asked, changed, followed, failed, invalid, broken = await run(
        node, "clients.js", kind, url, ADMIN_TOKEN, given=documents
    )
    assert asked == {"events": [TYPENAME], "error": None, "completed": True}
    assert changed["events"][0]["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    assert followed["events"] == [{"data": {"deploymentStatus": {"status": "PENDING"}}}]
    assert failed["events"][0]["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    for refused, code in ((invalid, "GRAPHQL_VALIDATION_FAILED"), (broken, "GRAPHQL_PARSE_FAILED")):
        # The websocket's protocol has a message for it, that of events has not.
        errors = refused["error"] if kind == "ws" else refused["events"][0]["errors"]
        assert errors[0]["extensions"]["code"] == code


async def test_a_reference_client_without_a_token_is_told_so(node: str, served: Served) -> None:
    [over_websocket] = await run(
        node, "clients.js", "ws", served.url.replace("http:", "ws:"), "wrong", given=[{"query": "{ __typename }"}]
    )
    assert over_websocket["error"]["code"] == 4403
    [over_http] = await run(node, "clients.js", "sse", served.url, "wrong", given=[{"query": "{ __typename }"}])
    assert "401" in over_http["error"]["message"]
