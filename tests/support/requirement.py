"""Skips a test, or fails it, if the machine lacks a requirement."""

import os
import shutil
from pathlib import Path

import pytest

SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def require(piece: str, missing: str | None) -> None:
    """Skip the test when `missing` says why `piece` cannot be used; fail it where DAOS_TEST_REQUIRE insists.

    DAOS_TEST_REQUIRE is `all` or pieces with commas between them: docker, sshd, postgresql, chromium, explorer,
    node, curl, tmpfs, haproxy, systemd, root, compose-newest.
    """
    if missing is None:
        return
    required = os.environ.get("DAOS_TEST_REQUIRE", "").split(",")
    if "all" in required or piece in required:
        pytest.fail(f"{piece} is required: {missing}", pytrace=False)
    pytest.skip(f"{piece}: {missing}")


def find_program(*names: str) -> Path | None:
    """The first of these programs, in PATH or where the system keeps its daemons."""
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=SYSTEM_DIRECTORIES)
        if found:
            return Path(found)
    return None
