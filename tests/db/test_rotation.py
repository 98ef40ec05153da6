"""A new key while others read and write: nothing is lost, and no key goes that something needs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import delete, select, update

from db import rotation
from db.database import Database
from db.encryption import Keyring, Secret
from db.key_file import KeyFile
from db.models import IdempotencyKey, Variable
from db.rotation import BATCH, CIPHERTEXTS, CannotRotate
from tests import factories

KEY = Fernet.generate_key().decode()


@pytest.fixture
def stale() -> Keyring:
    """The keyring of a server that does not see the new key."""
    return Keyring({"old": KEY})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a keyring with one key, "old"."""
    path = tmp_path / "keys"
    path.write_text(f"old {KEY}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def rotating(db: Database, path: Path) -> Iterator[Database]:
    """The database, with the keyring of the file."""
    before, db.keyring = db.keyring, Keyring.read(path)
    yield db
    db.keyring = before


async def _ciphertexts(db: Database) -> dict[str, str]:
    async with db.read() as session:
        rows = await session.execute(select(Variable.name, Variable.ciphertext).where(Variable.secret))
        return {name: ciphertext for name, ciphertext in rows if ciphertext is not None}


async def test_everything_is_encrypted_with_the_new_key_and_says_the_same(rotating: Database, path: Path) -> None:
    values = {f"S{number}": f"value {number}" for number in range(2 * BATCH + 1)}
    await factories.deployment(rotating, variables={"OPEN": "plain"}, secrets=values)
    KeyFile(path).put_new_key()
    assert await rotation.renew(rotating) == len(values)
    new, old = rotating.keyring.ids
    assert old == "old"
    ciphertexts = await _ciphertexts(rotating)
    assert all(ciphertext.startswith(f"{new}:") for ciphertext in ciphertexts.values())
    assert {name: rotating.keyring.decrypt(text).reveal() for name, text in ciphertexts.items()} == values
    assert await rotation.renew(rotating) == 0


async def test_a_second_run_goes_on_where_the_first_was_interrupted(
    rotating: Database, path: Path, stale: Keyring
) -> None:
    await factories.deployment(rotating, secrets={"A": "one"})
    KeyFile(path).put_new_key()
    assert await rotation.renew(rotating) == 1
    async with rotating.write() as session:
        await session.execute(update(Variable).values(ciphertext=stale.encrypt(Secret("two"))))
    assert await rotation.renew(rotating) == 1
    assert rotating.keyring.decrypt((await _ciphertexts(rotating))["A"]).reveal() == "two"


class Watched(Keyring):
    """Tells when it has decrypted something."""

    used: asyncio.Event

    def decrypt(self, ciphertext: str) -> Secret:
        self.used.set()
        return super().decrypt(ciphertext)


async def test_what_is_written_meanwhile_is_not_lost(rotating: Database, path: Path) -> None:
    await factories.deployment(rotating, secrets={"A": "one", "GONE": "x", "STAYS": "three"})
    KeyFile(path).put_new_key()
    keyring = Watched.read(path)
    keyring.used = asyncio.Event()
    rotating.keyring = keyring
    theirs = keyring.encrypt(Secret("theirs"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, rotating.write() as session:
        await session.execute(update(Variable).where(Variable.name == "A").values(ciphertext=theirs))
        await session.execute(delete(Variable).where(Variable.name == "GONE"))
        renewing = group.create_task(rotation.renew(rotating))
        await keyring.used.wait()  # it has read, and cannot write before this is committed
    assert renewing.result() == 1
    ciphertexts = await _ciphertexts(rotating)
    assert ciphertexts["A"] == theirs
    assert {name: keyring.decrypt(text).reveal() for name, text in ciphertexts.items()} == {
        "A": "theirs",
        "STAYS": "three",
    }


async def test_what_cannot_be_read_is_left_and_named(rotating: Database, path: Path) -> None:
    await factories.deployment(rotating, secrets={"A": "one", "LOST": "two"})
    lost = factories.keyring("lost").encrypt(Secret("two"))
    async with rotating.write() as session:
        await session.execute(update(Variable).where(Variable.name == "LOST").values(ciphertext=lost))
    KeyFile(path).put_new_key()
    assert await rotation.renew(rotating) == 1
    assert await rotation.unreadable(rotating) == {"lost": 1}
    assert (await _ciphertexts(rotating))["LOST"] == lost
    assert await rotation.retire(rotating, KeyFile(path)) == (["old"], 0)


async def test_a_key_that_something_needs_is_not_retired(rotating: Database, path: Path) -> None:
    await factories.deployment(rotating, secrets={"A": "one"})
    KeyFile(path).put_new_key()
    new, old = rotating.keyring.ids
    with pytest.raises(CannotRotate, match="1 with old"):
        await rotation.retire(rotating, KeyFile(path))
    assert rotating.keyring.ids == [new, old]
    await rotation.renew(rotating)
    assert await rotation.retire(rotating, KeyFile(path)) == ([old], 0)
    assert rotating.keyring.ids == [new]
    assert rotating.keyring.decrypt((await _ciphertexts(rotating))["A"]).reveal() == "one"


async def test_idempotency_keys_go_with_the_key_of_their_fingerprints(rotating: Database, path: Path) -> None:
    async def add(name: str) -> None:
        fingerprint = rotating.keyring.fingerprint(Secret(name))
        async with rotating.write() as session:
            row = IdempotencyKey(principal="p", mutation="m", key=name, fingerprint=fingerprint, object_ids=[])
            session.add(row)

    await add("before")
    KeyFile(path).put_new_key()
    await add("after")
    assert await rotation.retire(rotating, KeyFile(path)) == (["old"], 1)
    async with rotating.read() as session:
        assert list(await session.scalars(select(IdempotencyKey.key))) == ["after"]


def test_every_column_with_ciphertexts_is_known() -> None:
    assert {f"{column.table.name}.{column.name}" for column in CIPHERTEXTS} == {
        "registry_logins.ciphertext",
        "ssh_keys.ciphertext",
        "variables.ciphertext",
    }
