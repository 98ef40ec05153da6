"""The file of a keyring while it is changed: whole, as private as it was, and by one at a time."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from db.key_file import Busy, KeyFile

KEY = Fernet.generate_key().decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a keyring with one key, "old"."""
    path = tmp_path / "keys"
    path.write_text(f"old {KEY}\n")
    path.chmod(0o600)
    return path


def test_the_file_is_replaced_as_a_whole_and_stays_as_private_as_it_was(tmp_path: Path, path: Path) -> None:
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    old = path.read_text()
    inode = path.stat().st_ino
    KeyFile(link).put_new_key()
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_ino != inode
    assert path.read_text().splitlines(keepends=True)[1:] == [old]
    assert set(tmp_path.iterdir()) >= {path, link}
    assert [file for file in tmp_path.iterdir() if file.name.startswith("keys.")] == []


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeyFile(tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time_changes_the_file(path: Path) -> None:
    with KeyFile(path).reserved(), pytest.raises(Busy), KeyFile(path).reserved():
        pass
    with KeyFile(path).reserved():
        pass


def test_only_the_first_key_is_kept(path: Path) -> None:
    KeyFile(path).put_new_key()
    [new, _] = path.read_text().splitlines()
    KeyFile(path).keep_first_key()
    assert path.read_text() == f"{new}\n"


def test_the_age_is_that_of_the_last_change(path: Path) -> None:
    os.utime(path, (0, 0))
    assert KeyFile(path).age > 1_000_000_000
    KeyFile(path).put_new_key()
    assert KeyFile(path).age < 60
