"""What tests of subscriptions share: how to take what is watched, and what makes changes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import Deployment, RunStatus
from resolvers import tail
from tests import factories

Seen = TypeVar("Seen")


async def take(watched: AsyncGenerator[Seen], count: int) -> list[Seen]:
    """The next `count` of what is watched; sooner than the look that needs no news."""
    async with asyncio.timeout(tail.POLL_INTERVAL / 2):
        return [await anext(watched) for _ in range(count)]


async def take_rest(watched: AsyncGenerator[Seen]) -> list[Seen]:
    """What comes until the end."""
    async with asyncio.timeout(tail.POLL_INTERVAL / 2):
        return [seen async for seen in watched]


async def play(db: Database, broadcast: Broadcast, deployment: Deployment, times: int) -> None:
    """Run the deployment `times` times, in turn with success and without."""
    for number in range(times):
        await factories.run(db, deployment, RunStatus.FAILED if number % 2 else RunStatus.SUCCESS)
        broadcast.notify(deployment.id, Everything.DEPLOYMENTS)
