"""The strings of tests/support/attacks.py wherever the API takes one: stored as they are, or refused by a rule."""

import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
from sqlalchemy import func, select

from db.database import Database
from db.models import Base, Role
from resolvers import tokens
from tests import factories
from tests.support.attacks import LONG, PATHS, TEMPLATES, UNPRINTABLE
from tests.support.serving import ADMIN_TOKEN, Served

STRINGS = (*TEMPLATES, *PATHS, *UNPRINTABLE, "", "   ", "-x", "a b", "[::1]%25x", "169.254.169.254", LONG)
REFUSALS = {
    "BAD_REQUEST",
    "BAD_USER_INPUT",
    "HOST_NOT_FOUND",
    "PACKAGE_NOT_FOUND",
    "NOT_FOUND",
    "NAME_TAKEN",
    "FORBIDDEN",
}
NUMBERS = count()

# In each a string stands for HERE, a number that was not there before for NEW, and an id for HOST and PACKAGE.
HOST = {"name": "NEW", "address": "host.example"}
PACKAGE = {"name": "NEW", "version": "1", "composeFile": factories.COMPOSE_FILE}
LOGIN = {"registry": "r.example", "username": "me", "password": "p"}
DEPLOYMENT = {"hostId": "HOST", "packageId": "PACKAGE"}
INPUTS: list[tuple[str, str, dict[str, Any]]] = [
    ("createHost", "host { it: name }", HOST | {"name": "HERE"}),
    ("createHost", "host { it: address }", HOST | {"address": "HERE"}),
    ("createHost", "host { it: user }", HOST | {"user": "HERE"}),
    ("createHost", "host { it: sshKeyPath }", HOST | {"sshKeyPath": "HERE"}),
    ("createHost", "host { it: id }", HOST | {"sshKeyId": "HERE"}),
    ("createSshKey", "sshKey { it: name }", {"name": "HERE"}),
    ("createSshKey", "sshKey { it: name }", {"name": "NEW", "privateKey": "HERE"}),
    ("deleteSshKey", "it: deletedSshKeyId", {"sshKeyId": "HERE"}),
    ("updateHost", "host { it: id }", {"hostId": "HERE"}),
    ("updateHost", "host { it: id }", {"hostId": "HOST", "sshKeyId": "HERE"}),
    ("updateHost", "host { it: name }", {"hostId": "HOST", "name": "HERE"}),
    ("updateHost", "host { it: address }", {"hostId": "HOST", "address": "HERE"}),
    ("updateHost", "host { it: user }", {"hostId": "HOST", "user": "HERE"}),
    ("updateHost", "host { it: sshKeyPath }", {"hostId": "HOST", "sshKeyPath": "HERE"}),
    ("createHost", "host { pinnedKeys { it: type } }", HOST | {"knownHosts": "HERE"}),
    ("updateHost", "host { pinnedKeys { it: type } }", {"hostId": "HOST", "knownHosts": "HERE"}),
    ("scanHostKey", "host { it: id }", {"hostId": "HERE"}),
    ("trustHostKey", "host { it: id }", {"hostId": "HERE", "fingerprint": "SHA256:" + "A" * 43}),
    ("trustHostKey", "host { it: id }", {"hostId": "HOST", "fingerprint": "HERE"}),
    ("deleteHost", "it: deletedHostId", {"hostId": "HERE"}),
    ("createPackage", "package { it: name }", PACKAGE | {"name": "HERE"}),
    ("createPackage", "package { it: version }", PACKAGE | {"version": "HERE"}),
    ("createPackage", "package { it: composeFile }", PACKAGE | {"composeFile": "HERE"}),
    ("createPackage", "package { files { it: path } }", PACKAGE | {"files": [{"path": "HERE", "content": ""}]}),
    ("createPackage", "package { files { it: text } }", PACKAGE | {"files": [{"path": "a", "content": "HERE"}]}),
    ("createPackage", "package { files { path } }", PACKAGE | {"files": [{"path": "a", "base64": "HERE"}]}),
    (
        "createPackage",
        "package { files { it: mode } }",
        PACKAGE | {"files": [{"path": "a", "content": "", "mode": "HERE"}]},
    ),
    *(
        (
            "createPackage",
            f"package {{ registryLogins {{ it: {answered} }} }}",
            PACKAGE | {"registryLogins": [LOGIN | {name: "HERE"}]},
        )
        for name, answered in (("registry", "registry"), ("username", "username"))
    ),
    ("deletePackage", "it: deletedPackageId", {"packageId": "HERE"}),
    ("createDeployment", "deployment { it: id }", DEPLOYMENT | {"hostId": "HERE"}),
    ("createDeployment", "deployment { it: id }", DEPLOYMENT | {"packageId": "HERE"}),
    ("createDeployment", "deployment { it: projectName }", DEPLOYMENT | {"projectName": "HERE"}),
    (
        "createDeployment",
        "deployment { variables { it: name } }",
        DEPLOYMENT | {"variables": [{"name": "HERE", "value": ""}]},
    ),
    (
        "createDeployment",
        "deployment { variables { it: value } }",
        DEPLOYMENT | {"variables": [{"name": "A", "value": "HERE"}]},
    ),
    ("deleteDeployment", "it: deletedDeploymentId", {"deploymentId": "HERE"}),
    ("runDeployment", "run { it: id }", {"deploymentId": "HERE"}),
    ("runDeployments", "runs { it: id }", {"deploymentIds": ["HERE"]}),
    ("cancelRun", "run { it: id }", {"runId": "HERE"}),
    # What is not answered: only that nothing else comes of it than a rule's refusal.
    ("createPackage", "package { id }", PACKAGE | {"registryLogins": [LOGIN | {"password": "HERE"}]}),
    ("createSshKey", "sshKey { id }", {"name": "NEW", "privateKey": "", "passphrase": "HERE"}),
    ("createHost", "host { id }", HOST | {"idempotencyKey": "HERE"}),
    ("createHost", "host { it: labels }", HOST | {"labels": ["HERE"]}),
    ("updateHost", "host { it: labels }", {"hostId": "HOST", "labels": ["HERE"]}),
    ("createToken", "token { it: name }", {"role": "VIEWER", "name": "HERE"}),
    ("createToken", "token { it: hostLabels }", {"role": "VIEWER", "name": "NEW", "hostLabels": ["HERE"]}),
    ("revokeToken", "token { it: id }", {"tokenId": "HERE"}),
]
IDS = [
    *(f"query ($it: ID!) {{ {one}(id: $it) {{ id }} }}" for one in ("node", "deployment", "host", "package", "run")),
    *(f"query ($it: ID) {{ deployments(filter: {{{one}: $it}}) {{ totalCount }} }}" for one in ("hostId", "packageId")),
]
CURSORS = [
    f"query ($it: String) {{ {field}({way}: $it) {{ totalCount }} }}"
    for field in ("hosts", "packages", "deployments", "tokens", "auditLog")
    for way in ("after", "before")
]


async def answers(
    served: Served, query: str, variables: dict[str, str], token: str = ADMIN_TOKEN
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The answers to requests that a rule may refuse, and nothing else; `variables` are JSON, by the attack in them."""
    async with served.client(token) as client:
        for text, some in variables.items():
            body = f'{{"query": {json.dumps(query)}, "variables": {some}}}'
            response = await client.post(served.url, content=body, headers={"content-type": "application/json"})
            assert response.status_code in {200, 400}
            answered: dict[str, Any] = response.json()
            assert {error["extensions"]["code"] for error in answered.get("errors", [])} <= REFUSALS, answered
            yield text, answered


async def attacks(db: Database, given: dict[str, Any]) -> dict[str, str]:
    """The variables of a mutation with this input, in JSON, by the attack in it."""
    host, package = await factories.host(db), await factories.package(db)
    known = json.dumps({"i": given}).replace('"HOST"', f'"{host.id}"').replace('"PACKAGE"', f'"{package.id}"')
    return {
        text: known.replace("NEW", f"attack-{next(NUMBERS)}").replace('"HERE"', json.dumps(text)) for text in STRINGS
    }


def found(data: Any) -> list[Any]:
    """What stands for `it` in an answer."""
    if isinstance(data, dict):
        return [text for name, value in data.items() for text in ([value] if name == "it" else found(value))]
    return [text for value in data for text in found(value)]


@pytest.mark.parametrize(("mutation", "payload", "given"), INPUTS)
async def test_a_member_of_an_input_is_kept_as_it_is_or_refused(
    served: Served, mutation: str, payload: str, given: dict[str, Any]
) -> None:
    query = f"mutation ($i: {mutation[0].upper()}{mutation[1:]}Input!) {{ {mutation}(input: $i) {{ {payload} }} }}"
    async for text, answered in answers(served, query, await attacks(served.db, given)):
        assert "FORBIDDEN" not in str(answered)
        if "errors" not in answered and "it:" in payload:
            assert found(answered["data"]) in ([text], [[text]])


@pytest.mark.parametrize(("mutation", "payload", "given"), INPUTS)
async def test_with_a_viewers_token_no_member_of_an_input_changes_anything(
    served: Served, mutation: str, payload: str, given: dict[str, Any]
) -> None:
    query = f"mutation ($i: {mutation[0].upper()}{mutation[1:]}Input!) {{ {mutation}(input: $i) {{ {payload} }} }}"
    variables = await attacks(served.db, given)
    _, token = await tokens.create(served.db, f"viewer {next(NUMBERS)}", Role.VIEWER)
    before = await _rows(served.db)
    async for _, answered in answers(served, query, variables, token.reveal()):
        codes = {error["extensions"]["code"] for error in answered["errors"]}
        assert codes in ({"FORBIDDEN"}, {"BAD_REQUEST"}), answered  # the latter for what is no text at all
    assert await _rows(served.db) == before


async def _rows(db: Database) -> dict[str, int]:
    """How many rows each table has, but for the audit."""
    async with db.read() as session:
        return {
            name: await session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
            if name != "audit_entries"
        }


@pytest.mark.parametrize("query", IDS)
async def test_an_id_finds_nothing_or_is_refused(served: Served, query: str) -> None:
    async for _, answered in answers(served, query, {text: json.dumps({"it": text}) for text in STRINGS}):
        if "errors" not in answered:
            assert answered["data"] in ({"node": None}, {"deployments": {"totalCount": 0}})


@pytest.mark.parametrize("query", CURSORS)
async def test_a_cursor_is_refused(served: Served, query: str) -> None:
    async for text, answered in answers(served, query, {text: json.dumps({"it": text}) for text in STRINGS}):
        assert answered.get("errors") or not text, text  # an empty one is as none
