"""The open WebSockets and event streams: their number and cost per token, and when they must end."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from daos.auth.tokens import Authenticator
from daos.http.refusals import TooManyStreams
from resolvers.errors import Unauthenticated
from schema.limits import too_complex

logger = logging.getLogger(__name__)

RECHECK_INTERVAL = 30.0  # seconds; a revoked token's streams end within a minute
MAX_COST = 100_000  # fields, as `schema.limits` counts them


class Streams:
    """Counts streams and their cost by token, and waits for the reasons to end one."""

    def __init__(
        self,
        authenticator: Authenticator,
        most: int,
        recheck_interval: float = RECHECK_INTERVAL,
        max_cost: int = MAX_COST,
    ) -> None:
        self._authenticator = authenticator
        self._most = most  # of one token
        self._max_cost = max_cost  # of all subscriptions of one token
        self._recheck_interval = recheck_interval
        self._open: Counter[str] = Counter()
        self._costs: Counter[str] = Counter()
        self._closing = asyncio.Event()

    @contextmanager
    def open(self, principal: str) -> Iterator[None]:
        """Count a stream as open during the block.  Raises: TooManyStreams."""
        if self._open[principal] >= self._most:
            raise TooManyStreams
        self._open[principal] += 1
        try:
            yield
        finally:
            self._open[principal] -= 1
            if not self._open[principal]:
                del self._open[principal]

    @contextmanager
    def reserve(self, principal: str, cost: int) -> Iterator[None]:
        """Count the cost of a subscription during the block.  Raises: GraphQLError if the limit is exceeded."""
        if self._costs[principal] + cost > self._max_cost:
            message = (
                f"The open subscriptions of this token would cost {self._costs[principal] + cost} together, more than "
                f"{self._max_cost}.  Select fewer fields or smaller pages in them, or close some."
            )
            raise too_complex("subscriptionCost", self._max_cost, message)
        self._costs[principal] += cost
        try:
            yield
        finally:
            self._costs[principal] -= cost
            if not self._costs[principal]:
                del self._costs[principal]

    async def revoked(self, authorization: Callable[[], str | None]) -> bool:
        """Wait until a stream must end; return True if its token was revoked, False if the server is stopping.

        A WebSocket has no `authorization` before its connection_init; until then there is nothing to revoke.
        """
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(self._recheck_interval):
                    await self._closing.wait()
            except TimeoutError:
                shown = authorization()
                if shown is not None and not await self._is_valid(shown):
                    return True
        return False

    def close(self) -> None:
        """Signal that the server is stopping."""
        self._closing.set()

    async def _is_valid(self, authorization: str) -> bool:
        try:
            await self._authenticator.principal(authorization)
        except Unauthenticated:
            return False
        except Exception:
            logger.exception("a token cannot be checked, retrying")
        return True
