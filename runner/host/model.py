"""The resolution: Compose's model of the delivered files, and the model that daos derives from it for Up."""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SECCOMP = re.compile(r"seccomp[:=](?!(?:unconfined|builtin)$)(?P<path>.+)")


@dataclass(frozen=True)
class Places:
    """A project's two directories on its host.

    Both have the same depth, so that a relative path that leads out of one means the same in the other.
    """

    directory: str  # what containers mount: ~/.daos/projects/PROJECT
    tree: str  # what Compose reads and no container mounts: ~/.daos/trees/PROJECT

    def translate(self, path: str) -> str:
        """Return `path` with the tree replaced by the project directory."""
        return path.replace(self.tree, self.directory)

    def within(self, path: str) -> str | None:
        """Return `path` relative to the tree or the project directory; "" for the directory itself; None outside."""
        for root in (self.tree, self.directory):
            if path == root:
                return ""
            if path.startswith(f"{root}/"):
                return path.removeprefix(f"{root}/")
        return None

    def delivered(self, path: str) -> str:
        """Return where Compose itself reads `path`: in the tree, whichever of the two directories the path names."""
        place = posixpath.normpath(posixpath.join(self.tree, path))
        inside = self.within(place)
        return place if inside is None else posixpath.join(self.tree, inside)

    def holds(self, paths: Iterable[str], file: str) -> bool:
        """Whether one of the paths is the project's `file`, or a directory above it."""
        places = (self.within(posixpath.normpath(path)) for path in paths)
        return any(place is not None and (place in {"", file} or file.startswith(f"{place}/")) for place in places)

    def is_foreign(self, path: str) -> bool:
        """Whether `path` is in daos's own directories, but not in this project's."""
        home = posixpath.dirname(posixpath.dirname(self.directory))
        return self.within(path) is None and (path == home or path.startswith(f"{home}/"))


@dataclass(frozen=True)
class Model:
    """Compose's model of the delivered files, with the enabled services only."""

    data: Mapping[str, Any]
    project: str

    @classmethod
    def read(cls, text: str, project: str) -> "Model":
        """Parse Compose's JSON.  Raises: ValueError."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("the model is not an object")
        return cls(data, project)

    @property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        return self.data.get("services") or {}

    def image_of(self, service: str) -> str:
        """Return the name of the service's image; Compose chooses it if the service has only a build."""
        return str(self.services[service].get("image") or f"{self.project}-{service}")

    def images(self) -> list[str]:
        """Return the names of all images, sorted, each once."""
        return sorted({self.image_of(service) for service in self.services})

    def count(self, service: str) -> int:
        """Return how many containers the service has once it is up."""
        described = self.services[service]
        if described.get("provider"):
            return 0  # a plugin of Compose provides it
        replicas = (described.get("deploy") or {}).get("replicas")
        return int(described.get("scale", 1 if replicas is None else replicas))

    def mounts(self, service: str) -> Iterator[str]:
        """Yield the paths on the host that containers of the service mount."""
        yield from (path for path, _ in self._mounts(service, set()))

    def writable(self, service: str) -> Iterator[str]:
        """Yield the mounted paths that containers of the service can write to."""
        yield from (path for path, is_writable in self._mounts(service, set()) if is_writable)

    def _mounts(self, service: str, seen: set[str]) -> Iterator[tuple[str, bool]]:
        if service in seen or service not in self.services:
            return
        seen.add(service)
        described = self.services[service]
        for volume in described.get("volumes") or []:
            if volume.get("type") == "bind":
                yield str(volume.get("source", "")), not volume.get("read_only")
            elif volume.get("type") == "volume":
                named = (self.data.get("volumes") or {}).get(volume.get("source")) or {}
                device = (named.get("driver_opts") or {}).get("device")
                if device and str(device).startswith("/"):
                    yield str(device), not volume.get("read_only")
        for other in described.get("volumes_from") or []:
            name = str(other).split(":")[0]
            if not str(other).startswith("container:"):
                yield from self._mounts(name, seen)

    def paths(self, service: str) -> Iterator[str]:
        """Yield the paths on the host that containers of the service see: mounts, and files of configs and secrets."""
        yield from self.mounts(service)
        for _, _, described in self.sources(service):
            if described.get("file"):
                yield str(described["file"])

    def profiles(self, service: str) -> Iterator[str]:
        """Yield the paths of the service's seccomp profiles as written: Compose does not resolve them before Up."""
        for option in self.services[service].get("security_opt") or []:
            if found := SECCOMP.fullmatch(str(option)):
                yield found["path"]

    def sources(self, service: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Yield the configs and secrets of the service: kind, name, description."""
        for kind in ("config", "secret"):
            for use in self.services[service].get(f"{kind}s") or []:
                name = str(use.get("source", ""))
                yield kind, name, (self.data.get(f"{kind}s") or {}).get(name) or {}


def model_for_up(model: Model, places: Places) -> dict[str, Any]:
    """Return the model that Up and Down use: with the paths that containers mount, and with pulls disabled.

    This does not change Compose's hash of a service, so no container is recreated because of it.  Files that Compose
    reads again in Up keep the path of the delivered file.
    """
    data: dict[str, Any] = {key: _translated(value, places) for key, value in model.data.items() if key != "services"}
    data["services"] = {
        name: {
            key: value if key == "build" else _translated(value, places)
            for key, value in described.items()
            if key != "pull_policy"
        }
        | _read_in_up(described, places)
        | {"pull_policy": "never"}
        for name, described in model.services.items()
    }
    return data


def _translated(value: Any, places: Places) -> Any:
    if isinstance(value, str):
        return places.translate(value)
    if isinstance(value, Mapping):
        return {key: _translated(item, places) for key, item in value.items()}
    return [_translated(item, places) for item in value] if isinstance(value, list) else value


def _read_in_up(described: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """Return the members of a service whose files Compose reads in Up, with paths in the tree.

    Not in the project directory, because containers can write there.
    """
    found: dict[str, Any] = {}
    if described.get("security_opt"):
        found["security_opt"] = [
            f"seccomp={places.delivered(profile['path'])}" if (profile := SECCOMP.fullmatch(str(option))) else option
            for option in described["security_opt"]
        ]
    if described.get("label_file"):  # Compose 5 keeps it although it has merged its labels
        found["label_file"] = [places.delivered(str(path)) for path in described["label_file"]]
    return found
