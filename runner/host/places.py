"""Where a project may reach on its host, and what its containers could have exchanged there."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runner.host.model import Model, Places
from runner.host.notes import Notes


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


def exchangeable(model: Model, places: Places, writable: Iterable[str]) -> list[str]:
    """The paths in the project's directory that containers use, and that could have been replaced by a link.

    `writable` is what containers can write to, or could: a link stays when its container is gone.
    """
    roots = [_below(path) for path in writable]
    used = {places.within(posixpath.normpath(path)) for service in model.services for path in model.paths(service)}
    return sorted(path for path in used if path and any(path.startswith(root) for root in roots))


def writable(model: Model, places: Places, before: Notes | None) -> list[str]:
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
