"""Finds what Compose reads of a package: the files that its files refer to, and the variables that they need.  Pure.

It follows Compose's own order: the Compose file and its override file, what they include, what services extend, and
env files.  It is tolerant: it ignores a file that is missing or invalid, because the run reports that.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runner.compose import yaml_events
from runner.compose.interpolation import PROVIDED, Requirement, read_env_file
from runner.compose.yaml_events import MERGE, Document, Node
from runner.host.content import ENV_FILE
from runner.host.delivery import COMPOSE_FILE, OVERRIDE_FILES

MAX_NODES = 200_000  # of YAML in all files together; a Compose file of a megabyte has a quarter of this
MAX_STEPS = 500_000  # visits of nodes and requirements; a file that is included several times counts each time
MAX_ASSIGNMENTS = 100_000  # in env files; a file that several services read differently counts each time
MAX_REQUIREMENTS = 1000
MAX_CHAIN = 20  # files that include, or services that extend, one another

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|git@|github\.com/")


@dataclass(frozen=True)
class Reference:
    """A path in a file of the package that Compose reads while it resolves the package's files."""

    file: str  # the file that contains the path
    key: str  # the key of the path in this file
    path: str  # as written
    levels_up: int = 0  # how far the path leads above the project directory


@dataclass(frozen=True)
class Reading:
    """What Compose needs in order to resolve the files of a package."""

    requirements: tuple[Requirement, ...]
    references: tuple[Reference, ...]
    reads_outside: bool  # whether Compose may read a file that is not in the package


def read(compose_file: str, files: Mapping[str, bytes]) -> Reading:
    """Return what Compose needs to resolve the Compose file and the other files of a package, by path."""
    reader = _Reader(compose_file, files)
    try:
        override = next((path for path in OVERRIDE_FILES if path in files), None)
        reader.model([COMPOSE_FILE] if override is None else [COMPOSE_FILE, override], "", PROVIDED, ())
    except yaml_events.TooLarge:
        reader.reads_outside = True
    return Reading(tuple(reader.requirements), tuple(reader.references), reader.reads_outside)


def reads_outside(compose_file: str, files: Mapping[str, bytes]) -> bool:
    """Whether Compose may read a file that is not in the package when it resolves the package's files.

    True if that cannot be known without the host, as for a path with a variable.  Files that are only mounted, such as
    those of configs and secrets, do not count.
    """
    return read(compose_file, files).reads_outside


@dataclass(frozen=True)
class _EnvFile:
    path: str
    is_raw: bool


@dataclass(frozen=True)
class _Place:
    """Where services are defined."""

    file: str
    services: tuple[Node | None, ...]  # of each YAML document in the file
    directory: str  # to which its paths are relative
    known: frozenset[str]


class _Reader:
    """Follows the references of one package, with a limit for all of them together."""

    def __init__(self, compose_file: str, files: Mapping[str, bytes]) -> None:
        self.requirements: dict[Requirement, None] = {}
        self.references: dict[Reference, None] = {}
        self.reads_outside = False
        self._compose_file = compose_file
        self._files = files
        self._documents: dict[str, Document | None] = {}
        self._nodes = MAX_NODES
        self._steps = MAX_STEPS
        self._assignments = MAX_ASSIGNMENTS
        self._recorded: set[tuple[str, frozenset[str]]] = set()
        self._done: set[tuple[_EnvFile, ...]] = set()

    def model(self, paths: list[str], directory: str, known: frozenset[str], chain: tuple[str, ...]) -> None:
        """Read files that Compose merges; paths are relative to `directory`, and the names `known` have values."""
        if paths[0] in chain or len(chain) > MAX_CHAIN:
            return  # Compose refuses a cycle
        env_files: dict[str, list[_EnvFile]] = {}
        for path in paths:
            document = self._document(path, known)
            for root in document.roots if document else ():
                self._includes(root, path, directory, known, (*chain, path))
                self._environment(root, known)
                services = self._get(root, "services")
                place = _Place(path, (services,), directory, known)
                for name in self._names(services):
                    env_files.setdefault(name, []).extend(self._env_files(place, name, 0))
        for listed in env_files.values():
            self._read_env_files(tuple(listed))

    def _document(self, path: str, known: frozenset[str]) -> Document | None:
        """Return the file after recording its requirements; None if it is missing, or Compose cannot read it."""
        if path not in self._documents:
            try:
                text = self._compose_file if path == COMPOSE_FILE else self._files[path].decode()
                self._documents[path], nodes = yaml_events.read(text, self._nodes)
                self._nodes -= nodes
            except (KeyError, UnicodeDecodeError, yaml_events.Unreadable):
                self._documents[path] = None
                self.reads_outside = True
        document = self._documents[path]
        if document is not None and (path, known) not in self._recorded:
            self._recorded.add((path, known))
            self._step(len(document.requirements))
            for requirement in document.requirements:
                self._require(requirement.knowing(known))
        return document

    def _includes(self, root: Node, path: str, directory: str, known: frozenset[str], chain: tuple[str, ...]) -> None:
        for entry in self._list(self._get(root, "include")):
            paths = self._list(self._get(entry, "path") if isinstance(entry, dict) else entry)
            found = [self._refer(path, "include", name, directory) for name in paths]
            targets = [target for target in found if target is not None]
            inside = self._directory(path, entry, directory, targets)
            if inside is None or len(targets) != len(found):
                self.reads_outside = True
                continue
            names = set(known)
            for env_file in self._included_env_files(path, entry, directory, inside):
                for requirement in read_env_file(self._env_file(env_file), names):
                    self._require(requirement)
            self.model(targets, inside, frozenset(names), chain)

    def _directory(self, path: str, entry: Node, directory: str, targets: list[str]) -> str | None:
        """Return the project directory of an entry of `include`; None if it is not in the package."""
        given = self._get(entry, "project_directory")
        if given is None or given == "":
            return posixpath.dirname(targets[0]) if targets else None
        return self._resolve(path, "include.project_directory", given, directory)

    def _included_env_files(self, path: str, entry: Node, directory: str, inside: str) -> Iterator[str]:
        named = self._list(self._get(entry, "env_file"))
        for name in named:
            target = None if name == "/dev/null" else self._refer(path, "include.env_file", name, directory)
            if target is not None and target in self._files:
                yield target
        default = posixpath.join(inside, ENV_FILE)
        if not named and default != ENV_FILE:  # the project's own .env has the deployment's variables
            if default in self._files:
                yield default
            else:
                self.reads_outside = True  # Compose reads it if it exists, and a container may have created it

    def _environment(self, root: Node, known: frozenset[str]) -> None:
        """Record the variables that are the content of configs and secrets: Compose fails if one has no value."""
        for kind in ("configs", "secrets"):
            of_kind = self._get(root, kind)
            for name in self._names(of_kind):
                variable = self._get(self._get(of_kind, name), "environment")
                if isinstance(variable, str) and variable and "$" not in variable:
                    self._require(Requirement(variable).knowing(known))

    def _env_files(self, place: _Place, name: str, depth: int) -> list[_EnvFile]:
        """Return the env files of a service, after those of the service that it extends."""
        service = next(filter(None, (self._get(services, name) for services in place.services)), None)
        if not isinstance(service, dict) or depth > MAX_CHAIN:
            return []
        key = f"services.{name}"
        env_files: list[_EnvFile] = []
        extends = self._get(service, "extends")
        base = extends if isinstance(extends, str) else self._get(extends, "service")
        if isinstance(base, str):
            file = self._get(extends, "file")
            where: _Place | None = place
            if file is not None:
                target = self._refer(place.file, f"{key}.extends.file", file, place.directory)
                where = None if target is None else self._extended(target, place.known)
            if where is not None:
                env_files += self._env_files(where, base, depth + 1)
        for label_file in self._list(self._get(service, "label_file")):
            self._refer(place.file, f"{key}.label_file", label_file, place.directory)
        for entry in self._list(self._get(service, "env_file")):
            path = self._get(entry, "path") if isinstance(entry, dict) else entry
            target = self._refer(place.file, f"{key}.env_file", path, place.directory)
            if target is not None and target in self._files:
                env_files.append(_EnvFile(target, self._get(entry, "format") == "raw"))
        return env_files

    def _extended(self, path: str, known: frozenset[str]) -> _Place:
        """Return the services of a file that is extended; Compose interpolates the rest of it, but does not use it."""
        document = self._document(path, known)
        services = tuple(self._get(root, "services") for root in (document.roots if document else ()))
        return _Place(path, services, posixpath.dirname(path), known)

    def _read_env_files(self, env_files: tuple[_EnvFile, ...]) -> None:
        if env_files in self._done:
            return
        self._done.add(env_files)
        # An include's own env file has no effect here; with Compose 2.26, the service's `environment` has none either.
        known = set(PROVIDED)
        for env_file in env_files:
            if not env_file.is_raw:
                for requirement in read_env_file(self._env_file(env_file.path), known):
                    self._require(requirement)

    def _env_file(self, path: str) -> bytes:
        data = self._files[path]
        self._assignments -= sum(map(data.count, (b"=", b":", b"\n")))  # an upper bound of their number
        if self._assignments < 0:
            raise yaml_events.TooLarge
        return data

    def _require(self, requirement: Requirement | None) -> None:
        if requirement is not None and len(self.requirements) < MAX_REQUIREMENTS:
            self.requirements[requirement] = None

    def _refer(self, file: str, key: str, path: Node | None, directory: str) -> str | None:
        """Record a reference and return its path in the package; None if it is not in the package."""
        target = self._resolve(file, key, path, directory)
        if target is None or target in self._files or target == COMPOSE_FILE:
            return target
        self.reads_outside |= target != ENV_FILE
        return None

    def _resolve(self, file: str, key: str, path: Node | None, directory: str) -> str | None:
        """Return `path` relative to the project directory; None if it leads outside, or that cannot be known."""
        if not isinstance(path, str) or "$" in path or path.startswith(("/", "~")) or REMOTE.match(path):
            self.reads_outside = True
            return None
        target = posixpath.normpath(posixpath.join(directory, path))
        levels_up = sum(part == ".." for part in target.split("/"))
        self.references[Reference(file, key, path, levels_up)] = None
        if levels_up:
            self.reads_outside = True
            return None
        return "" if target == "." else target

    def _get(self, node: Node | None, key: str, depth: int = 0) -> Node | None:
        """Return the value of a key, including those from merge keys."""
        self._step()
        if not isinstance(node, dict) or depth > MAX_CHAIN:
            return None
        if key in node or MERGE not in node:
            return node.get(key)
        merged = (self._get(other, key, depth + 1) for other in self._list(node[MERGE]))
        return next((value for value in merged if value is not None), None)

    def _names(self, node: Node | None, depth: int = 0) -> dict[str, None]:
        """Return the keys of a mapping, including those from merge keys."""
        self._step()
        names: dict[str, None] = {}
        if isinstance(node, dict) and depth <= MAX_CHAIN:
            self._step(len(node))
            for other in self._list(node.get(MERGE)):
                names |= self._names(other, depth + 1)
            names |= {name: None for name in node if name != MERGE}
        return names

    def _list(self, node: Node | None) -> list[Node]:
        """Return the items of a list, or the single item that is written instead of a list."""
        if node is None or node in ("", "~", "null"):
            return []
        if isinstance(node, list):
            self._step(len(node))
            return node
        return [node]

    def _step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise yaml_events.TooLarge
