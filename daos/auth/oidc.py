"""Verifies tokens of an OpenID Connect issuer: JWTs that it has signed for this server.

Its keys are read from the `jwks_uri` of its discovery document and cached.  A token with an unknown key causes them to
be read again, but at most once in `PAUSE` seconds, however many such tokens arrive.
"""

import asyncio
import json
import logging
import time
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt

from db.models import Role
from resolvers.errors import TokenOfIssuerRefused
from resolvers.tokens import Principal

logger = logging.getLogger(__name__)

# Only asymmetric algorithms: with the symmetric ones, everyone who can verify a token can also create one.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY = 30  # seconds by which the two clocks may differ
TIMEOUT = 5.0  # seconds for each response of the issuer
MAX_ANSWER = 1024 * 1024  # bytes
PAUSE = 10.0  # seconds between two reads of the keys
LIFETIME = 3600.0  # seconds after which they are read again, to drop a key that the issuer has revoked


@dataclass(frozen=True)
class Trust:
    """The trusted issuer, the required audience, and the claims that carry role and labels."""

    issuer: str
    audience: str
    role_claim: str
    labels_claim: str


def problem_of(issuer: str) -> str | None:
    """Return why the URL is refused, None if it is accepted: https, or http on loopback."""
    parts = urlsplit(issuer)
    if parts.scheme == "https" and parts.hostname:
        return None
    if parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}:
        return None
    return "must be an https:// URL"


class Issuer:
    """One issuer and its keys."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = -LIFETIME
        self._reading = asyncio.Lock()

    async def principal(self, token: str) -> Principal:
        """Return the principal that the JWT authenticates.  Raises: TokenOfIssuerRefused."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = await self._key(key_id)
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._trust.audience,
                issuer=self._trust.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            logger.info("a token of the issuer was refused: %s", error)
            raise TokenOfIssuerRefused from error
        role = _role(claims.get(self._trust.role_claim))
        if role is None:
            logger.info("a token of the issuer has no valid role in its claim %s", self._trust.role_claim)
            raise TokenOfIssuerRefused
        labels = claims.get(self._trust.labels_claim)
        # As with daos' own tokens, an admin is not limited.  A claim that is not a list of strings permits no host.
        limited = None if labels is None or role is Role.ADMIN else frozenset(_words(labels))
        return Principal(f"oidc:{claims['sub']}", role, limited)

    async def _key(self, key_id: str | None) -> jwt.PyJWK:
        """Return the issuer's key with this id.  Raises: TokenOfIssuerRefused."""
        async with self._reading:
            age = time.monotonic() - self._read_at
            if age > LIFETIME or (key_id not in self._keys and age > PAUSE):
                self._read_at = time.monotonic()
                try:
                    self._keys = await asyncio.to_thread(_read_keys, self._trust.issuer)
                except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
                    logger.warning("the keys of %s cannot be read: %s", self._trust.issuer, error)
        if key_id not in self._keys:
            raise TokenOfIssuerRefused
        return self._keys[key_id]


def _read_keys(issuer: str) -> dict[str | None, jwt.PyJWK]:
    """Fetch the issuer's keys, by id.  Raises: OSError, ValueError, KeyError, TypeError, PyJWTError."""
    discovery = _get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if discovery["issuer"] != issuer:
        raise ValueError(f"its discovery document names the issuer {discovery['issuer']}")
    address = discovery["jwks_uri"]
    if (problem := problem_of(address)) is not None:
        raise ValueError(f"its jwks_uri {problem}")
    keys = {}
    for each in _get(address)["keys"]:
        if each.get("use", "sig") == "sig":
            try:
                key = jwt.PyJWK.from_dict(each)
            except jwt.PyJWTError:
                continue  # of a type that this library does not know; other keys may be usable
            keys[key.key_id] = key
    return keys


def _get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310 - http and https only, see problem_of
        return json.loads(answer.read(MAX_ANSWER))


def _role(claim: object) -> Role | None:
    """Return the highest role in the claim, a string or a list; None if it has none."""
    words = {word.upper() for word in _words([claim] if isinstance(claim, str) else claim)}
    return max((role for role in Role if role in words), key=lambda role: role.rank, default=None)


def _words(claim: object) -> list[str]:
    return [each for each in claim if isinstance(each, str)] if isinstance(claim, list) else []
