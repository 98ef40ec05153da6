"""What files and variables describe, by `docker compose config`, and whether that is what runs.

The latter is seen from inside the containers.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.docker import PROJECT_LABEL, Docker
from tests.support.generated_packages import Version

SERVICE_LABEL = "com.docker.compose.service"


@dataclass(frozen=True)
class Described:
    """A service as it has to run.

    `files` are paths in the container with their sha256, and their mode where that is described.  `key` is equal where
    two versions describe the same containers, apart from their number.
    """

    containers: int
    environment: Mapping[str, str]
    files: Mapping[str, tuple[str, str | None]]
    directories: Mapping[str, frozenset[str]]  # all files below a mounted directory
    key: str
    depends_on: frozenset[str] = frozenset()


def describe(version: Version, project: str, directory: Path, home: Path) -> dict[str, Described]:
    """The services that a version describes, by name.

    Its files are written into `directory`, and the compose of `home` reads them there.
    """
    _write(version, project, directory)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PWD": str(directory), **version.variables}
    command = ["docker", "compose", "--project-name", project, "config", "--format", "json"]
    output = subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, text=True).stdout
    model = json.loads(output)
    return {name: _described(service, model, version, directory) for name, service in model["services"].items()}


def _write(version: Version, project: str, directory: Path) -> None:
    texts = {path: (text.encode(), "0644") for path, text in version.compose_files(project).items()}
    for path, (content, mode) in {**version.files, **texts}.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(int(mode, 8))


def _described(service: Mapping[str, Any], model: Mapping[str, Any], version: Version, directory: Path) -> Described:
    files: dict[str, tuple[str, str | None]] = {}
    directories = {}
    environment = {name: _unescaped(value or "") for name, value in service.get("environment", {}).items()}
    for mount in service.get("volumes", []):
        place, target = Path(mount["source"]), mount["target"]
        if place.is_dir():
            below = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
            directories[target] = frozenset(below)
            files |= {f"{target}/{name}": _seen(path) for name, path in below.items()}
        else:
            files[target] = _seen(place)
    for kind, base in (("configs", "/"), ("secrets", "/run/secrets/")):
        for use in service.get(kind, []):
            content = _content(model[kind][use["source"]], version)
            target = use.get("target", use["source"])
            if not content:
                continue  # compose makes no file of an empty variable
            source = model[kind][use["source"]].get("file")
            # A file is mounted as it is; of what Compose writes itself the mode is its own.
            file = (hashlib.sha256(content).hexdigest(), None) if source is None else _seen(Path(source))
            files[target if target.startswith("/") else base + target] = file
    if build := service.get("build"):
        page = Path(build["context"], "page")
        files["/srv/page"] = _seen(page)
        environment["BUILT"] = _unescaped(build["args"]["VALUE"])
    plain = {name: value for name, value in service.items() if name not in {"scale", "deploy", "build", "depends_on"}}
    # Not a path of the directory, in which each version has its own.
    parts = [plain, environment, files, sorted(map(sorted, directories.values())), bool(build)]
    text = json.dumps(parts, sort_keys=True)
    return Described(
        containers=int(service.get("scale", service.get("deploy", {}).get("replicas", 1))),
        environment=environment,
        files=files,
        directories=directories,
        key=text.replace(str(directory), "."),
        depends_on=frozenset(service.get("depends_on", {})),
    )


def _content(resource: Mapping[str, Any], version: Version) -> bytes:
    """What a config or secret holds."""
    if "content" in resource:
        return _unescaped(resource["content"]).encode()
    if "environment" in resource:
        return version.variables[resource["environment"]].encode()
    return Path(resource["file"]).read_bytes()


def _unescaped(text: str) -> str:
    """`docker compose config` prints what can be read again: each $ twice."""
    return text.replace("$$", "$")


def _seen(path: Path) -> tuple[str, str]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), f"{path.stat().st_mode & 0o7777:o}"


def containers_by_service(docker: Docker, project: str) -> dict[str, set[str]]:
    """Ids of the project's containers by the label of their service."""
    template = f'{{{{.ID}}}} {{{{.Label "{SERVICE_LABEL}"}}}}'
    options = ("--all", "--no-trunc", "--filter", f"label={PROJECT_LABEL}={project}", "--format", template)
    found: dict[str, set[str]] = {}
    for line in docker.run("container", "ls", *options).splitlines():
        container, _, service = line.partition(" ")
        found.setdefault(service, set()).add(container)
    return found


def differences(docker: Docker, project: str, described: Mapping[str, Described]) -> list[str]:
    """How what runs differs from what is described; empty when it does not."""
    found = containers_by_service(docker, project)
    wrong = [f"{name} is described by nothing, and has containers" for name in sorted(set(found) - set(described))]
    for name, service in described.items():
        containers = found.get(name, set())
        if len(containers) != service.containers:
            wrong.append(f"{name} has {len(containers)} containers instead of {service.containers}")
        for container in sorted(containers):
            wrong += [f"{name}: {words}" for words in _differences_in(docker, container, service)]
    return wrong


def _differences_in(docker: Docker, container: str, service: Described) -> list[str]:
    if docker.run("inspect", "--format", "{{.State.Running}}", container).strip() != "true":
        return ["a container does not run"]
    environment = dict(
        entry.split("=", 1)
        for entry in _inside(container, "cat", "/proc/1/environ").decode().split("\0")
        if "=" in entry
    )
    wrong = [
        f"{name} is {environment.get(name)!r} instead of {value!r}"
        for name, value in service.environment.items()
        if environment.get(name) != value
    ]
    for path, (digest, mode) in sorted(service.files.items()):
        seen = _inside(container, "sh", "-c", 'stat -Lc %a "$0" && sha256sum <"$0" || echo', path).decode().split()
        if seen[1:2] != [digest]:
            wrong.append(f"{path} has another content: {_inside(container, 'cat', path)!r}")
        elif mode is not None and seen[0] != mode:
            wrong.append(f"{path} has mode {seen[0]} instead of {mode}")
    for path, names in service.directories.items():
        listed = _inside(container, "sh", "-c", 'cd "$0" && find . -type f', path).decode().splitlines()
        if (there := {name.removeprefix("./") for name in listed}) != names:
            wrong.append(f"{path} has {sorted(there ^ names)} too many or too few")
    return wrong


def _inside(container: str, *command: str) -> bytes:
    return subprocess.run(["docker", "exec", container, *command], capture_output=True, check=False).stdout


def unchanged(was: Mapping[str, Described], now: Mapping[str, Described]) -> set[str]:
    """The services that both describe alike, with all that they depend on.

    Compose 2.26 recreates a service when one that it depends on is recreated.
    """
    same = {name for name in was.keys() & now.keys() if was[name].key == now[name].key}
    while left := {name for name in same if not now[name].depends_on <= same}:
        same -= left
    return same
