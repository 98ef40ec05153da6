"""Why a host could not be contacted: what ssh prints, and the sentence for it."""

from dataclasses import replace

import pytest

from db.models import FailureReason
from runner.ssh import keys
from runner.ssh.failures import explain
from tests.runner.projects import TARGET


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("ssh: connect to host 192.0.2.1 port 22: Connection refused", FailureReason.HOST_UNREACHABLE),
        ("ssh: Could not resolve hostname nowhere: Name or service not known", FailureReason.HOST_UNREACHABLE),
        ("Connection timed out during banner exchange", FailureReason.HOST_UNREACHABLE),
        ("ssh: connect to host 192.0.2.1 port 22: No route to host", FailureReason.HOST_UNREACHABLE),
        ("something nobody has seen before", FailureReason.HOST_UNREACHABLE),
        ("WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!", FailureReason.HOST_KEY_MISMATCH),
        ("Host key verification failed.", FailureReason.HOST_KEY_MISMATCH),
        ("deploy@192.0.2.1: Permission denied (publickey).", FailureReason.AUTHENTICATION_FAILED),
        ("Received disconnect: Too many authentication failures", FailureReason.AUTHENTICATION_FAILED),
        ('Load key "/k": error in libcrypto\nPermission denied (publickey).', FailureReason.SSH_KEY_INVALID),
    ],
)
def test_sshs_words_give_the_reason_and_the_sentence_names_the_host(words: str, reason: FailureReason) -> None:
    found, message = explain(TARGET, words)
    assert found is reason
    assert "web-1" in message


ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
PINNED = keys.fingerprint(f"* {ED25519}")
SHOWN = "SHA256:" + 43 * "x"
CHANGED = f"""@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
The fingerprint for the ED25519 key sent by the remote host is
{SHOWN}.
Host key verification failed."""


def test_a_changed_key_is_explained_with_both_fingerprints_and_what_to_do() -> None:
    _, message = explain(replace(TARGET, known_hosts=f"* {ED25519}\n"), CHANGED)
    assert f"another host key than the pinned one: shown is {SHOWN}; pinned is {PINNED}." in message
    assert "scanHostKey" in message
    assert "trustHostKey" in message


def test_a_certificate_that_does_not_fit_is_explained() -> None:
    words = "Certificate invalid: expired\nHost key verification failed."
    reason, message = explain(replace(TARGET, known_hosts=f"@cert-authority * {ED25519}\n"), words)
    assert reason is FailureReason.HOST_KEY_MISMATCH
    assert "no certificate of a trusted authority fits 192.0.2.1; its certificate is invalid: expired." in message
