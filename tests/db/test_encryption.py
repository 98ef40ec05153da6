"""Secrets at rest: the keyring, its file, and the type that does not print."""

import asyncio
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from db.database import Database
from db.encryption import Keyring, Secret, UnknownKey, write_private
from db.models import Variable
from tests import factories

PLAIN = "correct horse battery staple"


def _content(directory: Path) -> bytes:
    """All that is in the files of SQLite, the write-ahead log among them."""
    files = sorted(directory.iterdir())
    assert [path.name for path in files] == ["daos.db", "daos.db-shm", "daos.db-wal"]
    return b"".join(path.read_bytes() for path in files)


def _key() -> str:
    return Fernet.generate_key().decode()


@pytest.mark.parametrize("shown", [str, repr, "{}".format, "{!r:>8}".format, lambda secret: f"{[secret]}"[1:-1]])
def test_a_secret_prints_as_stars(shown: object) -> None:
    assert callable(shown)
    assert shown(Secret(PLAIN)) == "********"


def test_what_is_encrypted_comes_back() -> None:
    keyring = factories.keyring("a")
    ciphertext = keyring.encrypt(Secret("pässwörd\n\0 🔑"))
    assert ciphertext.startswith("a:")
    assert keyring.decrypt(ciphertext).reveal() == "pässwörd\n\0 🔑"


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old, new = _key(), _key()
    before = Keyring({"old": old}).encrypt(Secret(PLAIN))
    rotated = Keyring({"new": new, "old": old})
    assert rotated.decrypt(before).reveal() == PLAIN
    after = rotated.encrypt(Secret(PLAIN))
    assert after.startswith("new:")
    assert Keyring({"new": new}).decrypt(after).reveal() == PLAIN


def test_a_fingerprint_tells_whether_a_secret_is_the_same_and_nothing_of_it() -> None:
    keyring = factories.keyring()
    fingerprint = keyring.fingerprint(Secret(PLAIN))
    assert fingerprint == keyring.fingerprint(Secret(PLAIN))
    assert keyring.matches(fingerprint, Secret(PLAIN))
    assert not keyring.matches(fingerprint, Secret(PLAIN + " "))
    assert hashlib.sha256(PLAIN.encode()).hexdigest() not in fingerprint
    assert not factories.keyring().matches(fingerprint, Secret(PLAIN))  # another key of the same id


def test_a_fingerprint_is_known_for_as_long_as_its_key() -> None:
    old, new = _key(), _key()
    fingerprint = Keyring({"old": old}).fingerprint(Secret(PLAIN))
    assert Keyring({"new": new, "old": old}).matches(fingerprint, Secret(PLAIN))
    assert not Keyring({"new": new}).matches(fingerprint, Secret(PLAIN))


def test_a_key_that_is_gone_is_named() -> None:
    ciphertext = factories.keyring("old").encrypt(Secret(PLAIN))
    with pytest.raises(UnknownKey, match=r"\Aold\Z"):
        factories.keyring("new").decrypt(ciphertext)


def test_another_key_of_the_same_id_is_unknown() -> None:
    with pytest.raises(UnknownKey):
        factories.keyring().decrypt(factories.keyring().encrypt(Secret(PLAIN)))


def test_a_ciphertext_that_was_changed_is_refused() -> None:
    keyring = factories.keyring()
    ciphertext = keyring.encrypt(Secret(PLAIN))
    flipped = ciphertext[:-10] + ("A" if ciphertext[-10] != "A" else "B") + ciphertext[-9:]
    with pytest.raises(UnknownKey):
        keyring.decrypt(flipped)


def test_a_keyring_needs_a_key() -> None:
    with pytest.raises(ValueError, match="a keyring needs a key"):
        Keyring({})


def test_the_first_start_makes_a_keyring_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    umask = os.umask(0)
    try:
        ciphertext = Keyring.open(path).encrypt(Secret(PLAIN))
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.open(path).decrypt(ciphertext).reveal() == PLAIN
    assert list(tmp_path.iterdir()) == [path]


def test_the_keys_of_a_file_are_in_the_order_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    path.write_text(f"new {_key()}\nold {_key()}\n")
    assert Keyring.open(path).encrypt(Secret(PLAIN)).startswith("new:")


def test_a_new_first_key_in_the_file_is_used_by_the_next_encryption(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    path.write_text(f"old {_key()}\n")
    keyring = Keyring.read(path)
    before = keyring.encrypt(Secret(PLAIN))
    _replace(path, f"new {_key()}\n{path.read_text()}")
    assert keyring.encrypt(Secret(PLAIN)).startswith("new:")
    assert keyring.fingerprint(Secret(PLAIN)).startswith("new:")
    assert keyring.ids == ["new", "old"]
    assert keyring.decrypt(before).reveal() == PLAIN


def test_a_key_that_is_new_in_the_file_decrypts_and_tells_fingerprints(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    path.write_text(f"old {_key()}\n")
    keyring, other = Keyring.read(path), Keyring.read(path)
    _replace(path, f"new {_key()}\n{path.read_text()}")
    elsewhere = Keyring.read(path)
    assert keyring.decrypt(elsewhere.encrypt(Secret(PLAIN))).reveal() == PLAIN
    assert other.matches(elsewhere.fingerprint(Secret(PLAIN)), Secret(PLAIN))


def test_an_unknown_key_is_looked_for_in_a_file_that_seems_to_be_the_same(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    path.write_text(f"old {_key()}\n")
    keyring, times = Keyring.read(path), path.stat()
    path.write_text(f"new {_key()}\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert keyring.decrypt(Keyring.read(path).encrypt(Secret(PLAIN))).reveal() == PLAIN


@pytest.mark.parametrize("content", [None, "", "no keyring\n"])
def test_a_file_that_becomes_useless_leaves_the_keys_as_they_were(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secret-key"
    path.write_text(f"old {_key()}\n")
    keyring, good = Keyring.read(path), path.read_text()
    path.unlink()
    if content is not None:
        path.write_text(content)
    before = [keyring.encrypt(Secret(PLAIN)) for _ in range(3)]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(path) in caplog.text
    with pytest.raises(UnknownKey):
        keyring.decrypt("new:x")
    _replace(path, f"new {_key()}\n{good}")
    assert keyring.encrypt(Secret(PLAIN)).startswith("new:")
    assert [keyring.decrypt(ciphertext).reveal() for ciphertext in before] == [PLAIN] * 3


def _replace(path: Path, content: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(content)
    new.replace(path)


@pytest.mark.parametrize("content", ["", "\n", "no key at all\n", "id short\n", "kä " + "A" * 43 + "=\n"])
def test_a_file_that_is_no_keyring_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret-key"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"."):
        Keyring.open(path)
    assert path.read_text() == content


def test_processes_that_start_together_get_one_keyring(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    with ThreadPoolExecutor(8) as threads:
        rings = list(threads.map(Keyring.open, [path] * 8))
    ciphertexts = [ring.encrypt(Secret(PLAIN)) for ring in rings]
    assert [Keyring.open(path).decrypt(ciphertext).reveal() for ciphertext in ciphertexts] == [PLAIN] * 8


def test_a_private_file_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("first")
    with pytest.raises(FileExistsError):
        write_private(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_one_of_many_writers_of_a_private_file_wins_and_its_content_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [f"{number}" * 100_000 for number in range(8)]

    def write(content: str) -> str | None:
        try:
            write_private(path, content)
        except FileExistsError:
            return None
        return content

    with ThreadPoolExecutor(8) as threads:
        won = [content for content in threads.map(write, contents) if content is not None]
    assert won == [path.read_text()]
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_private(tmp_path / "file", "whole until \ud800")
    assert list(tmp_path.iterdir()) == []


async def test_a_secret_variable_is_nowhere_in_the_database_file(own_sqlite_db: Database, tmp_path: Path) -> None:
    await factories.deployment(own_sqlite_db, variables={"OPEN": "plain to see"}, secrets={"HIDDEN": PLAIN})
    stored = await asyncio.to_thread(_content, tmp_path)
    assert b"plain to see" in stored
    assert PLAIN.encode() not in stored


async def test_a_secret_variable_has_only_its_ciphertext_in_its_row(db: Database) -> None:
    deployment = await factories.deployment(db, secrets={"HIDDEN": PLAIN})
    async with db.read() as session:
        [variable] = await session.scalars(select(Variable).where(Variable.deployment_id == deployment.id))
    assert variable.value is None
    assert variable.ciphertext is not None
    assert db.keyring.decrypt(variable.ciphertext).reveal() == PLAIN
