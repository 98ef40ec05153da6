"""A program that stands in for `docker` on a host: it is found first, and Compose is asked for through it."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.requirement import SYSTEM_DIRECTORIES

# The script on the host starts Compose's own program where docker would find it; where docker's configuration names
# further places, it asks docker.
ASK_DOCKER = '{"cliPluginsExtraDirs": []}'


@dataclass(frozen=True)
class Logins:
    """What a login needs in order to find the program: its PATH, and further environment."""

    path: str
    environment: dict[str, str]


def install(folder: Path, program: str) -> Logins:
    """Write the program, a script of its own, into the folder."""
    folder.mkdir(parents=True)
    docker = folder / "docker"
    docker.write_text(program)
    docker.chmod(0o755)
    (folder / "config.json").write_text(ASK_DOCKER)
    return Logins(f"{folder}:{SYSTEM_DIRECTORIES}", {"DOCKER_CONFIG": str(folder)})
