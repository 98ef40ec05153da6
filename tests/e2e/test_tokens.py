"""Tokens and the audit by the command line, while a server serves."""

import json
import subprocess
import sys

import pytest

from tests.e2e.conftest import Connect, MakeServer
from tests.support.client import Client, Refused
from tests.support.server import Server


def daos(server: Server, *arguments: str) -> str:
    """What the command prints; it has the server's own settings."""
    environment = {**server._environment(), "DAOS_DATA_DIR": str(server.data_dir), **server.settings}
    command = [sys.executable, "-m", "daos", *arguments]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=server.directory)
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    return ended.stdout


def with_token(client: Client, token: str) -> Client:
    client.server.token = token.strip()
    return client


async def test_a_token_of_the_command_line_has_its_role_and_is_in_the_audit(
    make_server: MakeServer, connect: Connect
) -> None:
    server = make_server()
    client, admin = connect(server), server.token
    await client.local_host()
    with_token(client, daos(server, "token", "create", "ci", "--role", "operator", "--label", "web", "--days", "1"))
    viewer = await client.ask("{ viewer { name role hostLabels } hosts { totalCount } }")
    assert viewer == {"viewer": {"name": "ci", "role": "OPERATOR", "hostLabels": ["web"]}, "hosts": {"totalCount": 0}}
    with pytest.raises(Refused, match="FORBIDDEN"):
        await client.local_host()
    listed = daos(server, "token", "list")
    assert "ci  OPERATOR on web  created " in listed
    assert "  expires " in listed
    daos(server, "token", "revoke", "ci")
    assert (await client.post("{ viewer { name } }")).status_code == 401
    entries = [json.loads(line) for line in daos(server, "audit").splitlines()]
    told = [(entry["principal"], entry["mutation"], entry["outcome"]) for entry in entries]
    assert told == [
        ("admin", "createHost", "OK"),
        ("command line", "createToken", "OK"),
        ("ci", "createHost", "FORBIDDEN"),
        ("command line", "revokeToken", "OK"),
    ]
    assert entries[0]["address"] == "127.0.0.1"
    assert daos(server, "audit", "--since", "2999-01-01") == ""
    with_token(client, admin)
    log = await client.ask("{ auditLog { nodes { mutation } } }")
    shown = [entry["mutation"] for entry in log["auditLog"]["nodes"]]
    assert shown == ["revokeToken", "createHost", "createToken", "createHost"]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--role", "admin", "--label", "web"], "admin"),
        (["--role", "viewer", "--label", "-"], "host_labels"),
        (["--days", "-1"], "future"),
    ],
    ids=str,
)
async def test_a_token_that_breaks_a_rule_is_not_made(server: Server, arguments: list[str], rule: str) -> None:
    with pytest.raises(RuntimeError, match=rule):
        daos(server, "token", "create", "never", *arguments)
    assert "never" not in daos(server, "token", "list")
