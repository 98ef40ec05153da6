"""Private keys as clients give them, and as they are kept."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from db.encryption import Secret
from resolvers.private_keys import Unusable, generate, read
from tests.support.keys import make_key

PASSPHRASE = "correct horse"
NONE = NoEncryption()


def ssh_keygen(*arguments: str) -> str:
    return subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True, text=True).stdout


def refused(text: str, passphrase: str | None = None) -> tuple[str, str]:
    """The argument that is to blame, and the code of the rule; nothing that was given is told."""
    with pytest.raises(Unusable) as caught:
        read(Secret(text), None if passphrase is None else Secret(passphrase))
    told = f"{caught.value} {caught.value.__cause__}"
    assert not [line for line in [*text.splitlines(), passphrase] if line and line in told]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.argument, caught.value.code


def as_pem(
    key: PrivateKeyTypes, form: PrivateFormat = PrivateFormat.PKCS8, encryption: KeySerializationEncryption = NONE
) -> str:
    return key.private_bytes(Encoding.PEM, form, encryption).decode()


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
@pytest.mark.parametrize("form", [(), ("-m", "PEM"), ("-m", "PKCS8")], ids=["openssh", "pem", "pkcs8"])
@pytest.mark.parametrize(
    "kind", [("ed25519",), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048")], ids=lambda kind: kind[0]
)
def test_a_key_of_ssh_keygen_is_kept_as_ssh_can_use_it(
    tmp_path: Path, kind: tuple[str, ...], form: tuple[str, ...], passphrase: str
) -> None:
    path = tmp_path / "key"
    ssh_keygen("-q", "-t", *kind, *form, "-N", passphrase, "-C", "me", "-f", str(path))
    key = read(Secret(path.read_text()), Secret(passphrase))
    assert key.public == " ".join(path.with_suffix(".pub").read_text().split()[:2])
    assert key.fingerprint == ssh_keygen("-l", "-f", str(path.with_suffix(".pub"))).split()[1]
    kept = tmp_path / "kept"
    kept.write_text(key.text.reveal())
    kept.chmod(0o600)
    assert ssh_keygen("-y", "-P", "", "-f", str(kept)).split() == key.public.split()


def test_a_new_key_is_another_one_each_time(tmp_path: Path) -> None:
    one, other = generate(), generate()
    assert one.public != other.public
    assert one.public.startswith("ssh-ed25519 ")
    path = tmp_path / "key"
    path.write_text(one.text.reveal())
    path.chmod(0o600)
    assert ssh_keygen("-y", "-P", "", "-f", str(path)).split() == one.public.split()


def test_line_ends_and_blanks_around_a_key_do_not_matter(tmp_path: Path) -> None:
    text = make_key(tmp_path / "key").read_text()
    public = read(Secret(text), None).public
    for written in (text.rstrip(), f"\n\n {text}", text.replace("\n", "\r\n")):
        assert read(Secret(written), None).public == public


@pytest.mark.parametrize("pem", [False, True])
def test_a_wrong_passphrase_is_told_from_a_missing_one(tmp_path: Path, pem: bool) -> None:
    text = make_key(tmp_path / "key", kind="rsa", passphrase=PASSPHRASE, pem=pem).read_text()
    assert refused(text) == ("passphrase", "REQUIRED")
    assert refused(text, "") == ("passphrase", "REQUIRED")
    assert refused(text, "battery staple") == ("passphrase", "PASSPHRASE")


def test_a_wrong_passphrase_of_a_cipher_that_notices_it_is_told_too(tmp_path: Path) -> None:
    ssh_keygen("-q", "-t", "ed25519", "-Z", "aes256-gcm@openssh.com", "-N", PASSPHRASE, "-f", str(tmp_path / "key"))
    text = (tmp_path / "key").read_text()
    assert refused(text, "battery staple") == ("passphrase", "PASSPHRASE")
    assert read(Secret(text), Secret(PASSPHRASE)).public.startswith("ssh-ed25519 ")


def test_a_passphrase_for_a_key_without_one_is_refused(tmp_path: Path) -> None:
    assert refused(make_key(tmp_path / "key").read_text(), PASSPHRASE) == ("passphrase", "NEEDLESS")


def test_what_is_no_private_key_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    text, public = (tmp_path / "key").read_text(), (tmp_path / "key.pub").read_text()
    half = text[: len(text) // 2]
    pem = as_pem(ec.generate_private_key(ec.SECP256R1()))
    for given in ("", "no key", public, half, f"{half}\n-----END OPENSSH PRIVATE KEY-----\n", pem[:100], "ü" * 50):
        assert refused(given) == ("private_key", "PRIVATE_KEY")
    assert refused("PuTTY-User-Key-File-3: ssh-ed25519\n") == ("private_key", "PRIVATE_KEY")


def test_a_key_of_a_kind_that_ssh_cannot_use_is_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256K1())
    for key in (curve, ed448.Ed448PrivateKey.generate(), x25519.X25519PrivateKey.generate()):
        assert refused(as_pem(key)) == ("private_key", "UNSUPPORTED")
    encrypted = as_pem(ed448.Ed448PrivateKey.generate(), encryption=BestAvailableEncryption(PASSPHRASE.encode()))
    assert refused(encrypted, PASSPHRASE) == ("private_key", "UNSUPPORTED")


def test_a_short_key_is_refused() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is the test
    for form in (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8, PrivateFormat.OpenSSH):
        assert refused(as_pem(short, form)) == ("private_key", "TOO_SHORT")
