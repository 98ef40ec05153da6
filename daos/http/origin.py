"""Checks the Host and Origin headers: the names that the server accepts, and the pages that may send requests.

Tokens are not cookies, so a browser does not send them for a foreign page.  This is the second line of defense: against
pages that have obtained a token, and against names that an attacker points at this server (DNS rebinding).
"""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from strawberry.http.websocket_origin import is_same_origin, normalize_origin

from daos.http.refusals import ForeignHost, ForeignOrigin

ANY = "*"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def hosts_by_default(listening_on: str) -> str:
    """Return the host names that a server accepts if none are configured, comma-separated.

    On a loopback address only the loopback names: otherwise a foreign page could reach the server through its
    visitor's browser under a name of its own.  On any other address every name: the names of a server in its network
    cannot be known, and the first start must work; without a token, a rebound page only learns that one is required.
    """
    if listening_on == "localhost":
        return ",".join(LOOPBACK)
    try:
        address = ip_address(listening_on)
    except ValueError:
        return ANY
    if not address.is_loopback:
        return ANY
    own = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 - IP's version
    return ",".join(dict.fromkeys((*LOOPBACK, own)))


class Gate:
    """Refuses requests with a foreign Host or from a foreign Origin."""

    def __init__(self, hosts: str, origins: str) -> None:
        """Create the gate from comma-separated names and origins; `*` allows any."""
        self._hosts = frozenset(_items(hosts))
        self._origins = frozenset(normalize_origin(item) or item for item in _items(origins))

    def check(self, headers: Mapping[str, str]) -> None:
        """Check the headers of a request.  Raises: ForeignHost, ForeignOrigin."""
        if ANY not in self._hosts and _name(headers.get("host", "")) not in self._hosts:
            raise ForeignHost
        origin = headers.get("origin")
        # Only browsers send these, and a page cannot change them.
        site = headers.get("sec-fetch-site")
        if self.allows(origin) or site == "same-origin":
            return
        if site in {"cross-site", "same-site"}:
            raise ForeignOrigin
        if origin is not None and not is_same_origin(origin, headers.get("host")):
            raise ForeignOrigin

    def allows(self, origin: str | None) -> bool:
        """Whether the settings allow pages of this origin."""
        return origin is not None and (ANY in self._origins or (normalize_origin(origin) or "null") in self._origins)


def _items(text: str) -> list[str]:
    return [item.strip().lower().rstrip("/") for item in text.split(",") if item.strip()]


def _name(host: str) -> str:
    """Return the name in a Host header, without the port; empty if it is malformed."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    name = name.rstrip(".")
    return f"[{name}]" if ":" in name else name
