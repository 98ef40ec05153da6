"""Scanning and trusting by the API: payloads, errors, who may, and the audit."""

import pytest

from db.models import Role
from resolvers.tokens import Principal
from tests import factories
from tests.support.api import Api, audit_entries
from tests.support.port import free_port
from tests.support.sshd import SshServer

SCAN = """mutation($id: ID!) { scanHostKey(input: {hostId: $id}) {
    host { id hostKeyFingerprint } keys { type fingerprint isPinned } } }"""
TRUST = """mutation($id: ID!, $fingerprint: String!) { trustHostKey(input: {hostId: $id, fingerprint: $fingerprint}) {
    host { hostKeyFingerprint pinnedKeys { type fingerprint isAuthority } } } }"""
NONE = f"SHA256:{'A' * 43}"


async def test_a_key_is_scanned_and_trusted_and_both_are_written_down(api: Api, sshd: SshServer) -> None:
    host = await factories.host(api.db, address=sshd.address, port=sshd.port)
    shown = {"type": "ssh-ed25519", "fingerprint": sshd.host_key_fingerprint}
    scanned = (await api.ask(SCAN, id=str(host.id)))["scanHostKey"]
    assert scanned == {"host": {"id": str(host.id), "hostKeyFingerprint": None}, "keys": [{**shown, "isPinned": False}]}
    told = (await api.ask(TRUST, id=str(host.id), fingerprint=shown["fingerprint"]))["trustHostKey"]["host"]
    assert told == {"hostKeyFingerprint": shown["fingerprint"], "pinnedKeys": [{**shown, "isAuthority": False}]}
    assert (await api.ask(SCAN, id=str(host.id)))["scanHostKey"]["keys"] == [{**shown, "isPinned": True}]
    error = await api.error(TRUST, id=str(host.id), fingerprint=NONE)
    assert error["extensions"]["problems"][0]["path"] == ["input", "fingerprint"]
    written = [(entry["mutation"], entry["objectIds"], entry["outcome"]) for entry in await audit_entries(api)]
    assert written == [
        ("trustHostKey", [str(host.id)], "BAD_USER_INPUT"),
        ("scanHostKey", [str(host.id)], "OK"),
        ("trustHostKey", [str(host.id)], "OK"),
        ("scanHostKey", [str(host.id)], "OK"),
    ]


async def test_a_host_that_does_not_answer_has_a_code_of_its_own(api: Api, sshd: SshServer) -> None:
    port = free_port(sshd.address)
    host = await factories.host(api.db, address=sshd.address, port=port)
    error = await api.error(SCAN, id=str(host.id))
    assert error["extensions"] == {"code": "HOST_UNREACHABLE", "status": 400}
    words = f"it refuses the connection to {sshd.address} port {port}"
    assert error["message"] == f"Host '{host.id}' cannot be asked for its keys: {words}."


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.DEPLOYER])
async def test_who_may_run_may_look_and_only_an_admin_may_trust(api: Api, sshd: SshServer, role: Role) -> None:
    host = await factories.host(api.db, labels=["ours"], address=sshd.address, port=sshd.port)
    api.context.identify(Principal("me", role, frozenset({"ours"})))
    result = await api.execute(SCAN, id=str(host.id))
    assert (result.errors is None) == (role is not Role.VIEWER)
    assert (await api.error(TRUST, id=str(host.id), fingerprint=NONE))["extensions"]["code"] == "FORBIDDEN"


async def test_a_host_of_others_is_not_asked(api: Api, sshd: SshServer) -> None:
    host = await factories.host(api.db, labels=["theirs"], address=sshd.address, port=sshd.port)
    api.context.identify(Principal("me", Role.OPERATOR, frozenset({"ours"})))
    assert (await api.error(SCAN, id=str(host.id)))["extensions"]["code"] == "NOT_FOUND"


async def test_keys_are_imported_and_a_bad_line_is_told_by_its_number(api: Api, sshd: SshServer) -> None:
    document = """mutation($keys: String!) {
        createHost(input: {name: "web", address: "web.example", knownHosts: $keys}) { host { hostKeyFingerprint } } }"""
    error = await api.error(document, keys=f"{sshd.host_key}\n@revoked * {sshd.host_key}")
    assert error["extensions"]["problems"] == [
        {
            "path": ["input", "knownHosts"],
            "code": "MARKER",
            "message": "knownHosts: line 2 has another marker than @cert-authority.",
        }
    ]
    told = await api.ask(document, keys=sshd.host_key)
    assert told["createHost"]["host"]["hostKeyFingerprint"] == sshd.host_key_fingerprint
