"""Which images are built and pulled, as tables."""

from dataclasses import replace
from typing import Any

import pytest

from runner.host.comparison import Change, compare
from runner.host.content import Content, DeliveredFile
from runner.host.notes import Built, Sight
from tests.runner.host.packages import (
    APP,
    BUILD,
    IMAGES,
    PLACES,
    TREE,
    WEB,
    after,
    change_of,
    file,
    package,
    resolved,
    running,
    service,
)


@pytest.mark.parametrize(
    ("described", "files", "builds"),
    [
        (service("app:1", build=BUILD), {"Dockerfile": file()}, True),
        (service("app:1", build=BUILD), {"dockerfile": file()}, True),
        (service("app:1", build=BUILD), {"Dockerfile": file(seed=True)}, True),
        (service("app:1", build=BUILD), {}, False),
        (service("app:1", build={**BUILD, "dockerfile": "Dockerfile.prod"}), {"Dockerfile": file()}, False),
        (service("app:1", build={**BUILD, "dockerfile": "dev/Dockerfile"}), {"dev__Dockerfile": file()}, True),
        (service("app:1", build={"context": f"{TREE}/app"}), {"app__Dockerfile": file()}, True),
        (service("app:1", build={**BUILD, "dockerfile_inline": "FROM scratch"}), {}, True),
        (service("app:1", build={"context": "https://git.example/app.git"}), {}, True),
        (service("app:1", build={"context": "/srv/app"}), {}, True),
        (service(None, build=BUILD), {}, True),
        (service("app:1"), {"Dockerfile": file()}, False),
    ],
)
def test_what_the_package_can_build_is_built_and_the_rest_is_pulled(
    described: dict[str, Any], files: dict[str, DeliveredFile], builds: bool
) -> None:
    found = compare(package(**files), resolved({"app": described}), PLACES, Sight())
    assert (list(found.build), list(found.pull)) == ((["app"], []) if builds else ([], ["app"]))
    assert (change_of(found, "app").builds, change_of(found, "app").pulls) == (builds, not builds)


SOURCES = {"Dockerfile": file(), "main": file(), "seed": file(seed=True)}


@pytest.mark.parametrize(
    ("files", "build", "changes", "is_built"),
    [
        ({}, {}, {}, False),
        ({"main": file("2")}, {}, {}, True),
        ({"main": file(mode=0o755)}, {}, {}, True),
        ({"seed": file("2", seed=True)}, {}, {}, True),  # it is built from what is delivered
        ({"new": file()}, {}, {}, True),
        ({}, {"args": {"A": "2"}}, {}, True),
        ({}, {}, {"images": {}}, True),
        ({}, {}, {"images": {"app:1": "sha256:pulled-by-hand"}}, True),
        ({}, {}, {"built": {}}, True),
    ],
)
def test_an_image_is_built_when_what_it_depends_on_has_changed(
    files: dict[str, Any], build: dict[str, Any], changes: dict[str, Any], is_built: bool
) -> None:
    sight = after(package(**SOURCES), APP, running("app"), **changes)
    model = resolved({"app": service("app:1", build={**BUILD, **build})})
    found = compare(package(**(SOURCES | files)), model, PLACES, sight)
    assert list(found.build) == (["app"] if is_built else [])
    assert change_of(found, "app").change is (Change.RECREATE if is_built else Change.KEEP)


def test_the_pull_policy_build_builds_each_time() -> None:
    model = resolved({"app": service("app:1", build=BUILD, pull_policy="build")})
    found = compare(package(**SOURCES), model, PLACES, after(package(**SOURCES), model, running("app")))
    assert (found.build, found.pull) == (["app"], [])


def test_a_variable_counts_for_a_build() -> None:
    sight = after(package(**SOURCES), APP, running("app"), changed=frozenset({".env"}))
    content = Content({**package(**SOURCES).files, ".env": file("2", 0o600)})
    assert compare(content, APP, PLACES, sight).build == ["app"]


def test_an_image_that_a_sibling_builds_is_not_pulled_and_changes_both() -> None:
    model = resolved({"app": service("app:1", build=BUILD), "worker": service("app:1"), "db": service("db:1")})
    containers = running("app"), running("worker", "sha256:app"), running("db")
    found = compare(
        package(**(SOURCES | {"main": file("2")})), model, PLACES, after(package(**SOURCES), model, *containers)
    )
    assert (found.build, found.pull) == (["app"], [])
    changes = {change.service: (change.change, change.builds) for change in found.services}
    assert changes == {"app": (Change.RECREATE, True), "worker": (Change.RECREATE, True), "db": (Change.KEEP, False)}


def test_compose_names_an_image_that_has_no_name() -> None:
    model = resolved({"app": service(None, build=BUILD)})
    sight = Sight(images={"shop-app": "sha256:app"})
    key = compare(package(**SOURCES), model, PLACES, sight).keys["app"]
    built = replace(sight, built={"app": Built(key, "sha256:app")})
    assert compare(package(**SOURCES), model, PLACES, built).build == []


@pytest.mark.parametrize(
    ("policy", "image", "pull", "unavailable"),
    [
        (None, "web:1", [], []),
        (None, "new:1", ["web"], []),
        ("missing", "web:1", [], []),
        ("if_not_present", "new:1", ["web"], []),
        ("always", "web:1", ["web"], []),
        ("daily", "web:1", ["web"], []),
        ("every_12h", "web:1", ["web"], []),
        ("never", "web:1", [], []),
        ("never", "new:1", [], ["web"]),
        ("build", "new:1", [], ["web"]),
    ],
)
def test_only_what_up_would_have_to_pull_is_pulled(
    policy: str | None, image: str, pull: list[str], unavailable: list[str]
) -> None:
    model = resolved({"web": service(image, **({"pull_policy": policy} if policy else {}))})
    found = compare(package(), model, PLACES, Sight(images=IMAGES))
    assert (found.pull, found.unavailable) == (pull, unavailable)


def test_one_image_is_pulled_once_for_each_platform() -> None:
    services = {
        "a": service("new:1"),
        "b": service("new:1"),
        "c": service("new:1", platform="linux/arm64"),
        "d": service("other:1"),
    }
    found = compare(package(), resolved(services), PLACES, Sight())
    assert found.pull == ["a", "c", "d"]
    assert all(change.pulls for change in found.services)


def test_an_image_that_was_pulled_earlier_recreates_the_container_of_the_old_one() -> None:
    found = compare(package(), WEB, PLACES, after(package(), WEB, running(image="sha256:older")))
    assert (change_of(found).change, change_of(found).reasons) == (Change.RECREATE, ("its image changed",))
    assert found.recreate == []  # Compose sees this itself


@pytest.mark.parametrize("described", [{"scale": 0}, {"deploy": {"replicas": 0}}, {"provider": {"type": "model"}}])
def test_a_service_without_containers_needs_no_image_that_must_not_be_pulled(described: dict[str, Any]) -> None:
    model = resolved({"web": service("new:1", pull_policy="never", **described)})
    found = compare(package(), model, PLACES, Sight())
    assert (found.pull, found.unavailable, change_of(found).change) == ([], [], Change.KEEP)
