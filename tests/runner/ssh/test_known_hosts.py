"""Keys of hosts as people give them: what is taken, and which rule refuses the rest."""

import base64
import hashlib
import hmac
import subprocess
from pathlib import Path

import pytest

from runner.ssh.known_hosts import BadLine, HostKey, columns, has_authority, names_of, read, stored
from tests.support.attacks import LONG, PATHS, TEMPLATES

NAMES = names_of("Web.Example", 22)
ED25519 = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
KEY = f"ssh-ed25519 {ED25519}"
OWN = HostKey("ssh-ed25519", ED25519)
AUTHORITY = HostKey("ssh-ed25519", ED25519, is_authority=True)


def hashed(name: str) -> str:
    """The name as `ssh-keygen -H` keeps it."""
    salt = b"12345678901234567890"
    parts = (salt, hmac.digest(salt, name.encode(), hashlib.sha1))
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in parts)


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        f"{KEY} root@web",
        f"  {KEY}\t\r",
        f"# the new one\n\n{KEY}\n",
        f"{KEY}\n{KEY} again",
        f"web.example {KEY}",
        f"WEB.example,192.0.2.1\t{KEY} comment",
        f"[web.example]:22 {KEY}",
        f"*.example,!db.example {KEY}",
        f"w?b.* {KEY}",
        f"{hashed('web.example')} {KEY}",
        f"{hashed('[web.example]:22')} {KEY}",
    ],
)
def test_a_key_for_the_host_is_taken(line: str) -> None:
    assert set(read(line, NAMES)) == {OWN}


@pytest.mark.parametrize("name", ["web.example", "[web.example]:22"])
def test_a_file_whose_names_ssh_keygen_has_hashed_is_taken(tmp_path: Path, name: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"{name} {KEY}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    assert name not in path.read_text()
    assert read(path.read_text(), NAMES) == [OWN]
    with pytest.raises(BadLine, match="not for this host"):
        read(path.read_text(), names_of("other.example", 22))


@pytest.mark.parametrize("names", ["", "*", "*.example", "web.example"])
def test_an_authority_is_taken(names: str) -> None:
    assert read(f"@cert-authority {names} {KEY}", NAMES) == [AUTHORITY]


@pytest.mark.parametrize("kind", [["ed25519"], ["rsa"], *(["ecdsa", "-b", size] for size in ("256", "384", "521"))])
def test_keys_of_all_usual_types_are_taken(tmp_path: Path, kind: list[str]) -> None:
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", *kind, "-f", tmp_path / "key"], check=True)
    public = tmp_path / "key.pub"
    [key] = read(public.read_text(), NAMES)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", public], check=True, capture_output=True, text=True).stdout
    assert key.fingerprint == shown.split()[1]


def test_a_key_on_a_token_is_taken() -> None:
    # As in OpenSSH's PROTOCOL.u2f: the type, the key and an application.
    parts = (b"sk-ssh-ed25519@openssh.com", bytes(range(32)), b"ssh:")
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    [key] = read(f"sk-ssh-ed25519@openssh.com {base64.b64encode(blob).decode()}", NAMES)
    assert key.type == "sk-ssh-ed25519@openssh.com"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("", "EMPTY"),
        ("# only a comment\n \n", "EMPTY"),
        (f"@revoked * {KEY}", "MARKER"),
        (f"@CERT-AUTHORITY * {KEY}", "MARKER"),
        (f"@cert-authority,@revoked * {KEY}", "MARKER"),
        ("@cert-authority", "KEY_TYPE"),
        ("@cert-authority *", "KEY_TYPE"),
        ("web.example", "KEY_TYPE"),
        ("ssh-ed25519", "KEY_TYPE"),
        (f"ssh-dss {ED25519}", "KEY_TYPE"),
        (f"web.example ssh-dss {ED25519}", "KEY_TYPE"),
        (f"ssh-ed25519-cert-v01@openssh.com {ED25519}", "KEY_TYPE"),
        (f"web.example 1024 {KEY}", "KEY_TYPE"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "KEY_TYPE"),
        (f"other.example {KEY}", "NAME"),
        (f"@cert-authority *.other {KEY}", "NAME"),
        (f"*,!web.example {KEY}", "NAME"),
        (f"web.example.other {KEY}", "NAME"),
        (f"[web.example]:2222 {KEY}", "NAME"),
        (f"[a-z]eb.example {KEY}", "NAME"),
        (f"web\\.example {KEY}", "NAME"),
        (f"{hashed('other.example')} {KEY}", "NAME"),
        (f"|1|x|y {KEY}", "NAME"),
        (f"|1| {KEY}", "NAME"),
        (f"no-pty,command=id {KEY}", "NAME"),
        ("ssh-ed25519 AAAA", "KEY"),
        (f"ssh-rsa {ED25519}", "KEY"),
        (f"ssh-ed25519 {ED25519[:-4]}", "KEY"),
        (f"ssh-ed25519 {ED25519[:40]}%{ED25519[40:]}", "KEY"),
        (f"ssh-ed25519 {ED25519}AAAA", "KEY"),
        ("ssh-ed25519 ä", "KEY"),
        *((f"{text} {KEY}", "NAME") for text in ("$(id)", "`id`", "../../etc/passwd", "-oProxyCommand=id")),
        *((text, "KEY_TYPE") for text in (*TEMPLATES, *PATHS, LONG)),
    ],
)
def test_what_is_no_key_for_the_host_is_refused(line: str, code: str) -> None:
    with pytest.raises(BadLine) as refused:
        read(line, NAMES)
    assert refused.value.code == code


def test_one_bad_line_refuses_all_and_is_told_by_its_number_and_not_by_its_text() -> None:
    with pytest.raises(BadLine, match=r"^line 3 has another marker") as refused:
        read(f"# mine\n{KEY}\n@hidden * {KEY}\n", NAMES)
    assert "hidden" not in str(refused.value)


def test_a_pattern_of_many_stars_is_soon_compared() -> None:
    with pytest.raises(BadLine):
        read(f"{'*a' * 4000}b {KEY}", names_of("a" * 63 + ".a" * 90, 22))


def test_what_is_stored_is_for_this_host_only_and_is_read_again() -> None:
    told = columns([AUTHORITY, OWN, OWN])
    assert told == {"host_key_fingerprint": OWN.fingerprint, "known_hosts": f"@cert-authority * {KEY}\n* {KEY}\n"}
    assert stored(told["known_hosts"]) == [AUTHORITY, OWN]
    assert has_authority(told["known_hosts"])


def test_an_authority_is_no_key_of_the_host() -> None:
    assert columns([AUTHORITY])["host_key_fingerprint"] is None
    assert not has_authority(columns([OWN])["known_hosts"])


def test_the_line_that_ssh_has_written_is_read() -> None:
    assert stored(f"01900000-0000-7000-8000-000000000000 {KEY}\n") == [OWN]
    assert stored(None) == stored("") == stored("two words\n") == []
