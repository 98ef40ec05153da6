"""The probes /healthz and /readyz, and /metrics.  They require no token and expose no names."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from daos.monitoring.metrics import Metrics
from daos.parts import Parts


def routes(parts: Parts) -> list[Route]:
    """Return the routes of the three paths."""
    metrics = Metrics(parts)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        problems = await parts.problems()
        if problems:
            return PlainTextResponse(f"not ready: {'; '.join(problems)}\n", 503)
        return PlainTextResponse("ready\n")

    async def scrape(_request: Request) -> Response:
        return await metrics.response()

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)]
