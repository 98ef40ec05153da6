"""Tokens of an OpenID Connect issuer, which is a real HTTP server of the test's."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from daos.auth import oidc
from daos.auth.oidc import Issuer, Trust
from daos.auth.tokens import Authenticator
from daos.settings import BadSetting, Settings
from db.database import Database
from db.encryption import Secret
from db.models import Role
from resolvers.errors import Unauthenticated
from resolvers.tokens import Principal

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


class Provider:
    """An issuer with keys by id; `asked` counts how often they were read."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"one": RSA}
        self.asked = 0
        self.is_down = False
        self.claims_to_be: str | None = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if provider.is_down:
                    self.send_error(503)
                    return
                body = json.dumps(provider.answer(self.path)).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str) -> dict[str, Any]:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.claims_to_be or self.url, "jwks_uri": f"{self.url}/keys"}
        self.asked += 1
        odd = {"kty": "unknown", "kid": "odd"}
        return {"keys": [odd, *(_public(key_id, key) for key_id, key in self.keys.items())]}

    def token(self, key: Any = RSA, key_id: str = "one", algorithm: str = "RS256", **claims: Any) -> str:
        usual = {
            "iss": self.url,
            "aud": "daos",
            "sub": "alice",
            "exp": time.time() + 60,
            "daos_role": "deployer",
        }
        given = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(given, key, algorithm, headers={"kid": key_id})


def _public(key_id: str, key: Any) -> dict[str, Any]:
    algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": key_id, "use": "sig"}


def _signed_with_what_is_public(token: str, public: bytes) -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).decode().rstrip("=")
    content = f"{header}.{token.split('.')[1]}"
    mac = hmac.digest(public, content.encode(), "sha256")
    return f"{content}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    thread = threading.Thread(target=provider.server.serve_forever)
    thread.start()
    yield provider
    provider.server.shutdown()
    thread.join()
    provider.server.server_close()


@pytest.fixture
def issuer(provider: Provider) -> Issuer:
    return Issuer(Trust(provider.url, "daos", "daos_role", "daos_host_labels"))


async def test_a_token_of_the_issuer_says_who_and_what(provider: Provider, issuer: Issuer, sqlite_db: Database) -> None:
    authenticator = Authenticator(sqlite_db, Secret("admin"), issuer)
    shown = f"Bearer {provider.token()}"
    assert await authenticator.principal(shown) == Principal("oidc:alice", Role.DEPLOYER)
    with pytest.raises(Unauthenticated):
        await Authenticator(sqlite_db, Secret("admin")).principal(shown)


async def test_a_key_on_a_curve_is_one_too(provider: Provider, issuer: Issuer) -> None:
    provider.keys["curve"] = EC
    assert (await issuer.principal(provider.token(EC, "curve", "ES256"))).name == "oidc:alice"


@pytest.mark.parametrize(
    ("claim", "role"),
    [
        ("viewer", Role.VIEWER),
        ("ADMIN", Role.ADMIN),
        (["other", "operator", "viewer"], Role.OPERATOR),
        ("owner", None),
        ("", None),
        (None, None),
        ([], None),
        ({"role": "admin"}, None),
        (7, None),
    ],
    ids=str,
)
async def test_the_highest_role_counts_and_without_one_nothing_is_told(
    provider: Provider, issuer: Issuer, claim: object, role: Role | None
) -> None:
    token = provider.token(daos_role=claim)
    if role is None:
        with pytest.raises(Unauthenticated):
            await issuer.principal(token)
    else:
        assert (await issuer.principal(token)).role is role


@pytest.mark.parametrize(
    ("claim", "labels"), [(["a", "b"], ["a", "b"]), ([], []), ("a", []), ([1], []), (None, None)], ids=str
)
async def test_labels_limit_and_what_is_no_list_limits_to_nothing(
    provider: Provider, issuer: Issuer, claim: object, labels: list[str] | None
) -> None:
    principal = await issuer.principal(provider.token(daos_host_labels=claim))
    assert principal.labels == (None if labels is None else frozenset(labels))


WRONG: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "other"},
    "another issuer": {"iss": "https://other.example"},
    "expired": {"exp": time.time() - 60},
    "without an end": {"exp": None},
    "without a subject": {"sub": None},
    "not yet": {"nbf": time.time() + 3600},
    "another key": {"key": OTHER},
    "unknown key": {"key_id": "two"},
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_token_with_something_wrong_is_refused(provider: Provider, issuer: Issuer, wrong: str) -> None:
    token = provider.token(**WRONG[wrong])
    with pytest.raises(Unauthenticated):
        await issuer.principal(token)


async def test_a_token_that_anybody_could_have_made_is_refused(provider: Provider, issuer: Issuer) -> None:
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for token in (
        provider.token("", algorithm="none"),
        _signed_with_what_is_public(provider.token(), public),
        "a.b.c",
        "..",
        "ey.ey.ey",
    ):
        with pytest.raises(Unauthenticated):
            await issuer.principal(token)


async def test_a_new_key_is_found_but_not_looked_for_all_the_time(
    provider: Provider, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await issuer.principal(provider.token())
    provider.keys = {"two": OTHER}
    new = provider.token(OTHER, "two")
    for _ in range(3):
        with pytest.raises(Unauthenticated):  # the keys were read just now
            await issuer.principal(new)
    assert provider.asked == 1
    monkeypatch.setattr(oidc, "PAUSE", 0.0)
    assert (await issuer.principal(new)).name == "oidc:alice"
    with pytest.raises(Unauthenticated):  # the issuer has taken it back
        await issuer.principal(provider.token())


async def test_keys_are_kept_while_the_issuer_is_away(
    provider: Provider, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await issuer.principal(provider.token())
    monkeypatch.setattr(oidc, "LIFETIME", 0.0)
    provider.is_down = True
    assert (await issuer.principal(provider.token())).name == "oidc:alice"


async def test_an_issuer_that_says_it_is_another_is_not_believed(provider: Provider, issuer: Issuer) -> None:
    provider.claims_to_be = "https://other.example"
    with pytest.raises(Unauthenticated):
        await issuer.principal(provider.token())


@pytest.mark.parametrize("address", ["http://issuer.example", "file:///etc", "issuer.example", "https://"])
def test_an_issuer_has_an_address_that_can_be_trusted(address: str) -> None:
    with pytest.raises(BadSetting, match="DAOS_OIDC_ISSUER"):
        Settings.read({"DAOS_OIDC_ISSUER": address})
    assert Settings.read({"DAOS_OIDC_ISSUER": "https://issuer.example/realm"}).trust is not None
