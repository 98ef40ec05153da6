"""The commands `daos secrets …`: what they say, and what they refuse in one line."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from daos.app import CannotStart, keyring, opened
from daos.commands import secrets
from daos.settings import Settings
from db.key_file import KeyFile
from db.rotation import CannotRotate
from resolvers import audit

LONG_AGO = 1_000_000_000  # seconds since 1970

Command = Callable[[Settings], Awaitable[None]]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The file of a keyring with one key, "first"."""
    path = tmp_path / "keys"
    path.write_text(f"first {Fernet.generate_key().decode()}\n")
    return path


@pytest.fixture
def settings(tmp_path: Path, keys: Path) -> Settings:
    """Of a data directory with nothing in it."""
    return Settings(data_dir=tmp_path / "data", secret_key_file=keys)


def _put(path: Path, content: str | None) -> None:
    """Let the file have this content; None: there is none."""
    path.unlink()
    if content is not None:
        path.write_text(content)


def _ids(path: Path) -> list[str]:
    return [line.split()[0] for line in path.read_text().splitlines()]


async def test_a_new_key_comes_first_and_older_ones_can_be_retired(
    settings: Settings, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await secrets.rotate(settings)
    new, *older = _ids(keys)
    assert older == ["first"]
    assert capsys.readouterr().out == f"The new key is {new}.\n0 secrets were re-encrypted.\n"
    with pytest.raises(CannotRotate, match="the keys were just changed"):
        await secrets.retire(settings)
    assert _ids(keys) == [new, "first"]
    os.utime(keys, (LONG_AGO, LONG_AGO))
    await secrets.retire(settings)
    assert capsys.readouterr().out == "Retired: first.\n"
    assert _ids(keys) == [new]
    await secrets.retire(settings)
    assert capsys.readouterr().out == "There is only one key.\n"
    async with opened(settings, keyring(settings)) as db:
        told = [(entry["principal"], entry["mutation"], entry["objectIds"]) async for entry in audit.export(db)]
    assert told == [("command line", "rotateSecrets", [new]), ("command line", "retireSecrets", ["first"])]


async def test_everything_can_be_encrypted_with_the_first_key_that_there_is_and_the_file_only_read(
    settings: Settings, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await secrets.renew(settings)
    assert capsys.readouterr().out == "All secrets are already encrypted with key first.\n"
    assert _ids(keys) == ["first"]
    assert not keys.with_name("keys-lock").exists()


@pytest.mark.parametrize("command", [secrets.rotate, secrets.renew, secrets.retire])
@pytest.mark.parametrize(
    ("content", "why"), [(None, "cannot be read: No such file or directory"), ("nothing\n", "is not a keyring: ")]
)
async def test_a_file_that_is_missing_or_wrong_is_named_and_nothing_is_made(
    settings: Settings, keys: Path, command: Command, content: str | None, why: str
) -> None:
    _put(keys, content)
    with pytest.raises(CannotStart, match=rf"\A[^\n]*{keys} {why}[^\n]*\Z"):
        await command(settings)
    assert not (settings.data_dir / "daos.db").exists()


async def test_a_rotation_makes_no_keyring_where_there_is_none(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    with pytest.raises(CannotStart, match="secret-key cannot be read"):
        await secrets.rotate(settings)
    assert not settings.data_dir.exists()


async def test_a_second_rotation_beside_the_first_is_refused(settings: Settings, keys: Path) -> None:
    with KeyFile(keys).reserved(), pytest.raises(CannotRotate, match="another command is changing the keys"):
        await secrets.rotate(settings)
    assert _ids(keys) == ["first"]
