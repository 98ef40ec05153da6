"""What a run has to change: what was delivered against what the host has, as tables."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.containers import ContainerState
from runner.host.comparison import Change, ServiceChange, compare, is_applied
from runner.host.content import Content
from runner.host.model import Model
from runner.host.notes import Notes, Seen, Sight
from tests.runner.host.packages import (
    APP,
    BOTH,
    COMPOSE,
    DIRECTORY,
    IMAGES,
    MANY,
    MANY_FILES,
    PLACES,
    TREE,
    WEB,
    after,
    bind,
    change_of,
    file,
    nothing_is_done,
    package,
    resolved,
    running,
    service,
)

ROOT = Path(__file__).parents[3]


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, runner.host.comparison; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    first = {name.split(".")[0] for name in imported.stdout.split()}
    assert not first & {"sqlalchemy", "pydantic", "yaml", "strawberry", "ansible"}


# The first run, and one without a change


def test_the_first_run_moves_all_files_and_creates_all_services() -> None:
    content = package(start=file(mode=0o755))
    found = compare(content, WEB, PLACES, Sight(changed=frozenset(content.files)))
    assert found.move == [".env", "compose.yaml", "start"]
    assert (found.pull, found.build, found.recreate, found.delete) == (["web"], [], [], [])
    assert change_of(found) == ServiceChange("web", Change.CREATE, ("its image is pulled",), "web:1", pulls=True)


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


# What happens to a service


@pytest.mark.parametrize(
    ("containers", "change"),
    [
        ([], Change.CREATE),
        ([running()], Change.KEEP),
        ([running(state=ContainerState.EXITED)], Change.START),
        ([running(), running(id="web-2", state=ContainerState.CREATED)], Change.START),
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


# Recovery

HASHES = {"web": "hash", "db": "hash"}


@pytest.mark.parametrize(
    ("containers", "model", "applied"),
    [
        ([running(), running("db")], BOTH, True),
        ([running(), running("db", state=ContainerState.EXITED)], BOTH, True),
        ([running()], BOTH, False),
        ([], BOTH, False),
        ([], resolved({}), True),
        ([running()], resolved({}), False),
        ([running(), running("db"), running("old")], BOTH, False),
        ([running(state=ContainerState.CREATED), running("db")], BOTH, False),
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
