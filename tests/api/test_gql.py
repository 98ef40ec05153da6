"""Python's own client, `gql`, over HTTP and over websocket: what it gets and how it learns of errors."""

import asyncio
from typing import Any

import pytest
from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportConnectionFailed, TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from graphql import GraphQLError
from websockets.exceptions import ConnectionClosedError

from tests import factories
from tests.support.serving import ADMIN_TOKEN, NO_TLS, PATIENCE, Served

HOST = "query ($id: ID!) { host(id: $id) { name } }"
HOSTS = "{ hosts(first: 0) { nodes { id } } }"
DELETE = "mutation ($id: ID!) { deleteHost(input: {hostId: $id}) { deletedHostId } }"
RUN = "mutation ($id: ID!) { runDeployment(input: {deploymentId: $id}) { run { number } } }"
STATUS = "subscription ($id: ID!) { deploymentStatus(id: $id) { status } }"


def over_http(served: Served, token: str = ADMIN_TOKEN, **options: Any) -> Client:
    headers = {"Authorization": f"Bearer {token}"}
    transport = HTTPXAsyncTransport(served.url, headers=headers, timeout=PATIENCE, trust_env=False, verify=NO_TLS)
    return Client(transport=transport, **options)


def over_websocket(served: Served, token: str = ADMIN_TOKEN) -> Client:
    transport = WebsocketsTransport(
        served.url.replace("http:", "ws:"),
        init_payload={"Authorization": f"Bearer {token}"},
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        connect_args={"proxy": None},
    )
    return Client(transport=transport)


def request(document: str, **variables: object) -> GraphQLRequest:
    return GraphQLRequest(document, variable_values=variables)


def code(caught: pytest.ExceptionInfo[TransportQueryError]) -> Any:
    """The code of the one error that the client was told."""
    assert caught.value.errors is not None
    [error] = caught.value.errors
    return error["extensions"]["code"]


def event(status: str) -> dict[str, Any]:
    return {"deploymentStatus": {"status": status}}


async def test_a_query_and_a_mutation_take_variables(served: Served) -> None:
    host = await factories.host(served.db)
    async with over_http(served) as session:
        asked = await session.execute(request(HOST, id=str(host.id)))
        changed = await session.execute(request(DELETE, id=str(host.id)))
    assert asked == {"host": {"name": host.name}}
    assert changed == {"deleteHost": {"deletedHostId": str(host.id)}}


async def test_an_error_has_its_code(served: Served) -> None:
    async with over_http(served) as session:
        with pytest.raises(TransportQueryError) as caught:
            await session.execute(request(HOST, id="nothing"))
    assert code(caught) == "NOT_FOUND"
    assert caught.value.data == {"host": None}


async def test_a_refused_token_has_its_code(served: Served) -> None:
    async with over_http(served, token="wrong") as session:
        with pytest.raises(TransportQueryError) as caught:
            await session.execute(request(HOSTS))
    assert code(caught) == "UNAUTHENTICATED"


async def test_documents_are_checked_by_the_schema_that_introspection_gave(served: Served) -> None:
    async with over_http(served, fetch_schema_from_transport=True) as session:
        assert await session.execute(request(HOSTS)) == {"hosts": {"nodes": []}}
        with pytest.raises(
            GraphQLError, match="Cannot query field 'nope'"
        ):  # the server's would be TransportQueryError
            await session.execute(request("{ hosts { nodes { nope } } }"))


async def test_a_refused_token_closes_the_websocket_with_4403(served: Served) -> None:
    with pytest.raises(TransportConnectionFailed) as caught:
        async with over_websocket(served, token="wrong"):
            pass
    closed = caught.value.__cause__
    assert isinstance(closed, ConnectionClosedError)
    assert closed.rcvd is not None
    assert closed.rcvd.code == 4403


async def test_one_subscriptions_error_leaves_the_others_of_the_session_alone(served: Served) -> None:
    followed = [str((await factories.deployment(served.db)).id) for _ in range(3)]
    async with asyncio.timeout(PATIENCE), over_websocket(served) as session:
        streams = [session.subscribe(request(STATUS, id=each)) for each in followed]
        assert [await anext(stream) for stream in streams] == [event("PENDING")] * 3

        with pytest.raises(TransportQueryError) as caught:
            await anext(session.subscribe(request(STATUS, id="nothing")))
        assert code(caught) == "NOT_FOUND"
        with pytest.raises(TransportQueryError) as caught:
            await anext(session.subscribe(request("subscription { nope }")))
        assert code(caught) == "GRAPHQL_VALIDATION_FAILED"

        for each in followed:
            assert await session.execute(request(RUN, id=each)) == {"runDeployment": {"run": {"number": 1}}}
        assert [await anext(stream) for stream in streams] == [event("RUNNING")] * 3
        for stream in streams:
            await stream.aclose()
