"""What a run has to change on a host, and why: the one comparison of what was delivered with what is there.

Pure, and without imports but the standard library's: Ansible's process imports it too.  It compares three things:

`Content`    the package's files and the deployment's variables, as checksums
`Model`      what Compose resolves the delivered files to (`docker compose config --format json`)
`Sight`      what the host reports: containers, images, files that differ, and the notes of the run before

Compose itself recreates a container whose configuration or image has changed.  It does not see that the content of a
config, a secret or a mounted file has changed, and builds no image that is already there: `compare` finds these.
"""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

ENV_FILE = ".env"
PRIVATE = 0o600  # the mode of `.env`
READABLE = 0o644  # of a mounted one: its reader in the container may be another user
ALWAYS_PULLED = re.compile(r"always|daily|weekly|every_.*|refresh")
SECCOMP = re.compile(r"seccomp[:=](?!(?:unconfined|builtin)$)(?P<path>.+)")
DOCKERFILES = ("Dockerfile", "dockerfile")  # BuildKit also finds the second where the first is the default

Items = Mapping[str, str]  # what a container is made from besides its configuration: name -> digest


@dataclass(frozen=True)
class DeliveredFile:
    """One file of a delivery."""

    digest: str  # sha256 of the content
    mode: int
    only_if_missing: bool = False  # created once, and then the container's


@dataclass(frozen=True)
class Content:
    """The package and the variables that a run delivers.  `files` includes compose.yaml and `.env`."""

    files: Mapping[str, DeliveredFile]
    values: Mapping[str, str] = field(default_factory=dict)  # sha256 of each variable's value


@dataclass(frozen=True)
class Places:
    """Where a project is on its host.  Both have the same depth, so a path that leads out of one means the same."""

    directory: str  # what containers mount: ~/.daos/projects/PROJECT
    tree: str  # what Compose reads and nothing mounts: ~/.daos/trees/PROJECT

    def translate(self, path: str) -> str:
        """`path` with the tree replaced by the project's directory."""
        return path.replace(self.tree, self.directory)

    def within(self, path: str) -> str | None:
        """`path` relative to the tree or the project's directory; "" for the directory itself; None outside."""
        for root in (self.tree, self.directory):
            if path == root:
                return ""
            if path.startswith(f"{root}/"):
                return path.removeprefix(f"{root}/")
        return None

    def delivered(self, path: str) -> str:
        """Where Compose itself reads `path`: in the tree, whatever name it has there."""
        place = posixpath.normpath(posixpath.join(self.tree, path))
        inside = self.within(place)
        return place if inside is None else posixpath.join(self.tree, inside)

    def holds(self, paths: Iterable[str], file: str) -> bool:
        """Whether one of the paths is the project's file, or a directory above it."""
        places = (self.within(posixpath.normpath(path)) for path in paths)
        return any(place is not None and (place in {"", file} or file.startswith(f"{place}/")) for place in places)

    def is_foreign(self, path: str) -> bool:
        """Whether `path` is in daos' own directories, and not in this project's."""
        home = posixpath.dirname(posixpath.dirname(self.directory))
        return self.within(path) is None and (path == home or path.startswith(f"{home}/"))


class Change(StrEnum):
    """What happens to a service's containers."""

    CREATE = "CREATE"
    RECREATE = "RECREATE"
    START = "START"
    KEEP = "KEEP"
    REMOVE = "REMOVE"


@dataclass(frozen=True)
class ServiceChange:
    """What happens to one service, and why, in words for a person."""

    service: str
    change: Change
    reasons: Sequence[str] = ()
    image: str | None = None
    pulls: bool = False
    builds: bool = False


@dataclass(frozen=True)
class Seen:
    """What the comparison needs to know of one container of a service."""

    id: str
    service: str
    state: str
    image_id: str
    hash: str  # of its configuration, as Compose labelled it


@dataclass(frozen=True)
class Built:
    """An image that a run has built."""

    key: str  # digest of what it was built from
    image_id: str


@dataclass(frozen=True)
class Notes:
    """What daos wrote down on the host before it last changed the project.

    A container that was not there then has been made since, from `contents`.  So the notes need no second write after
    Up, and a run that is cut off anywhere leaves them right.
    """

    contents: Mapping[str, Items] = field(default_factory=dict)  # of each service
    before: Mapping[str, Items | None] = field(default_factory=dict)  # by container; None: made from what is gone
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # path -> (sha256, mode) in the directory
    model: str = ""  # digest of the model that Up uses
    writable: Sequence[
        str
    ] = ()  # what containers of this run or of one before can write to, in the project's directory

    @classmethod
    def read(cls, text: str) -> "Notes":
        """The notes in `text` as `write` gave them.  Raises: ValueError."""
        data = _mapping(json.loads(text))
        return cls(
            contents={name: _items(value) for name, value in _mapping(data.get("contents", {})).items()},
            before={
                name: None if value is None else _items(value)
                for name, value in _mapping(data.get("before", {})).items()
            },
            files={path: _digest_and_mode(value) for path, value in _mapping(data.get("files", {})).items()},
            model=str(data.get("model", "")),
            writable=[str(path) for path in data.get("writable", [])],
        )

    def write(self) -> str:
        """The notes as one line of JSON."""
        return json.dumps(
            {
                "contents": dict(self.contents),
                "before": dict(self.before),
                "files": dict(self.files),
                "model": self.model,
                "writable": list(self.writable),
            },
            sort_keys=True,
        )

    def items_of(self, container: Seen) -> Items | None:
        """What the container was made from; None where that is known to be gone."""
        if container.id in self.before:
            return self.before[container.id]
        return self.contents.get(container.service, {})


@dataclass(frozen=True)
class Sight:
    """What the host reports before a run changes anything."""

    containers: Sequence[Seen] = ()
    images: Mapping[str, str] = field(default_factory=dict)  # name -> id, of those that are there
    # Files of the delivery that are not in the directory, differ there, or were not moved by a run that was cut off.
    changed: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()  # files to be created only where they are missing, and that are
    modified: frozenset[str] = frozenset()  # files that are not as the run before left them
    notes: Notes | None = None  # None: no run of this daos was here
    had: frozenset[str] = frozenset()  # files of a run that left no notes, or was cut off before it had deleted them
    built: Mapping[str, Built] = field(default_factory=dict)  # by service


@dataclass(frozen=True)
class Model:
    """What Compose makes of the delivered files: only services that are enabled."""

    data: Mapping[str, Any]
    project: str

    @classmethod
    def read(cls, text: str, project: str) -> "Model":
        """The model in Compose's JSON.  Raises: ValueError."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("the model is not an object")
        return cls(data, project)

    @property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        return self.data.get("services") or {}

    def image_of(self, service: str) -> str:
        """The name of the service's image; Compose names one itself where only a build is described."""
        return str(self.services[service].get("image") or f"{self.project}-{service}")

    def images(self) -> list[str]:
        """All images, each once."""
        return sorted({self.image_of(service) for service in self.services})

    def count(self, service: str) -> int:
        """How many containers the service has once it is up."""
        described = self.services[service]
        if described.get("provider"):
            return 0  # a plugin of Compose provides it
        replicas = (described.get("deploy") or {}).get("replicas")
        return int(described.get("scale", 1 if replicas is None else replicas))

    def mounts(self, service: str) -> Iterator[str]:
        """The paths on the host that containers of the service have mounted."""
        yield from (path for path, _ in self._mounts(service, set()))

    def writable(self, service: str) -> Iterator[str]:
        """Those that they can write to."""
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
        """The paths on the host that containers of the service see: mounts, and files of configs and secrets."""
        yield from self.mounts(service)
        for _, _, described in self.sources(service):
            if described.get("file"):
                yield str(described["file"])

    def profiles(self, service: str) -> Iterator[str]:
        """The paths of the service's seccomp profiles, as they are written: Compose does not resolve them before Up."""
        for option in self.services[service].get("security_opt") or []:
            if found := SECCOMP.fullmatch(str(option)):
                yield found["path"]

    def sources(self, service: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """The configs and secrets of the service: kind, name, description."""
        for kind in ("config", "secret"):
            for use in self.services[service].get(f"{kind}s") or []:
                name = str(use.get("source", ""))
                yield kind, name, (self.data.get(f"{kind}s") or {}).get(name) or {}


@dataclass(frozen=True)
class Comparison:
    """What is to be done.  Lists of services are sorted; nothing is done where all is empty."""

    services: Sequence[ServiceChange]
    build: Sequence[str]
    pull: Sequence[str]
    recreate: Sequence[str]  # that Compose would keep
    move: Sequence[str]  # files
    delete: Sequence[str]  # files
    overwritten: Sequence[str]  # files to be moved or deleted that were modified on the host
    env_mode: int
    notes: Notes
    keys: Mapping[str, str]  # what each image that the package builds is built from
    unavailable: Sequence[str] = ()  # services whose image must not be pulled, and is not there


def place_problem(model: Model, places: Places) -> str | None:
    """Which service reaches into a directory of daos that is not its project's, in a sentence; None where none does."""
    for service in sorted(model.services):
        paths = [("mounts", path) for path in model.mounts(service)]
        paths += [
            (f"uses the {kind}", str(described["file"]))
            for kind, _, described in model.sources(service)
            if described.get("file")
        ]
        paths += [("has the seccomp profile", places.delivered(path)) for path in model.profiles(service)]
        paths += [("is built from", path) for path in _build_paths(model.services[service].get("build") or {})]
        for verb, path in paths:
            place = posixpath.normpath(path)
            if places.is_foreign(place):
                return (
                    f"Service '{service}' {verb} {_shown(place, places)}, which is not in the project's directory but "
                    "among those of other projects. Use a path inside the package, a named volume, or an absolute "
                    "path elsewhere."
                )
    return None


def _build_paths(build: Mapping[str, Any]) -> Iterator[str]:
    """The absolute paths that an image is built from."""
    context = str(build.get("context") or "")
    paths = [context, *map(str, (build.get("additional_contexts") or {}).values())]
    if build.get("dockerfile") and context.startswith("/"):
        paths.append(posixpath.join(context, str(build["dockerfile"])))
    yield from (path for path in paths if path.startswith("/"))


def _shown(place: str, places: Places) -> str:
    """A path as people have most likely written it: what Compose has made absolute is relative again."""
    trees = posixpath.dirname(places.tree)
    is_relative = f"{place}/".startswith(f"{trees}/")
    return posixpath.relpath(place, places.tree) if is_relative else place


def compare(content: Content, model: Model, places: Places, sight: Sight) -> Comparison:
    """What a run that brings the project up has to do."""
    env_mode = READABLE if _mounts_env(model, places) else PRIVATE
    files = {
        path: DeliveredFile(file.digest, env_mode, file.only_if_missing) if path == ENV_FILE else file
        for path, file in content.files.items()
    }
    move = sorted(path for path in files if _is_moved(path, files[path], sight))
    delete = sorted({*(sight.notes.files if sight.notes else ()), *sight.had} - set(files))
    replaced = frozenset({*move, *delete})
    contents = {service: items(content, files, model, places, service) for service in sorted(model.services)}
    touched = {
        service: frozenset(path for path in replaced if places.holds(model.paths(service), path))
        for service in model.services
    }
    keys = {
        service: _build_key(content.files, model, service)
        for service in model.services
        if _builds(files, model, places, service)
    }
    build = sorted(service for service in keys if _is_built(service, keys[service], model, sight))
    needs = _needs_pull(model, keys, sight.images)
    pull = sorted(service for service, is_pulled in needs.items() if is_pulled)
    built, pulled = ({model.image_of(service) for service in services} for services in (build, pull))
    stale = {
        container.id: _stale(
            container, contents[container.service], touched[container.service], sight, is_new=bool(replaced)
        )
        for container in sight.containers
        if container.service in contents
    }
    changes = [
        _service_change(
            service,
            model,
            sight,
            stale,
            pulls=model.image_of(service) in pulled,
            builds=model.image_of(service) in built,
        )
        for service in model.services
    ]
    removed = {container.service for container in sight.containers} - set(model.services)
    changes += [
        ServiceChange(service, Change.REMOVE, ("the files do not describe it, or its profile is not enabled",))
        for service in removed
    ]
    return Comparison(
        services=sorted(changes, key=lambda change: change.service),
        build=build,
        pull=pull,
        recreate=sorted({container.service for container in sight.containers if stale.get(container.id)}),
        move=move,
        delete=delete,
        overwritten=sorted(replaced & sight.modified),
        env_mode=env_mode,
        notes=Notes(
            contents=contents,
            before={
                container.id: None if touched.get(container.service) else _known(container, contents, sight)
                for container in sight.containers
            },
            files={path: (file.digest, file.mode) for path, file in files.items() if not file.only_if_missing},
            model=digest(model_for_up(model, places)),
            writable=_writable(model, places, sight.notes),
        ),
        keys=keys,
        unavailable=sorted(service for service, is_pulled in needs.items() if not is_pulled),
    )


def is_applied(model: Model, sight: Sight, hashes: Mapping[str, str]) -> bool:
    """Whether the containers are what a run that was cut off meant to bring up.  `hashes` are Compose's, by service."""
    notes = sight.notes or Notes()
    present: Counter[str] = Counter()
    for container in sight.containers:
        service = container.service
        if service not in model.services or container.state == "created" or container.hash != hashes.get(service):
            return False
        if container.image_id != sight.images.get(model.image_of(service), container.image_id):
            return False
        if notes.items_of(container) != notes.contents.get(service, {}):
            return False
        present[service] += 1
    # Compose's hash of a service does not have the number of its containers.
    return all(model.count(service) == present[service] for service in model.services)


def items(
    content: Content, files: Mapping[str, DeliveredFile], model: Model, places: Places, service: str
) -> dict[str, str]:
    """What a container of the service is made from that its configuration does not show, with a digest of each."""
    found: dict[str, str] = {}
    for path in model.mounts(service):
        found |= _files_below(files, places, path)
    for path in model.profiles(service):
        found |= _files_below(files, places, places.delivered(path))
    for kind, name, described in model.sources(service):
        if described.get("file"):
            found |= _files_below(files, places, str(described["file"]))
        elif described.get("environment"):
            found[f"{kind} {name}"] = content.values.get(str(described["environment"]), "")
        elif "content" in described:
            found[f"{kind} {name}"] = digest(described["content"])
    return found


def model_for_up(model: Model, places: Places) -> dict[str, Any]:
    """The model as Up and Down use it: paths as containers mount them, and nothing left to be pulled.

    Compose's hash of a service does not change by this, so that no container is recreated for it; except where Compose
    reads a file once more in Up, which has to be the delivered one.
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


def exchangeable(model: Model, places: Places, writable: Iterable[str]) -> list[str]:
    """The paths in the project's directory that containers use, and that could have been replaced by a link.

    `writable` is what containers can write to, or could: a link stays when its container is gone.
    """
    roots = [_below(path) for path in writable]
    used = {places.within(posixpath.normpath(path)) for service in model.services for path in model.paths(service)}
    return sorted(path for path in used if path and any(path.startswith(root) for root in roots))


def digest(value: object) -> str:
    """sha256 of a value's JSON."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _translated(value: Any, places: Places) -> Any:
    if isinstance(value, str):
        return places.translate(value)
    if isinstance(value, Mapping):
        return {key: _translated(item, places) for key, item in value.items()}
    return [_translated(item, places) for item in value] if isinstance(value, list) else value


def _writable(model: Model, places: Places, before: Notes | None) -> list[str]:
    """What containers can write to in the project's directory, and what those of runs before could; each path once."""
    found = {
        place
        for service in model.services
        for path in model.writable(service)
        if (place := places.within(posixpath.normpath(path))) is not None
    }
    found |= set(before.writable if before else ())
    return sorted(path for path in found if not any(path != root and path.startswith(_below(root)) for root in found))


def _below(path: str) -> str:
    """How the paths begin that are in a directory of the project."""
    return f"{path}/" if path else ""


def _read_in_up(described: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """The members of a service whose files Compose reads in Up, in the tree: containers can write to the directory."""
    found: dict[str, Any] = {}
    if described.get("security_opt"):
        found["security_opt"] = [
            f"seccomp={places.delivered(profile['path'])}" if (profile := SECCOMP.fullmatch(str(option))) else option
            for option in described["security_opt"]
        ]
    if described.get("label_file"):  # Compose 5 keeps it although it has merged its labels
        found["label_file"] = [places.delivered(str(path)) for path in described["label_file"]]
    return found


def _is_moved(path: str, file: DeliveredFile, sight: Sight) -> bool:
    if file.only_if_missing:
        return path in sight.missing
    if path in sight.changed:
        return True
    if path == ENV_FILE:
        return False  # its mode is set in place, so that who has it mounted needs no new container
    if sight.notes is None:  # a run of an older daos: its files had the usual mode
        return file.mode != READABLE
    known = sight.notes.files.get(path)
    return known is None or known[1] != file.mode


def _files_below(files: Mapping[str, DeliveredFile], places: Places, path: str) -> dict[str, str]:
    """The delivered files at `path` or below it, apart from those that belong to the container."""
    return {
        f"file {name}": file.digest[:16] if name == ENV_FILE else f"{file.digest[:16]} {file.mode:04o}"
        for name, file in files.items()
        if not file.only_if_missing and places.holds([path], name)
    }


def _mounts_env(model: Model, places: Places) -> bool:
    return any(places.holds(model.paths(service), ENV_FILE) for service in model.services)


def _known(container: Seen, contents: Mapping[str, Items], sight: Sight) -> Items | None:
    """What to note of a container that is to be kept."""
    if sight.notes is None:
        return contents.get(container.service, {})
    return sight.notes.items_of(container)


def _stale(container: Seen, wanted: Items, touched: Iterable[str], sight: Sight, *, is_new: bool) -> list[str]:
    """Why Compose would keep a container that was made from something else, in words; empty where it was not.

    `touched` are the files that it sees and that are replaced; `is_new` is whether any file is.
    """
    reasons = {f"file {path}" for path in touched}
    made_from = sight.notes.items_of(container) if sight.notes is not None else None
    if made_from is not None:
        reasons |= {name for name in {*made_from, *wanted} if made_from.get(name) != wanted.get(name)}
    elif sight.notes is not None:
        reasons.add("what it was made from")
    elif is_new:
        # Of a container that an older daos made, only the files are known: the rest may come from those that changed.
        reasons |= {name for name in wanted if not name.startswith("file ")}
    return [f"{reason} changed" for reason in sorted(reasons)]


def _builds(files: Mapping[str, DeliveredFile], model: Model, places: Places, service: str) -> bool:
    """Whether the package can build the service's image.

    Of a service with both `image` and `build`, people often deliver no Dockerfile: its image is to be pulled.
    """
    build = model.services[service].get("build")
    if not build:
        return False
    if build.get("dockerfile_inline") or not model.services[service].get("image"):
        return True
    context = str(build.get("context") or "")
    if not context.startswith("/"):
        return True  # a remote one
    dockerfile = str(build.get("dockerfile") or DOCKERFILES[0])
    names = DOCKERFILES if dockerfile == DOCKERFILES[0] else (dockerfile,)
    paths = [places.within(posixpath.normpath(posixpath.join(context, name))) for name in names]
    return any(path is None or path in files for path in paths)


def _build_key(files: Mapping[str, DeliveredFile], model: Model, service: str) -> str:
    """What the image is built from: all files, for a Dockerfile may name the image of another service."""
    delivered = {path: [file.digest, file.mode] for path, file in files.items()}
    return digest([model.services[service]["build"], delivered])


def _is_built(service: str, key: str, model: Model, sight: Sight) -> bool:
    there = sight.images.get(model.image_of(service))
    if there is None or model.services[service].get("pull_policy") == "build":
        return True
    built = sight.built.get(service)  # None also where an older daos has built it: it did not notice each change
    return built is None or (built.key, built.image_id) != (key, there)


def _needs_pull(model: Model, keys: Mapping[str, str], images: Mapping[str, str]) -> dict[str, bool]:
    """The services whose image is to be pulled (True), or would have to be and must not (False); one for each image."""
    built = {model.image_of(service) for service in keys}
    needed: dict[str, bool] = {}
    asked: set[tuple[str, str]] = set()
    for service, described in sorted(model.services.items()):
        image, policy = model.image_of(service), str(described.get("pull_policy") or "")
        of_platform = (image, str(described.get("platform") or ""))
        if image in built or of_platform in asked or described.get("provider"):
            continue
        is_there = image in images
        if policy in {"never", "build"}:
            if not is_there and model.count(service):
                needed[service] = False
        elif not is_there or ALWAYS_PULLED.fullmatch(policy):
            needed[service] = True
            asked.add(of_platform)
    return needed


def _service_change(
    service: str, model: Model, sight: Sight, stale: Mapping[str, list[str]], *, pulls: bool, builds: bool
) -> ServiceChange:
    containers = [one for one in sight.containers if one.service == service]
    image = model.image_of(service)
    there = sight.images.get(image)
    reasons = {reason for one in containers for reason in stale[one.id]}
    if containers and there is not None and any(one.image_id != there for one in containers):
        reasons.add("its image changed")
    if builds:
        reasons.add("its image is built")
    if pulls:
        reasons.add("its image is pulled")
    if model.count(service) == 0:
        change, reasons = (Change.REMOVE, {"it is scaled to zero"}) if containers else (Change.KEEP, set())
    elif not containers:
        change = Change.CREATE
    elif reasons:
        change = Change.RECREATE
    elif any(one.state != "running" for one in containers):
        change = Change.START
    else:
        change = Change.KEEP
    return ServiceChange(service, change, tuple(sorted(reasons)), image, pulls=pulls, builds=builds)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _items(value: Any) -> Items:
    found = _mapping(value)
    if not all(isinstance(item, str) for item in found.values()):
        raise ValueError("not digests")
    return found


def _digest_and_mode(value: Any) -> tuple[str, int]:
    match value:
        case [str(checksum), int(mode)]:
            return checksum, mode
    raise ValueError("not a checksum and a mode")
