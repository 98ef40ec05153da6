"""A delivery that is made from a directory is that of its files."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from runner.host.content import DeliveredFile
from runner.host.delivery import Delivery
from runner.spec.delivery import of_directory


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in {"compose.yaml": "services: {web: {image: 'web:1'}}", **files}.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
    return directory


def test_it_has_the_files_with_their_modes(tmp_path: Path) -> None:
    package = write(tmp_path / "shop", run="echo")
    (package / "run").chmod(0o755)
    (package / "conf").mkdir()
    write(package / "conf", site="x")
    delivery = Delivery.read(of_directory(package))
    assert set(delivery.files) == {".env", "compose.yaml", "conf/compose.yaml", "conf/site", "run"}
    assert delivery.files["run"] == DeliveredFile(sha256(b"echo").hexdigest(), 0o755, False)
    assert delivery.files[".env"] == DeliveredFile(sha256(b"").hexdigest(), 0o600, False)


def test_its_variables_are_those_of_the_env_file(tmp_path: Path) -> None:
    dotenv = "# A=0\nA='1'\nexport B=2\n\nCOMPOSE_PROFILES=\"one,two\"\n"
    delivery = Delivery.read(of_directory(write(tmp_path / "shop", **{".env": dotenv})))
    assert delivery.values["A"] == sha256(b"1").hexdigest()
    assert (set(delivery.values), delivery.profiles) == ({"A", "B", "COMPOSE_PROFILES"}, ["one", "two"])


def test_it_says_whether_compose_may_read_other_files(tmp_path: Path) -> None:
    package = write(tmp_path / "shop")
    assert not Delivery.read(of_directory(package)).outside
    (package / "compose.yaml").write_text("services: {web: {image: 'web:1', env_file: /etc/web.env}}")
    assert Delivery.read(of_directory(package)).outside


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no compose\.yaml in"):
        of_directory(tmp_path)
    package = write(tmp_path / "shop")
    (package / "link").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="link is not a regular file"):
        of_directory(package)
    (package / "link").unlink()
    os.mkfifo(package / "pipe")
    with pytest.raises(ValueError, match="pipe is not a regular file"):
        of_directory(package)


def test_the_command_says_what_is_wrong() -> None:
    command = [sys.executable, "-m", "runner.spec.delivery", "/nowhere"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "there is no compose.yaml in /nowhere\n"
