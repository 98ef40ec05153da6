"""What would break clients of the last release is found, and let through only when the changelog announces it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/breaking.py"
RELEASED = "type Query { host(id: ID!, at: Int): Host } type Host { name: String! port: Int }"
REMOVED = "type Query { host(id: ID!, at: Int): Host } type Host { name: String! }"
WEAKENED = "type Query { host(id: ID!, at: Int): Host } type Host { name: String port: Int }"
ADDED = "type Query { host(id: ID!, at: Int, to: Int): Host } type Host { name: String! port: Int user: String }"
NO_PORT = "Field Host.port was removed."


class Repository:
    """A repository of its own with a schema and a changelog."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "schema").mkdir()
        self.git("init", "--quiet")

    def write(self, schema: str, unreleased: str = "") -> None:
        (self.directory / "schema/schema.graphql").write_text(schema)
        changelog = f"# Changelog\n\n## Unreleased\n{unreleased}\n\n## 0.1.0\nThe first.\n"
        (self.directory / "CHANGELOG.md").write_text(changelog)

    def commit(self, tag: str | None = None) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "A change")
        if tag:
            self.git("tag", tag)

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=self.directory, check=True)

    def check(self) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, SCRIPT], cwd=self.directory, check=False, stdout=subprocess.PIPE, text=True
        )
        return done.returncode, done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One whose last release has `RELEASED`."""
    repository = Repository(tmp_path)
    repository.write(RELEASED)
    repository.commit(tag="v0.1.0")
    return repository


@pytest.mark.parametrize(
    ("schema", "found"),
    [(REMOVED, NO_PORT), (WEAKENED, "Field Host.name changed type from String! to String.")],
    ids=["removed", "weakened"],
)
def test_a_break_is_found(repository: Repository, schema: str, found: str) -> None:
    repository.write(schema)
    status, said = repository.check()
    assert status == 1
    assert found in said.splitlines()
    assert "v0.1.0" in said


def test_an_announced_break_is_let_through(repository: Repository) -> None:
    repository.write(REMOVED, unreleased=f"- {NO_PORT} Nobody asked for it.")
    assert repository.check() == (0, f"{NO_PORT}  (announced)\n")


def test_a_break_that_an_older_release_announced_is_found(repository: Repository) -> None:
    repository.write(REMOVED)
    changelog = repository.directory / "CHANGELOG.md"
    changelog.write_text(changelog.read_text() + f"- {NO_PORT}\n")
    assert repository.check()[0] == 1


def test_what_is_added_breaks_nothing(repository: Repository) -> None:
    repository.write(ADDED)
    assert repository.check() == (0, "")


def test_the_newest_release_counts(repository: Repository) -> None:
    repository.write(ADDED)
    repository.commit(tag="v0.9.0")
    repository.write(REMOVED)
    repository.commit(tag="v0.10.0")
    assert repository.check() == (0, "")


def test_without_a_release_there_is_nobody_to_break(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.write(RELEASED)
    repository.commit()
    assert repository.check() == (0, "no release before this commit, so no clients to break\n")
