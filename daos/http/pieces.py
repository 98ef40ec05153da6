"""A response that is sent in pieces, so that the server buffers little of it for a client that does not read."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schema.answer import LARGE, Share


class InPieces(Response):
    """A response whose next piece is passed on only when the client has received most of the previous ones.

    Uvicorn buffers a body that is sent whole at once (0.54).  `share` is released after the last piece.
    """

    share: Share | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            rest = memoryview(self.body)
            while len(rest) > LARGE:
                await send({"type": "http.response.body", "body": bytes(rest[:LARGE]), "more_body": True})
                rest = rest[LARGE:]
            await send({"type": "http.response.body", "body": bytes(rest)})
        finally:
            if self.share is not None:
                self.share.release()
