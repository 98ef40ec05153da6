"""Which tests `--quick` runs: those of single modules, with what Python alone can start.

The rule is one of folders and fixtures, so that nobody keeps a list: a file that mirrors a module is about that module,
and what a test has to have started for it is among its fixtures.
"""

from collections.abc import Collection, Mapping
from pathlib import PurePath

# Each file in them mirrors a module: tests/test_house.py holds that.
FOLDERS = ("tests/daos", "tests/db", "tests/resolvers", "tests/runner", "tests/schema")
PLAYS = "tests/runner/play"  # each test there starts Ansible, which takes seconds
# What takes seconds to start or to make, or is not on every machine; with `playbooks` a test lets runs be played.
PIECES = frozenset({"chromium", "docker", "installed_daos", "make_sshd", "node", "playbooks", "postgres", "sshd"})
DATABASE = "postgresql"  # the parameter of `db` and of `db_url` with which a test asks for the piece as it runs


def is_quick(path: PurePath, fixtures: Collection[str], parameters: Mapping[str, object]) -> bool:
    """Whether a test is one of `--quick`; `path` is that of its file, from the root of the repository."""
    return may_have_quick(path) and PIECES.isdisjoint(fixtures) and DATABASE not in parameters.values()


def may_have_quick(path: PurePath) -> bool:
    """Whether a file or folder of tests may have one of `--quick`."""
    if any(path.is_relative_to(folder) for folder in FOLDERS):
        return not path.is_relative_to(PLAYS)
    return path == PurePath("tests") or (path.parent == PurePath("tests") and path.suffix == ".py")
