"""Who may ask from where: the names that the server answers to, and the pages that browsers may ask from.

Tokens are no cookies, so a foreign page has none to send.  This is the second line, for pages that have got one, and
against names that an attacker lets point here (DNS rebinding).
"""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from strawberry.http.websocket_origin import is_same_origin, normalize_origin

from daos.http.refusals import ForeignHost, ForeignOrigin

ANY = "*"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def hosts_by_default(listening_on: str) -> str:
    """The names that a server answers to when none were set.

    On a loopback address only those: a page elsewhere could reach it through its visitor's browser under a name of its
    own.  On any other address every name, for nobody can know by which a network calls its server, and the first start
    must work; what a rebound page is told without a token is that it needs one.
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
    """Refuses requests to foreign names and from foreign pages."""

    def __init__(self, hosts: str, origins: str) -> None:
        """Names and origins with commas between them; `*` allows any."""
        self._hosts = frozenset(_items(hosts))
        self._origins = frozenset(normalize_origin(item) or item for item in _items(origins))

    def check(self, headers: Mapping[str, str]) -> None:
        """Let the request pass.  Raises: ForeignHost, ForeignOrigin."""
        if ANY not in self._hosts and _name(headers.get("host", "")) not in self._hosts:
            raise ForeignHost
        origin = headers.get("origin")
        # Only browsers send these, and no page can change what they say.
        site = headers.get("sec-fetch-site")
        if self.allows(origin) or site == "same-origin":
            return
        if site in {"cross-site", "same-site"}:
            raise ForeignOrigin
        if origin is not None and not is_same_origin(origin, headers.get("host")):
            raise ForeignOrigin

    def allows(self, origin: str | None) -> bool:
        """Whether pages of this origin were allowed by name."""
        return origin is not None and (ANY in self._origins or (normalize_origin(origin) or "null") in self._origins)


def _items(text: str) -> list[str]:
    return [item.strip().lower().rstrip("/") for item in text.split(",") if item.strip()]


def _name(host: str) -> str:
    """A Host header's name without its port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    name = name.rstrip(".")
    return f"[{name}]" if ":" in name else name
