"""What Compose has resolved, and what Up makes of it."""

import json

import pytest

from runner.host.comparison import compare
from runner.host.content import Content, digest
from runner.host.model import Model, model_for_up
from runner.host.notes import Sight
from tests.runner.host.packages import (
    BOTH,
    BUILD,
    DIRECTORY,
    PLACES,
    TREE,
    WEB,
    after,
    bind,
    change_of,
    file,
    package,
    resolved,
    running,
    service,
)


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
