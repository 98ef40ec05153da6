"""The page of GraphiQL: static files built by `scripts/explorer`; it loads nothing from other servers."""

import mimetypes
import os
import re
import stat
from pathlib import Path

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FILES = Path(__file__).parents[1] / "explorer"
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Monaco writes <style> elements
        "font-src 'self' data:",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}
NOT_BUILT = """<!doctype html><html lang="en"><title>daos</title><h1>GraphiQL is not built</h1>
<p>The API works. To build GraphiQL in a checkout, install Node.js 20.19 or newer, run <code>scripts/explorer</code>
and reload this page. Packages of daos include it.</p></html>"""


def is_built(directory: Path = FILES) -> bool:
    """Whether `scripts/explorer` has built the page."""
    return (directory / "index.html").is_file()


class IDE(StaticFiles):
    """Serves the page, with precompressed files if the browser accepts gzip."""

    def __init__(self, directory: Path = FILES) -> None:
        super().__init__(directory=directory, check_dir=False)
        self._index = directory / "index.html"

    async def check_config(self) -> None:
        """Do nothing: Starlette's own check fails if the page is not built."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if not await to_thread.run_sync(self._index.is_file):
            return HTMLResponse(NOT_BUILT, 503, HEADERS)
        if scope["method"] not in {"GET", "HEAD"}:
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        name = "index.html" if path == "." else path
        full_path, state = await to_thread.run_sync(self._find, name)
        if state is None:
            raise HTTPException(404)
        # The names of assets contain a hash of their content.
        fresh = "public, max-age=31536000, immutable" if name.startswith("assets/") else "no-cache"
        headers = {**HEADERS, "Cache-Control": fresh}
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        if _takes_gzip(scope):
            compressed, compressed_state = await to_thread.run_sync(self._find, f"{name}.gz")
            if compressed_state is not None:
                full_path, state = compressed, compressed_state
                headers["Content-Encoding"] = "gzip"
        return FileResponse(full_path, headers=headers, media_type=media_type, stat_result=state)

    def _find(self, name: str) -> tuple[str, os.stat_result | None]:
        """Return a file's path and stat result, None if it does not exist.  Never a file outside the directory."""
        try:
            path, state = self.lookup_path(name)
        except (OSError, ValueError):  # too long, or with a null byte
            return "", None
        return path, state if state is not None and stat.S_ISREG(state.st_mode) else None


def _takes_gzip(scope: Scope) -> bool:
    refused = {}
    for part in Headers(scope=scope).get("accept-encoding", "").lower().split(","):
        coding, _, quality = part.replace(" ", "").partition(";q=")
        refused[coding] = bool(re.fullmatch(r"0(\.0*)?", quality))
    return not refused.get("gzip", refused.get("*", True))
