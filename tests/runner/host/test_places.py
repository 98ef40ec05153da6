"""Where a project may reach, and what could be exchanged there."""

from typing import Any

import pytest

from runner.host.comparison import compare
from runner.host.model import Model
from runner.host.notes import Notes, Sight
from runner.host.places import exchangeable, place_problem
from tests.runner.host.packages import DIRECTORY, HOME, PLACES, TREE, bind, package, resolved, service


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
