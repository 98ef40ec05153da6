"""A run's directory: private, complete, and gone afterwards."""

import json
import stat
from pathlib import Path

import pytest

from db.encryption import Secret
from runner.spec import run
from runner.spec.run import Project, ProjectFile, Timeouts
from runner.workspace import KNOWN_HOSTS, pinned, prepared, sweep
from tests.support import projects

SECRET = "hunter2hunter2"
FIRST = "* ssh-ed25519 AAAA\n"
PROJECT = projects.project()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _inside(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def _files(root: Path, project: Project = PROJECT) -> dict[str, int]:
    """The mode of each file and directory in a run's directory."""
    async with prepared(root, project, Timeouts(), 2.0) as directory:
        return {str(path.relative_to(directory)): _mode(path) for path in directory.rglob("*")}


async def test_a_directory_has_what_a_play_needs_and_is_for_its_owner_alone(root: Path) -> None:
    async with prepared(root, PROJECT, Timeouts(), 2.0) as directory:
        assert _mode(root) == _mode(directory) == 0o700
        assert _inside(directory) == {"delivery", "inventory.json", KNOWN_HOSTS, "tmp"}
        assert _mode(directory / "delivery") == 0o600
        [name] = json.loads((directory / "inventory.json").read_text())["all"]["hosts"]
        assert name == str(PROJECT.deployment_id)
    assert _inside(root) == set()


async def test_two_runs_have_directories_of_their_own(root: Path) -> None:
    async with prepared(root, PROJECT, Timeouts(), 2.0) as one, prepared(root, PROJECT, Timeouts(), 2.0) as other:
        assert one != other
        assert len(_inside(root)) == 2


async def test_a_run_that_raises_leaves_nothing(root: Path) -> None:
    async def play() -> None:
        async with prepared(root, PROJECT, Timeouts(), 2.0):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await play()
    assert _inside(root) == set()


async def test_a_delivery_that_cannot_be_written_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Project) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "delivery", full)
    with pytest.raises(OSError, match="No space left"):
        await _files(root)
    assert _inside(root) == set()


async def test_a_stored_key_is_in_no_file(root: Path) -> None:
    project = projects.project(projects.target(ssh_key=Secret(SECRET)))
    async with prepared(root, project, Timeouts(), 2.0) as directory:
        files = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
        variables = json.loads((directory / "inventory.json").read_text())
    assert [content for content in files if SECRET.encode() in content] == []
    [host] = variables["all"]["hosts"].values()
    assert host["ansible_ssh_private_key_file"]["__ansible_unsafe"].startswith("/proc/")


async def test_files_of_a_package_are_in_the_delivery_and_not_beside_it(root: Path) -> None:
    project = projects.project(files={"conf/a": ProjectFile(b"x")})
    assert (await _files(root, project)).keys() == (await _files(root)).keys()


@pytest.mark.parametrize(("known", "expected"), [(None, None), (f"{FIRST}* ssh-rsa B\n", FIRST)])
async def test_the_key_that_ssh_wrote_down_is_the_first_line(
    root: Path, known: str | None, expected: str | None
) -> None:
    project = projects.project(projects.target(known_hosts=known))
    async with prepared(root, project, Timeouts(), 2.0) as directory:
        assert pinned(directory) == expected


def test_what_a_killed_server_left_is_removed_and_counted(root: Path) -> None:
    assert sweep(root) == 0
    for name in ("one", "two"):
        (root / name / "tmp").mkdir(parents=True)
    assert sweep(root) == 2
    assert _inside(root) == set()
