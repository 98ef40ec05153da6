"""The `docker` of a chaos host: it says what docker and compose say, has no daemon, and writes down all it does.

A program of its own, which imports nothing of daos.  In `~/docker`, of each compose project:

    PROJECT.json  what the project was left with, and by which run, see `Left`
    PROJECT.work  locked by whoever changes the project now; the kernel takes the lock from one that was killed
    journal       one JSON object a line: `at` (seconds since the boot), `project`, `run`, `action` and `event`:
                  begin, done, failed; or overlap, when somebody else was at work on the project already

Every image is there.  The image and the command of the one service, `web`, say what `up` is to do: `well:1` or
`broken:1`, and for how many seconds it works.  What is described changes with each run, so that what is there shows
which run has made it.
"""

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STEP = 0.1  # seconds between two words
WELL = "well:1"


@dataclass(frozen=True)
class Left:
    """What the last `up` or `down` that reached its goal has left.  `container` is empty after `down`."""

    run: str
    action: str
    container: str = ""
    started: str = ""
    described: str = ""  # a hash of what the container is made from
    directory: str = ""


class Docker:
    """The projects of the login's home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._place = home / "docker"

    def left(self, project: str) -> Left | None:
        path = self._place / f"{project}.json"
        return Left(**json.loads(path.read_text())) if path.exists() else None

    def all_left(self) -> Iterator[Left]:
        return (Left(**json.loads(path.read_text())) for path in self._place.glob("*.json"))

    def run_of(self, project: str) -> str:
        """The run that holds the project's lock: pid, run, deployment."""
        return (self._home / ".daos/state" / project / "lock").read_text().split()[1]

    def leave(self, project: str, left: Left) -> None:
        new = self._place / f"{project}.{os.getpid()}.new"
        new.write_text(json.dumps(asdict(left)))
        new.rename(self._place / f"{project}.json")

    @contextmanager
    def at_work(self, project: str, action: str) -> Iterator[str]:
        """Work on the project, and give the run that it is for."""
        run = self.run_of(project)
        with (self._place / f"{project}.work").open("w") as work:
            try:
                fcntl.flock(work, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._note(project, run, action, "overlap")
            self._note(project, run, action, "begin")
            try:
                yield run
            except BaseException:
                self._note(project, run, action, "failed")
                raise
            self._note(project, run, action, "done")

    def _note(self, project: str, run: str, action: str, event: str) -> None:
        at = time.clock_gettime(time.CLOCK_BOOTTIME)
        line = json.dumps({"at": at, "project": project, "run": run, "action": action, "event": event})
        with (self._place / "journal").open("a") as journal:
            fcntl.flock(journal, fcntl.LOCK_EX)
            journal.write(f"{line}\n")


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    docker = Docker(Path(environment["HOME"]))
    match arguments:
        case ["version", *_] | ["compose", "version", *_]:
            print("27.0.0")
        case ["ps", *options]:
            project = next(option for option in options if option.startswith("label=")).rpartition("=")[2]
            left = docker.left(project)
            if left is not None and left.container:
                print(f"{left.container}|{left.described}|False|{left.directory}")
        case ["inspect", "--type", "container", "--format", _, *ids]:
            inspect(docker, ids)
        case ["image", "inspect", "--format", _, *names]:
            print("\n".join(f"= image {_image_id(name)}" for name in names))
        case ["compose", "--project-name", project, "--ansi", "never", *rest]:
            paths: dict[str, Path] = {}
            while rest[0].startswith("--"):
                name, value, *rest = rest
                paths[name] = Path(value)
            compose(docker, project, paths, rest)


def inspect(docker: Docker, ids: Sequence[str]) -> None:
    """A line for each container, as the format of compose_project/containers.sh asks for it."""
    found = {left.container: left for left in docker.all_left()}
    for container in ids:
        if container not in found:
            raise SystemExit(f"Error: No such container: {container}")
        left = found[container]
        seen = {
            "id": container,
            "name": "/web-1",
            "hash": left.described,
            "service": "web",
            "image": WELL,
            "imageId": _image_id(WELL),
            "state": "running",
            "startedAt": left.started,
            "policy": "no",
            "ports": [""],
        }
        print(f"= container {json.dumps(seen)}")


def compose(docker: Docker, project: str, paths: Mapping[str, Path], command: Sequence[str]) -> None:
    match command:
        case ["config", "--format", "json"]:
            print(json.dumps({"name": project, **json.loads(paths["--file"].read_text())}))
        case ["config", "--hash", _]:
            print(f"web {_described(docker.run_of(project), paths['--file'])}")
        case ["up", *_]:
            up(docker, project, paths["--project-directory"], paths["--file"])
        case ["down", *_]:
            with docker.at_work(project, "DOWN") as run:
                _work(0.5)
                docker.leave(project, Left(run, "DOWN"))


def up(docker: Docker, project: str, directory: Path, file: Path) -> None:
    service: dict[str, Any] = json.loads(file.read_text())["services"]["web"]
    with docker.at_work(project, "UP") as run:
        _work(float(service["command"][1]))
        if service["image"] != WELL:
            raise SystemExit("service web is broken")
        started = datetime.now(UTC).isoformat()
        container = hashlib.sha256(f"{project} {run} {started}".encode()).hexdigest()
        docker.leave(project, Left(run, "UP", container, started, _described(run, file), str(directory)))
        print(f" Container {project}-web-1  Created", flush=True)


def _work(seconds: float) -> None:
    count = round(seconds / STEP)
    for number in range(1, count + 1):
        print(f"step {number} of {count}", flush=True)
        time.sleep(STEP)


def _image_id(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def _described(run: str, file: Path) -> str:
    return hashlib.sha256(f"{run} {file.read_text()}".encode()).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
