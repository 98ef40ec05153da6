"""Checks which paths a project uses on its host, and finds those that its containers could have replaced."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runner.host.model import Model, Places
from runner.host.notes import Notes


def place_problem(model: Model, places: Places) -> str | None:
    """Return a sentence about a service that uses a directory of daos outside of its project; None if none does."""
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
    """Yield the absolute paths that an image is built from."""
    context = str(build.get("context") or "")
    paths = [context, *map(str, (build.get("additional_contexts") or {}).values())]
    if build.get("dockerfile") and context.startswith("/"):
        paths.append(posixpath.join(context, str(build["dockerfile"])))
    yield from (path for path in paths if path.startswith("/"))


def _shown(place: str, places: Places) -> str:
    """Return a path as it was most likely written: a path that Compose has made absolute is relative again."""
    trees = posixpath.dirname(places.tree)
    is_relative = f"{place}/".startswith(f"{trees}/")
    return posixpath.relpath(place, places.tree) if is_relative else place


def exchangeable(model: Model, places: Places, writable: Iterable[str]) -> list[str]:
    """Return the paths in the project directory that containers use and could have replaced by a link, sorted.

    `writable` are the paths that containers can write to or could before: a link remains when its container is gone.
    """
    roots = [_below(path) for path in writable]
    used = {places.within(posixpath.normpath(path)) for service in model.services for path in model.paths(service)}
    return sorted(path for path in used if path and any(path.startswith(root) for root in roots))


def writable(model: Model, places: Places, before: Notes | None) -> list[str]:
    """Return the paths in the project directory that containers can write to, including those of earlier runs.

    They are sorted, and paths below another one of them are left out.
    """
    found = {
        place
        for service in model.services
        for path in model.writable(service)
        if (place := places.within(posixpath.normpath(path))) is not None
    }
    found |= set(before.writable if before else ())
    return sorted(path for path in found if not any(path != root and path.startswith(_below(root)) for root in found))


def _below(path: str) -> str:
    """Return the prefix of the paths that are in a directory of the project."""
    return f"{path}/" if path else ""
