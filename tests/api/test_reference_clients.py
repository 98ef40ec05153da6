"""The audits of GraphQL over HTTP, and the reference clients of the streaming protocols.  They run on Node.js."""

import pytest

from tests import factories
from tests.support.node import Node
from tests.support.serving import ADMIN_TOKEN, Served

AUDITS = 61
DELETE = "mutation ($id: ID!) { deleteHost(input: {hostId: $id}) { deletedHostId } }"
TYPENAME = {"data": {"__typename": "Query"}}


async def test_all_audits_of_graphql_over_http_pass(node: Node, served: Served) -> None:
    results = await node.run("audits.js", served.url, ADMIN_TOKEN)
    assert len(results) == AUDITS
    assert [result for result in results if result["status"] != "ok"] == []


@pytest.mark.parametrize("kind", ["ws", "sse"])
async def test_a_reference_client_is_served(node: Node, served: Served, kind: str) -> None:
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
    asked, changed, followed, failed, invalid, broken = await node.run(
        "clients.js", kind, url, ADMIN_TOKEN, given=documents
    )
    assert asked == {"events": [TYPENAME], "error": None, "completed": True}
    assert changed["events"][0]["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    assert followed["events"] == [{"data": {"deploymentStatus": {"status": "PENDING"}}}]
    assert failed["events"][0]["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    for refused, code in ((invalid, "GRAPHQL_VALIDATION_FAILED"), (broken, "GRAPHQL_PARSE_FAILED")):
        # The websocket's protocol has a message for it, that of events has not.
        errors = refused["error"] if kind == "ws" else refused["events"][0]["errors"]
        assert errors[0]["extensions"]["code"] == code


async def test_a_reference_client_without_a_token_is_told_so(node: Node, served: Served) -> None:
    [over_websocket] = await node.run(
        "clients.js", "ws", served.url.replace("http:", "ws:"), "wrong", given=[{"query": "{ __typename }"}]
    )
    assert over_websocket["error"]["code"] == 4403
    [over_http] = await node.run("clients.js", "sse", served.url, "wrong", given=[{"query": "{ __typename }"}])
    assert "401" in over_http["error"]["message"]
