"""What a run has to change: what was delivered against what the host has, as tables."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.host.comparison import (
    Built,
    Change,
    Comparison,
    Content,
    DeliveredFile,
    Model,
    Notes,
    Places,
    Seen,
    ServiceChange,
    Sight,
    compare,
    digest,
    exchangeable,
    is_applied,
    model_for_up,
    place_problem,
)

ROOT = Path(__file__).parents[3]
HOME = "/home/deploy/.daos"
DIRECTORY, TREE = f"{HOME}/projects/shop", f"{HOME}/trees/shop"
PLACES = Places(DIRECTORY, TREE)
COMPOSE, ENV = DeliveredFile("compose-1", 0o644), DeliveredFile("env-1", 0o600)
IMAGES = {"web:1": "sha256:web", "db:1": "sha256:db", "app:1": "sha256:app"}


def service(image: str | None = "web:1", **described: Any) -> dict[str, Any]:
    return {**({} if image is None else {"image": image}), **described}


def bind(path: str) -> dict[str, Any]:
    """A mount of a path in the delivered files, as Compose resolves it."""
    return {
        "type": "bind",
        "source": path if path.startswith("/") else f"{TREE}/{path}".removesuffix("/."),
        "target": "/x",
    }


def resolved(services: Mapping[str, Any], **more: Any) -> Model:
    return Model({"name": "shop", "services": dict(services), **more}, "shop")


def package(values: Mapping[str, str] | None = None, /, **files: DeliveredFile) -> Content:
    """compose.yaml, `.env`, and other files; "conf__site" is conf/site."""
    named = {path.replace("__", "/"): file for path, file in files.items()}
    return Content({"compose.yaml": COMPOSE, ".env": ENV, **named}, values or {})


def file(content: str = "1", mode: int = 0o644, *, seed: bool = False) -> DeliveredFile:
    return DeliveredFile(content, mode, seed)


def running(name: str = "web", image: str | None = None, **changes: Any) -> Seen:
    return replace(Seen(f"{name}-1", name, "running", image or f"sha256:{name}", "hash"), **changes)


def after(content: Content, model: Model, *containers: Seen, **changes: Any) -> Sight:
    """What the host reports after a successful run that has made these containers."""
    found = compare(content, model, PLACES, Sight(images=IMAGES))
    built = {name: Built(key, IMAGES[model.image_of(name)]) for name, key in found.keys.items()}
    return replace(Sight(containers=containers, images=IMAGES, notes=found.notes, built=built), **changes)


def change_of(found: Comparison, name: str = "web") -> ServiceChange:
    [change] = [change for change in found.services if change.service == name]
    return change


def nothing_is_done(found: Comparison) -> bool:
    lists = (found.build, found.pull, found.recreate, found.move, found.delete, found.overwritten, found.unavailable)
    return not any(lists)


WEB = resolved({"web": service()})


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, runner.host.comparison; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    first = {name.split(".")[0] for name in imported.stdout.split()}
    assert not first & {"db", "sqlalchemy", "yaml", "strawberry", "ansible"}


# The first run, and one without a change


def test_the_first_run_moves_all_files_and_creates_all_services() -> None:
    content = package(start=file(mode=0o755))
    found = compare(content, WEB, PLACES, Sight(changed=frozenset(content.files)))
    assert found.move == [".env", "compose.yaml", "start"]
    assert (found.pull, found.build, found.recreate, found.delete) == (["web"], [], [], [])
    assert change_of(found) == ServiceChange("web", Change.CREATE, ("its image is pulled",), "web:1", pulls=True)


MANY = resolved(
    {
        "web": service(volumes=[bind("conf"), bind("seed")], configs=[{"source": "motd"}]),
        "db": service("db:1", secrets=[{"source": "password"}, {"source": "key"}]),
        "app": service("app:1", build={"context": TREE, "dockerfile": "Dockerfile"}),
    },
    configs={"motd": {"name": "shop_motd", "content": "hello"}},
    secrets={"password": {"environment": "PASSWORD"}, "key": {"file": f"{TREE}/key"}},
)
MANY_FILES = {
    "conf__site": file(),
    "conf__site2": file("2"),
    "seed": file(seed=True),
    "key": file(mode=0o600),
    "Dockerfile": file(),
}


def test_an_unchanged_run_does_nothing() -> None:
    content = package({"PASSWORD": "p1"}, **MANY_FILES)
    found = compare(content, MANY, PLACES, after(content, MANY, running(), running("db"), running("app")))
    assert nothing_is_done(found)
    assert {change.change for change in found.services} == {Change.KEEP}
    assert all(change.reasons == () for change in found.services)


@pytest.mark.parametrize(
    ("values", "files", "data", "recreated"),
    [
        ({"PASSWORD": "p2"}, {}, {}, {"db": ("secret password changed",)}),
        ({}, {}, {}, {"db": ("secret password changed",)}),
        ({"PASSWORD": "p1", "OTHER": "1"}, {}, {}, {}),
        (None, {"conf__site": file("2")}, {}, {"web": ("file conf/site changed",)}),
        (None, {"conf__site": file(mode=0o600)}, {}, {"web": ("file conf/site changed",)}),
        (None, {"conf__new": file()}, {}, {"web": ("file conf/new changed",)}),
        (None, {"config": file()}, {}, {}),  # beside `conf`, not in it
        (None, {"key": file("2", 0o600)}, {}, {"db": ("file key changed",)}),
        (None, {"key": file(mode=0o400)}, {}, {"db": ("file key changed",)}),
        (None, {"seed": file("2", seed=True)}, {}, {}),
        (None, {}, {"configs": {"motd": {"content": "bye"}}}, {"web": ("config motd changed",)}),
        (None, {}, {"configs": {"motd": {"name": "shop_motd", "content": "hello", "x-note": 1}}}, {}),
    ],
    ids=str,
)
def test_only_services_that_use_a_change_are_recreated(
    values: Mapping[str, str] | None, files: dict[str, Any], data: dict[str, Any], recreated: dict[str, Any]
) -> None:
    before = package({"PASSWORD": "p1"}, **MANY_FILES)
    now = package({"PASSWORD": "p1"} if values is None else values, **(MANY_FILES | files))
    moved = frozenset(
        path for path, new in now.files.items() if before.files.get(path) != new and not new.only_if_missing
    )
    sight = after(before, MANY, running(), running("db"), running("app"), changed=moved)
    found = compare(now, replace(MANY, data={**MANY.data, **data}), PLACES, sight)
    assert found.recreate == sorted(recreated)
    assert {name: change_of(found, name).reasons for name in recreated} == recreated
    assert all(change_of(found, name).change is Change.RECREATE for name in recreated)


def test_a_file_that_is_gone_is_deleted_and_recreates_those_that_saw_it() -> None:
    before, now = (package(**files) for files in ({"conf__a": file(), "conf__b": file()}, {"conf__a": file()}))
    model = resolved({"web": service(volumes=[bind("conf")]), "db": service("db:1")})
    found = compare(now, model, PLACES, after(before, model, running(), running("db")))
    assert (found.delete, found.move, found.recreate) == (["conf/b"], [], ["web"])


@pytest.mark.parametrize(("old", "new"), [("conf", "conf/a"), ("conf/a", "conf")])
def test_a_file_that_becomes_a_directory_or_the_reverse(old: str, new: str) -> None:
    before, now = (package(**{path.replace("/", "__"): file()}) for path in (old, new))
    model = resolved({"web": service(volumes=[bind("conf")])})
    found = compare(now, model, PLACES, after(before, model, running(), changed=frozenset({new})))
    assert (found.delete, found.move, found.recreate) == ([old], [new], ["web"])


# Files


def test_a_file_that_was_modified_on_the_host_is_restored_and_named() -> None:
    content = package(conf=file(), other=file())
    sight = after(content, WEB, running(), changed=frozenset({"conf"}), modified=frozenset({"conf", "seed"}))
    found = compare(content, WEB, PLACES, sight)
    assert (found.move, found.overwritten) == (["conf"], ["conf"])


def test_a_file_that_was_modified_and_is_no_longer_in_the_package_is_named_too() -> None:
    sight = after(package(conf=file()), WEB, running(), modified=frozenset({"conf"}))
    assert compare(package(), WEB, PLACES, sight).overwritten == ["conf"]


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([".", "data/deep"], ["data/deep"]),
        (["data", "data/deep"], ["data/deep"]),  # not `data`: what contains it is not mounted
        (["data", "database"], []),
        (["data/deep"], []),
    ],
)
def test_what_a_container_could_replace_by_a_link(mounts: list[str], expected: list[str]) -> None:
    places = [DIRECTORY if path == "." else f"{DIRECTORY}/{path}" for path in mounts]
    model = resolved({"web": service(volumes=[bind(place) for place in places])})
    notes = compare(package(), model, PLACES, Sight()).notes
    assert exchangeable(model, PLACES, notes.writable) == expected
    read_only = resolved({"web": service(volumes=[{**bind(place), "read_only": True} for place in places])})
    assert exchangeable(read_only, PLACES, compare(package(), read_only, PLACES, Sight()).notes.writable) == []
    # A link stays when the container that made it is gone.
    later = compare(package(), read_only, PLACES, Sight(notes=Notes.read(notes.write()))).notes
    assert exchangeable(read_only, PLACES, later.writable) == expected


def test_what_could_be_written_to_is_noted_once() -> None:
    mounts = ["data", "data/deep", "data2", "conf", "/srv"]
    writable: list[list[str]] = []
    sight = Sight()
    for paths in (mounts, ["other"], ["."]):
        model = resolved({"web": service(volumes=[bind(path) for path in paths])})
        sight = Sight(notes=compare(package(), model, PLACES, sight).notes)
        assert sight.notes is not None
        writable.append(list(sight.notes.writable))
    assert writable == [["conf", "data", "data2"], ["conf", "data", "data2", "other"], [""]]


def test_a_changed_mode_alone_moves_the_file() -> None:
    sight = after(package(start=file()), WEB, running())
    assert compare(package(start=file(mode=0o755)), WEB, PLACES, sight).move == ["start"]


@pytest.mark.parametrize(("missing", "move"), [(frozenset(), []), (frozenset({"seed"}), ["seed"])])
def test_a_file_that_is_only_created_when_missing(missing: frozenset[str], move: list[str]) -> None:
    content = package(seed=file("2", seed=True))
    sight = after(package(seed=file(seed=True)), WEB, running(), missing=missing, changed=frozenset({"seed"}))
    found = compare(content, WEB, PLACES, sight)
    assert (found.move, "seed" in found.notes.files) == (move, False)


def test_what_saw_a_file_that_is_created_again_is_recreated() -> None:
    content, model = package(seed=file(seed=True)), resolved({"web": service(volumes=[bind("seed")])})
    found = compare(content, model, PLACES, after(content, model, running(), missing=frozenset({"seed"})))
    assert found.recreate == ["web"]


def test_the_containers_own_file_stays_when_the_package_drops_it() -> None:
    sight = after(package(seed=file(seed=True)), WEB, running())
    assert nothing_is_done(compare(package(), WEB, PLACES, sight))


def test_a_file_that_stops_being_the_containers_own_gets_the_packages_mode() -> None:
    sight = after(package(seed=file(mode=0o600, seed=True)), WEB, running())
    assert compare(package(seed=file()), WEB, PLACES, sight).move == ["seed"]


def test_a_file_that_becomes_the_containers_own_is_left_alone() -> None:
    sight = after(package(seed=file()), WEB, running())
    assert nothing_is_done(compare(package(seed=file("2", seed=True)), WEB, PLACES, sight))


# `.env`


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        (WEB, 0o600),
        (resolved({"web": service(volumes=[bind("conf")])}), 0o600),
        (resolved({"web": service(volumes=[bind("/etc")])}), 0o600),
        (resolved({"web": service(volumes=[bind(".env")])}), 0o644),
        (resolved({"web": service(volumes=[bind(".")])}), 0o644),
        (resolved({"web": service(secrets=[{"source": "e"}])}, secrets={"e": {"file": f"{TREE}/.env"}}), 0o644),
    ],
)
def test_env_can_be_read_by_others_only_where_it_is_mounted(model: Model, mode: int) -> None:
    assert compare(package(), model, PLACES, Sight()).env_mode == mode


def test_a_changed_env_recreates_only_what_has_it_mounted() -> None:
    model = resolved({"web": service(volumes=[bind(".")]), "db": service("db:1")})
    sight = after(package(), model, running(), running("db"), changed=frozenset({".env"}))
    content = Content({"compose.yaml": COMPOSE, ".env": file("2", 0o600)})
    assert compare(content, model, PLACES, sight).recreate == ["web"]


def test_an_env_that_is_mounted_from_now_on_gets_its_mode() -> None:
    model = resolved({"web": service(volumes=[bind(".env")])})
    found = compare(package(), model, PLACES, after(package(), WEB, running()))
    assert (found.move, found.notes.files[".env"]) == ([], ("env-1", 0o644))


# Where a service sees a file


@pytest.mark.parametrize(
    "model",
    [
        resolved({"web": service(volumes=[bind("conf/site")])}),
        resolved({"web": service(volumes=[bind("./conf/../conf")])}),
        resolved({"web": service(volumes=[bind(f"{DIRECTORY}/conf")])}),
        resolved(
            {"web": service(volumes=[{"type": "volume", "source": "site", "target": "/x"}])},
            volumes={"site": {"driver_opts": {"type": "none", "o": "bind", "device": f"{TREE}/conf"}}},
        ),
        resolved({"web": service(volumes_from=["data:ro"]), "data": service("db:1", volumes=[bind("conf")])}),
        resolved(
            {
                "web": service(volumes_from=["one"]),
                "one": service("db:1", volumes_from=["web", "two"]),
                "two": service("db:1", volumes=[bind("conf")]),
            }
        ),
        resolved({"web": service(configs=[{"source": "c"}])}, configs={"c": {"file": f"{TREE}/conf/site"}}),
        resolved({"web": service(secrets=[{"source": "c"}])}, secrets={"c": {"file": f"{TREE}/conf/site"}}),
    ],
)
def test_each_way_to_see_a_file_counts(model: Model) -> None:
    sight = after(package(conf__site=file()), model, running(), changed=frozenset({"conf/site"}))
    assert compare(package(conf__site=file("2")), model, PLACES, sight).recreate == ["web"]


@pytest.mark.parametrize(
    "described",
    [
        {"volumes_from": ["container:data"]},
        {"volumes": [{"type": "volume", "source": "data", "target": "/x"}]},
        {"volumes": [{"type": "tmpfs", "target": "/x"}]},
        {"volumes": [bind("conf2")]},
        {"configs": [{"source": "gone"}]},
    ],
)
def test_what_only_looks_like_a_view_of_a_file_does_not_count(described: dict[str, Any]) -> None:
    others = {"container": service("db:1", volumes=[bind("conf")])}
    model = resolved({"web": service(**described), **others}, volumes={"data": {"driver_opts": {"device": "tmpfs"}}})
    sight = after(package(conf__site=file()), model, running(), changed=frozenset({"conf/site"}))
    assert "web" not in compare(package(conf__site=file("2")), model, PLACES, sight).recreate


# Builds

BUILD = {"context": TREE, "dockerfile": "Dockerfile"}


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


APP = resolved({"app": service("app:1", build=BUILD)})
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


# Pulls


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


# What happens to a service


@pytest.mark.parametrize(
    ("containers", "change"),
    [
        ([], Change.CREATE),
        ([running()], Change.KEEP),
        ([running(state="exited")], Change.START),
        ([running(), running(id="web-2", state="created")], Change.START),
        ([running(), running(id="web-2", image_id="sha256:older")], Change.RECREATE),
    ],
)
def test_what_happens_to_a_service_follows_from_its_containers(containers: list[Seen], change: Change) -> None:
    assert change_of(compare(package(), WEB, PLACES, after(package(), WEB, *containers))).change is change


def test_a_service_that_is_scaled_to_zero_is_removed() -> None:
    model = resolved({"web": service(scale=0)})
    change = change_of(compare(package(), model, PLACES, after(package(), model, running())))
    assert (change.change, change.reasons) == (Change.REMOVE, ("it is scaled to zero",))


def test_a_service_that_is_not_described_or_not_enabled_is_removed() -> None:
    found = compare(package(), WEB, PLACES, after(package(), WEB, running(), running("db")))
    assert change_of(found, "db").change is Change.REMOVE
    assert found.recreate == []


# Runs that were cut off


CONF = resolved({"web": service(volumes=[bind("conf")]), "db": service("db:1")})
OLD, NEW = package(conf=file()), package(conf=file("2"))


def cut_off(*containers: Seen, changed: frozenset[str] = frozenset()) -> Sight:
    """What the host reports after a run of NEW over OLD that has noted what it does, and was cut off later."""
    first = after(OLD, CONF, running(), running("db"), changed=frozenset({"conf"}))
    noted = compare(NEW, CONF, PLACES, first).notes
    return Sight(containers=containers, images=IMAGES, notes=Notes.read(noted.write()), changed=changed)


@pytest.mark.parametrize(
    ("content", "containers", "changed", "recreated"),
    [
        (NEW, [running(), running("db")], frozenset(), ["web"]),
        (NEW, [running(), running("db")], frozenset({"conf"}), ["web"]),
        (NEW, [running(id="web-new"), running("db")], frozenset(), []),
        (OLD, [running(), running("db")], frozenset({"conf"}), ["web"]),
        (OLD, [running(id="web-new"), running("db")], frozenset({"conf"}), ["web"]),
        (OLD, [running(), running("db")], frozenset(), ["web"]),  # it may have been moved, and back by hand
    ],
)
def test_a_container_that_a_run_did_not_come_to_is_recreated_by_the_next(
    content: Content, containers: list[Seen], changed: frozenset[str], recreated: list[str]
) -> None:
    assert compare(content, CONF, PLACES, cut_off(*containers, changed=changed)).recreate == recreated


def test_what_was_noted_of_a_container_is_kept_until_it_is_made_again() -> None:
    sight = cut_off(running(), running("db"))
    again = compare(NEW, CONF, PLACES, sight)
    assert again.notes.before["web-1"] is None
    assert again.notes.before["db-1"] == {}


def test_a_changed_secret_survives_a_run_that_was_cut_off() -> None:
    model = resolved({"db": service("db:1", secrets=[{"source": "p"}])}, secrets={"p": {"environment": "P"}})
    first = after(package({"P": "1"}), model, running("db"))
    noted = compare(package({"P": "2"}), model, PLACES, first).notes
    assert compare(package({"P": "2"}), model, PLACES, replace(first, notes=noted)).recreate == ["db"]
    assert compare(package({"P": "1"}), model, PLACES, replace(first, notes=noted)).recreate == []


def test_files_that_a_run_did_not_come_to_delete_are_deleted_by_the_next() -> None:
    sight = replace(cut_off(running()), had=frozenset({"gone", "conf"}))
    assert compare(NEW, CONF, PLACES, sight).delete == ["gone"]


# A host that an older daos has deployed to: it left a list of files, and no notes


def upgraded(*containers: Seen, **changes: Any) -> Sight:
    had = frozenset({"compose.yaml", ".env", "conf", "Dockerfile"})
    return Sight(containers=containers, images=IMAGES, had=had, **changes)


def test_the_first_run_on_such_a_host_keeps_its_containers() -> None:
    content = package(conf=file(), Dockerfile=file())
    model = resolved(
        {"web": service(volumes=[bind("conf")], configs=[{"source": "c"}])}, configs={"c": {"content": "1"}}
    )
    sight = upgraded(running())
    found = compare(content, model, PLACES, sight)
    assert nothing_is_done(found)
    assert nothing_is_done(compare(content, model, PLACES, replace(sight, notes=found.notes)))


@pytest.mark.parametrize(
    ("changed", "content", "recreated"),
    [
        ({"conf"}, package(conf=file("2"), Dockerfile=file()), ["db", "web"]),
        ({"compose.yaml"}, package(conf=file(), Dockerfile=file()), ["db"]),
        (set(), package(Dockerfile=file()), ["db", "web"]),
        (set(), package(conf=file(mode=0o755), Dockerfile=file()), ["db", "web"]),
    ],
)
def test_a_change_on_such_a_host_counts_for_all_that_may_come_from_it(
    changed: set[str], content: Content, recreated: list[str]
) -> None:
    model = resolved(
        {
            "web": service(volumes=[bind("conf")]),
            "db": service("db:1", configs=[{"source": "c"}]),
            "app": service("app:1"),
        },
        configs={"c": {"content": "1"}},
    )
    sight = upgraded(running(), running("db"), running("app"), changed=frozenset(changed))
    assert compare(content, model, PLACES, sight).recreate == recreated


def test_an_image_on_such_a_host_is_built_for_an_older_daos_may_have_missed_a_change() -> None:
    assert compare(package(conf=file(), Dockerfile=file()), APP, PLACES, upgraded(running("app"))).build == ["app"]


# Notes


def test_notes_are_read_as_they_were_written() -> None:
    notes = compare(package({"PASSWORD": "p"}, **MANY_FILES), MANY, PLACES, Sight(containers=[running()])).notes
    assert Notes.read(notes.write()) == notes
    assert "\n" not in notes.write()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"contents": []}',
        '{"contents": {"web": 1}}',
        '{"contents": {"web": {"file a": 1}}}',
        '{"before": {"web-1": []}}',
        '{"files": {"a": []}}',
        '{"files": {"a": ["x"]}}',
        '{"files": {"a": ["x", "y"]}}',
    ],
)
def test_notes_of_another_shape_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"object|Expecting|digests|checksum"):
        Notes.read(text)


# Recovery

HASHES = {"web": "hash", "db": "hash"}
BOTH = resolved({"web": service(), "db": service("db:1")})


@pytest.mark.parametrize(
    ("containers", "model", "applied"),
    [
        ([running(), running("db")], BOTH, True),
        ([running(), running("db", state="exited")], BOTH, True),
        ([running()], BOTH, False),
        ([], BOTH, False),
        ([], resolved({}), True),
        ([running()], resolved({}), False),
        ([running(), running("db"), running("old")], BOTH, False),
        ([running(state="created"), running("db")], BOTH, False),
        ([running(hash="older"), running("db")], BOTH, False),
        ([running(image="sha256:older"), running("db")], BOTH, False),
        ([running()], resolved({"web": service(), "db": service("db:1", scale=0)}), True),
        ([running(), running("db")], resolved({"web": service(), "db": service("db:1", scale=0)}), False),
        ([running()], resolved({"web": service(scale=2)}), False),
        ([running(), running(id="web-2")], resolved({"web": service(deploy={"replicas": 2})}), True),
        ([running(), running(id="web-2")], resolved({"web": service()}), False),
        ([running()], resolved({"web": service(), "llm": {"provider": {"type": "model"}}}), True),
    ],
)
def test_a_run_is_applied_when_all_containers_are_what_it_meant(
    containers: list[Seen], model: Model, applied: bool
) -> None:
    assert is_applied(model, after(package(), model, *containers), HASHES) is applied


@pytest.mark.parametrize(("containers", "applied"), [([running()], False), ([running(id="web-new")], True)])
def test_a_run_is_not_applied_while_a_container_has_the_old_files(containers: list[Seen], applied: bool) -> None:
    assert is_applied(CONF, cut_off(*containers, running("db")), HASHES) is applied


# Where a project may reach


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (resolved({"web": service(volumes=[bind("../other")])}), "mounts ../other,"),
        (resolved({"web": service(volumes=[bind("..")])}), "mounts ..,"),
        (resolved({"web": service(volumes=[bind("../..")])}), f"mounts {HOME},"),
        (resolved({"web": service(volumes=[bind(f"{HOME}/projects/other/x")])}), f"mounts {HOME}/projects/other/x,"),
        (resolved({"web": service(volumes=[bind(f"{HOME}/state/shop")])}), f"mounts {HOME}/state/shop,"),
        (resolved({"web": service(volumes=[bind("../shop-2")])}), "mounts ../shop-2,"),
        (
            resolved({"web": service(configs=[{"source": "c"}])}, configs={"c": {"file": f"{TREE}/../other/c"}}),
            "uses the config ../other/c,",
        ),
        (
            resolved({"web": service(secrets=[{"source": "c"}])}, secrets={"c": {"file": f"{TREE}/../other/c"}}),
            "uses the secret ../other/c,",
        ),
        (resolved({"web": service(security_opt=["seccomp:../other/p"])}), "has the seccomp profile ../other/p,"),
        (resolved({"web": service(build={"context": f"{HOME}/trees/other"})}), "is built from ../other,"),
        (
            resolved({"web": service(build={"context": TREE, "dockerfile": "../other/Dockerfile"})}),
            "is built from ../other/Dockerfile,",
        ),
        (
            resolved({"web": service(build={"context": TREE, "additional_contexts": {"o": f"{HOME}/trees/other"}})}),
            "is built from ../other,",
        ),
        (
            resolved(
                {"web": service(volumes=[{"type": "volume", "source": "v", "target": "/x"}])},
                volumes={"v": {"driver_opts": {"device": f"{HOME}/projects/other"}}},
            ),
            f"mounts {HOME}/projects/other,",
        ),
    ],
)
def test_a_path_among_other_projects_is_named(model: Model, shown: str) -> None:
    problem = place_problem(model, PLACES)
    assert problem is not None
    assert problem.startswith(f"Service 'web' {shown} which is not in the project's directory")


@pytest.mark.parametrize(
    "described",
    [
        {"volumes": [bind("conf"), bind("."), bind("/srv/data"), bind(DIRECTORY), bind("/home/deploy/.daos-backup")]},
        {"build": {"context": "https://git.example/x.git", "additional_contexts": {"base": "docker-image://x:1"}}},
        {"build": {"context": TREE, "dockerfile": "dev/../Dockerfile"}},
    ],
)
def test_paths_of_the_package_and_elsewhere_are_allowed(described: dict[str, Any]) -> None:
    assert place_problem(resolved({"web": service(**described)}), PLACES) is None


# The model that Up uses


def test_up_uses_paths_of_the_project_directory_and_pulls_nothing() -> None:
    model = resolved(
        {"web": service(volumes=[bind("conf")], environment={"HERE": f"{TREE}/x"}, pull_policy="always", build=BUILD)},
        configs={"c": {"file": f"{TREE}/c"}},
        volumes={"v": {"driver_opts": {"device": f"{TREE}/v"}}},
    )
    assert model_for_up(model, PLACES) == {
        "name": "shop",
        "configs": {"c": {"file": f"{DIRECTORY}/c"}},
        "volumes": {"v": {"driver_opts": {"device": f"{DIRECTORY}/v"}}},
        "services": {
            "web": {
                "image": "web:1",
                "volumes": [{"type": "bind", "source": f"{DIRECTORY}/conf", "target": "/x"}],
                "environment": {"HERE": f"{DIRECTORY}/x"},
                "build": BUILD,
                "pull_policy": "never",
            }
        },
    }


@pytest.mark.parametrize(
    "path", ["conf/p.json", "./conf/../conf/p.json", f"{TREE}/conf/p.json", f"{DIRECTORY}/conf/p.json"]
)
def test_what_compose_reads_in_up_stays_in_the_tree(path: str) -> None:
    """Containers can write to the project's directory."""
    options = ["no-new-privileges", f"seccomp:{path}", f"seccomp={path}", "seccomp=unconfined", "apparmor:seccomp:x"]
    model = resolved({"web": service(security_opt=options, label_file=[f"{TREE}/labels", "/srv/labels"])})
    profile = f"seccomp={TREE}/conf/p.json"
    assert model_for_up(model, PLACES)["services"]["web"] == {
        "image": "web:1",
        "security_opt": ["no-new-privileges", profile, profile, "seccomp=unconfined", "apparmor:seccomp:x"],
        "label_file": [f"{TREE}/labels", "/srv/labels"],
        "pull_policy": "never",
    }


def test_a_changed_seccomp_profile_recreates_its_services() -> None:
    model = resolved({"web": service(security_opt=["seccomp:p.json"]), "db": service("db:1")})
    content = {"p.json": "1", "other": "1"}
    before = Content({path: file(text) for path, text in content.items()})
    sight = after(before, model, running(), running("db"), changed=frozenset({"p.json", "other"}))
    found = compare(Content({path: file("2") for path in content}), model, PLACES, sight)
    assert (found.recreate, change_of(found).reasons) == (["web"], ("file p.json changed",))


def test_a_changed_model_is_noted() -> None:
    notes = [compare(package(), model, PLACES, Sight()).notes.model for model in (WEB, BOTH)]
    assert notes == [digest(model_for_up(model, PLACES)) for model in (WEB, BOTH)]
    assert notes[0] != notes[1]


@pytest.mark.parametrize("text", ["", "[]", "null", "{"])
def test_a_model_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"object|Expecting|digests|checksum"):
        Model.read(text, "shop")


def test_a_model_is_read_from_composes_json() -> None:
    model = Model.read(json.dumps({"services": {"b": service("x:1"), "a": service(None), "c": service("x:1")}}), "shop")
    assert model.images() == ["shop-a", "x:1"]
    assert Model.read("{}", "shop").services == {}
