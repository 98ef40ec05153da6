"""Whose keys encrypt: the data directory's own, or those that several servers share."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from daos.app import CannotStart, keyring
from daos.settings import Settings
from db.encryption import Secret


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "shared"
    path.write_text(f"shared {Fernet.generate_key().decode()}\n")
    return path


def test_servers_with_one_file_read_each_others_secrets(tmp_path: Path, shared: Path) -> None:
    one, other = (keyring(Settings(data_dir=tmp_path / name, secret_key_file=shared)) for name in ("one", "other"))
    assert other.decrypt(one.encrypt(Secret("hunter2"))).reveal() == "hunter2"


def test_a_file_that_is_set_wins_over_the_data_directory_which_keeps_its_own(tmp_path: Path, shared: Path) -> None:
    own = keyring(Settings(data_dir=tmp_path)).encrypt(Secret(""))
    set_to = {"DAOS_DATA_DIR": str(tmp_path), "DAOS_SECRET_KEY_FILE": str(shared)}
    assert keyring(Settings.read(set_to)).encrypt(Secret("")).startswith("shared:")
    assert keyring(Settings(data_dir=tmp_path)).decrypt(own).reveal() == ""


def test_without_the_setting_the_data_directory_gets_keys(tmp_path: Path) -> None:
    keyring(Settings(data_dir=tmp_path / "data"))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret-key"]


@pytest.mark.parametrize(("name", "why"), [("missing", "No such file or directory"), ("", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named_and_none_is_made(tmp_path: Path, name: str, why: str) -> None:
    path = tmp_path / name
    with pytest.raises(CannotStart, match=rf"\ADAOS_SECRET_KEY_FILE cannot be read: {why} \({path}\)\Z"):
        keyring(Settings(data_dir=tmp_path / "data", secret_key_file=path))
    assert list((tmp_path / "data").iterdir()) == []
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("content", ["", "one-word\n", f"{'A' * 43}=\n", "key0 tooshort\n", "kä zzzz\n"])
def test_a_file_that_is_no_keyring_is_named_and_its_keys_are_not(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(CannotStart, match=rf"\A{path} is not a keyring: [^\n]+\Z") as refused:
        keyring(Settings(data_dir=tmp_path / "data", secret_key_file=path))
    assert [word for word in content.split() if word in str(refused.value)] == []
