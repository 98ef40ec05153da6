"""A registry without images that requires a login: enough for `docker login`, and it records requests for images."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

NO_MANIFEST = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


@dataclass
class Registry:
    """The requests, with their logins."""

    username: str
    password: str
    address: str = ""  # on the loopback interface, where Docker uses HTTP
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, and "username:password"
    held: set[str] = field(default_factory=set)  # requested paths that have been waiting since `hold`
    _released: Event = field(default_factory=Event)

    def hold(self) -> None:
        """Respond to no request for an image until `release`."""
        self._released.clear()
        self.held.clear()

    def release(self) -> None:
        self._released.set()

    def wait(self, path: str) -> None:
        """Return when `path` may be answered."""
        if path != "/v2/" and not self._released.is_set():
            self.held.add(path)
            self._released.wait(60)

    @property
    def pulled_by(self) -> set[str | None]:
        """Return the logins that requested an image."""
        return {who for path, who in self.asked if "/manifests/" in path}


@contextmanager
def serve_registry(username: str, password: str) -> Iterator[Registry]:
    """A registry with one login."""
    registry = Registry(username, password)
    registry.release()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            who = _who(self.headers.get("Authorization"))
            registry.asked.append((self.path, who))
            registry.wait(self.path)
            if who != f"{username}:{password}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="tests"')
            else:
                self.send_response(200 if self.path == "/v2/" else 404)
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Content-Type", "application/json")
            body = b"{}" if who is None or self.path == "/v2/" else NO_MANIFEST
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.address = f"127.0.0.1:{server.server_port}"
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            yield registry
        finally:
            registry.release()
            server.shutdown()
            serving.join()


def _who(authorization: str | None) -> str | None:
    return base64.b64decode(authorization.split()[1]).decode() if authorization else None
