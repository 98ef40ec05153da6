"""Strawberry's own ASGI application with daos' types, as in its documentation: the baseline of `bench.http`."""

import socket

import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from strawberry.asgi import GraphQL

from schema.mutation import Mutation
from schema.query import Query
from schema.subscription import Subscription


def main() -> None:
    """Serve on a free port, and print the URL."""
    endpoint: GraphQL[None, None] = GraphQL(strawberry.Schema(Query, Mutation, Subscription))
    app = Starlette(routes=[Route("/graphql", endpoint)])
    # With an explicit protocol: only then asyncio disables Nagle's algorithm; create_server does not set it.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run([listening])


if __name__ == "__main__":
    main()
