"""SSH keys are looked at before a run needs them."""

import os
import subprocess
from pathlib import Path

import pytest

from db.models import FailureReason
from runner.ssh.keys import KeyProblem, check_private_key, fingerprint
from tests.support.keys import make_key


@pytest.mark.parametrize(("kind", "pem"), [("ed25519", False), ("ecdsa", False), ("rsa", False), ("rsa", True)])
def test_a_key_that_ssh_can_use_is_accepted(tmp_path: Path, kind: str, pem: bool) -> None:
    check_private_key(make_key(tmp_path / "key", kind=kind, pem=pem))


def problem_with(path: Path) -> KeyProblem:
    with pytest.raises(KeyProblem) as caught:
        check_private_key(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_a_missing_key_is_not_found(tmp_path: Path) -> None:
    assert problem_with(tmp_path / "none").reason is FailureReason.SSH_KEY_NOT_FOUND
    (tmp_path / "file").touch()
    assert problem_with(tmp_path / "file" / "below").reason is FailureReason.SSH_KEY_NOT_FOUND


def test_a_key_with_a_passphrase_is_invalid_and_says_so(tmp_path: Path) -> None:
    for pem in (False, True):
        problem = problem_with(make_key(tmp_path / f"key-{pem}", kind="rsa", passphrase="hunter2", pem=pem))
        assert problem.reason is FailureReason.SSH_KEY_INVALID
        assert "passphrase" in str(problem)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", b"\0" * 100_000])
def test_what_is_no_key_is_invalid(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert problem_with(path).reason is FailureReason.SSH_KEY_INVALID


def test_a_public_key_is_invalid(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    public = tmp_path / "key.pub"
    public.chmod(0o600)
    assert problem_with(public).reason is FailureReason.SSH_KEY_INVALID


def test_a_key_that_others_may_read_is_invalid_and_says_what_to_do(tmp_path: Path) -> None:
    path = make_key(tmp_path / "key")
    path.chmod(0o644)
    problem = problem_with(path)
    assert problem.reason is FailureReason.SSH_KEY_INVALID
    assert f"chmod 600 {path}" in str(problem)


def test_what_is_no_file_is_invalid_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        assert problem_with(path).reason is FailureReason.SSH_KEY_INVALID


def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key").with_suffix(".pub")
    command = ["ssh-keygen", "-l", "-f", str(public)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]
    assert fingerprint(f"some-host {public.read_text()}") == shown
