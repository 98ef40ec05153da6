"""The versions of Compose that the cases run with, each in a home directory where docker and daos find it."""

import os
import subprocess
from pathlib import Path

NEWEST = "DAOS_TEST_COMPOSE_NEWEST"
INSTALLED_BY_CI = "/usr/local/lib/docker/compose-newest"
COMPOSES = ("installed", "newest")
PLUGINS = ("docker-compose", "docker-buildx")  # compose builds with the plugin buildx from 2.40 on


def newest_directory() -> Path:
    """Where the newest compose and its buildx are, or would be."""
    return Path(os.environ.get(NEWEST, INSTALLED_BY_CI))


def why_missing() -> str | None:
    """Why the newest compose cannot be used here, None when it can."""
    directory = newest_directory()
    missing = [name for name in PLUGINS if not os.access(directory / name, os.X_OK)]
    if missing:
        return f"{directory} has no {' and no '.join(missing)} (.ci/run installs them; {NEWEST} names another place)"
    return None


def make_home(directory: Path, compose: str) -> Path:
    """A home directory whose docker has the `installed` compose, or the `newest`.

    Docker, and the script on the host, look for plugins in the home first.
    """
    home = directory / "home"
    home.mkdir(mode=0o700)
    if compose == "newest":
        plugins = home / ".docker" / "cli-plugins"
        plugins.mkdir(parents=True)
        for name in PLUGINS:
            (plugins / name).symlink_to(newest_directory() / name)
    return home


def version(home: Path) -> str:
    """The version of the compose that docker uses with this home directory."""
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_CONFIG"}
    return subprocess.run(
        ["docker", "compose", "version", "--short"],
        env={**environment, "HOME": str(home)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
