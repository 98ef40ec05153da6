"""Compares what was delivered with what exists on the host: what a run has to change there, and why.

Pure, and limited to the standard library, because Ansible's process imports it, too.  It compares three things:

`Content`    the package's files and the deployment's variables, as checksums
`Model`      the resolution of the delivered files by Compose (`docker compose config --format json`)
`Sight`      the host's report: containers, images, files that differ, and the notes of the previous run

Compose itself recreates a container whose configuration or image has changed.  It does not notice that the content of a
config, a secret, or a mounted file has changed, and does not build an image that already exists: `compare` finds these.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from db.containers import ContainerState
from runner.host.content import ENV_FILE, Content, DeliveredFile, Items, digest
from runner.host.images import build_key, builds, is_built, needs_pull
from runner.host.model import Model, Places, model_for_up
from runner.host.notes import Notes, Seen, Sight
from runner.host.places import writable

PRIVATE = 0o600  # the mode of `.env`
READABLE = 0o644  # the mode of a mounted `.env`: its reader in the container may be another user


class Change(StrEnum):
    """What happens to a service's containers."""

    CREATE = "CREATE"
    RECREATE = "RECREATE"
    START = "START"
    KEEP = "KEEP"
    REMOVE = "REMOVE"


@dataclass(frozen=True)
class ServiceChange:
    """What happens to one service, and why, as text for people."""

    service: str
    change: Change
    reasons: Sequence[str] = ()
    image: str | None = None
    pulls: bool = False
    builds: bool = False


@dataclass(frozen=True)
class Comparison:
    """What a run has to do.  Lists of services are sorted; if all lists are empty, there is nothing to do."""

    services: Sequence[ServiceChange]
    build: Sequence[str]
    pull: Sequence[str]
    recreate: Sequence[str]  # services that Compose would keep
    move: Sequence[str]  # files
    delete: Sequence[str]  # files
    overwritten: Sequence[str]  # files to be moved or deleted that were modified on the host
    env_mode: int
    notes: Notes
    keys: Mapping[str, str]  # service -> digest of what its image is built from, if the package builds it
    unavailable: Sequence[str] = ()  # services whose image does not exist and must not be pulled


def compare(content: Content, model: Model, places: Places, sight: Sight) -> Comparison:
    """Return what a run that brings the project up has to do."""
    # Longer than 40 lines: the order of its steps is the comparison.
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
        service: build_key(content.files, model, service)
        for service in model.services
        if builds(files, model, places, service)
    }
    build = sorted(service for service in keys if is_built(service, keys[service], model, sight))
    needs = needs_pull(model, keys, sight.images)
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
            writable=writable(model, places, sight.notes),
        ),
        keys=keys,
        unavailable=sorted(service for service, is_pulled in needs.items() if not is_pulled),
    )


def is_applied(model: Model, sight: Sight, hashes: Mapping[str, str]) -> bool:
    """Whether the containers are those that a run that was cut off was to bring up.

    `hashes` are Compose's, by service.
    """
    notes = sight.notes or Notes()
    present: Counter[str] = Counter()
    for container in sight.containers:
        service = container.service
        if (
            service not in model.services
            or container.state is ContainerState.CREATED
            or container.hash != hashes.get(service)
        ):
            return False
        if container.image_id != sight.images.get(model.image_of(service), container.image_id):
            return False
        if notes.items_of(container) != notes.contents.get(service, {}):
            return False
        present[service] += 1
    # Compose's hash of a service does not include the number of its containers.
    return all(model.count(service) == present[service] for service in model.services)


def items(
    content: Content, files: Mapping[str, DeliveredFile], model: Model, places: Places, service: str
) -> dict[str, str]:
    """Return what a container of the service is made from in addition to its configuration: name -> digest."""
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


def _is_moved(path: str, file: DeliveredFile, sight: Sight) -> bool:
    if file.only_if_missing:
        return path in sight.missing
    if path in sight.changed:
        return True
    if path == ENV_FILE:
        return False  # Up corrects its mode; a container that mounts it has had it since it was created
    if sight.notes is None:  # a run of an older daos, whose files all had this mode
        return file.mode != READABLE
    known = sight.notes.files.get(path)
    return known is None or known[1] != file.mode


def _files_below(files: Mapping[str, DeliveredFile], places: Places, path: str) -> dict[str, str]:
    """Return the digests of the delivered files at `path` or below, except those that belong to the container."""
    return {
        f"file {name}": file.digest[:16] if name == ENV_FILE else f"{file.digest[:16]} {file.mode:04o}"
        for name, file in files.items()
        if not file.only_if_missing and places.holds([path], name)
    }


def _mounts_env(model: Model, places: Places) -> bool:
    return any(places.holds(model.paths(service), ENV_FILE) for service in model.services)


def _known(container: Seen, contents: Mapping[str, Items], sight: Sight) -> Items | None:
    """Return what to note about a container that is kept."""
    if sight.notes is None:
        return contents.get(container.service, {})
    return sight.notes.items_of(container)


def _stale(container: Seen, wanted: Items, touched: Iterable[str], sight: Sight, *, is_new: bool) -> list[str]:
    """Return why a container that Compose would keep is out of date; empty if it is not.

    `touched` are the replaced files that the container sees; `is_new` is whether any file is replaced.
    """
    reasons = {f"file {path}" for path in touched}
    made_from = sight.notes.items_of(container) if sight.notes is not None else None
    if made_from is not None:
        reasons |= {name for name in {*made_from, *wanted} if made_from.get(name) != wanted.get(name)}
    elif sight.notes is not None:
        reasons.add("what it was made from")
    elif is_new:
        # For a container that an older daos created, only the files are known: the rest may come from changed files.
        reasons |= {name for name in wanted if not name.startswith("file ")}
    return [f"{reason} changed" for reason in sorted(reasons)]


def _service_change(
    service: str, model: Model, sight: Sight, stale: Mapping[str, list[str]], *, pulls: bool, builds: bool
) -> ServiceChange:
    containers = [one for one in sight.containers if one.service == service]
    image = model.image_of(service)
    image_id = sight.images.get(image)
    reasons = {reason for one in containers for reason in stale[one.id]}
    if containers and image_id is not None and any(one.image_id != image_id for one in containers):
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
    elif any(one.state is not ContainerState.RUNNING for one in containers):
        change = Change.START
    else:
        change = Change.KEEP
    return ServiceChange(service, change, tuple(sorted(reasons)), image, pulls=pulls, builds=builds)
