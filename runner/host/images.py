"""Determines which images a run has to build and to pull."""

import posixpath
import re
from collections.abc import Mapping

from runner.host.content import DeliveredFile, digest
from runner.host.model import Model, Places
from runner.host.notes import Sight

ALWAYS_PULLED = re.compile(r"always|daily|weekly|every_.*|refresh")
DOCKERFILES = ("Dockerfile", "dockerfile")  # BuildKit also finds the second if the first is the default


def builds(files: Mapping[str, DeliveredFile], model: Model, places: Places, service: str) -> bool:
    """Whether the package can build the service's image.

    Packages often contain no Dockerfile for a service that has both `image` and `build`: its image is to be pulled.
    """
    build = model.services[service].get("build")
    if not build:
        return False
    if build.get("dockerfile_inline") or not model.services[service].get("image"):
        return True
    context = str(build.get("context") or "")
    if not context.startswith("/"):
        return True  # a remote context
    dockerfile = str(build.get("dockerfile") or DOCKERFILES[0])
    names = DOCKERFILES if dockerfile == DOCKERFILES[0] else (dockerfile,)
    paths = [places.within(posixpath.normpath(posixpath.join(context, name))) for name in names]
    return any(path is None or path in files for path in paths)


def build_key(files: Mapping[str, DeliveredFile], model: Model, service: str) -> str:
    """Return a digest of the image's sources: all files, because a Dockerfile may name another service's image."""
    delivered = {path: [file.digest, file.mode] for path, file in files.items()}
    return digest([model.services[service]["build"], delivered])


def is_built(service: str, key: str, model: Model, sight: Sight) -> bool:
    """Whether the run has to build the service's image, whose sources have the digest `key`."""
    image_id = sight.images.get(model.image_of(service))
    if image_id is None or model.services[service].get("pull_policy") == "build":
        return True
    built = sight.built.get(service)  # also None if an older daos has built it, which did not detect each change
    return built is None or (built.key, built.image_id) != (key, image_id)


def needs_pull(model: Model, keys: Mapping[str, str], images: Mapping[str, str]) -> dict[str, bool]:
    """Return the services whose image has to be pulled, one for each image.

    The value is True, or False if the service's pull_policy forbids the pull.
    """
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
