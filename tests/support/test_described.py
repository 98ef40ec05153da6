"""What packages describe is what compose by hand makes of them, if it is told to build and to recreate everything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.described import containers_by_service, describe, differences
from tests.support.docker import Docker, make_hello
from tests.support.generated_packages import Service, Version, generate

SEEDS = range(2)


def up(version: Version, project: str, directory: Path, *options: str) -> None:
    """`docker compose up` by hand, in the directory that describes the version."""
    environment = {"HOME": str(Path.home()), "PATH": os.environ["PATH"], "PWD": str(directory), **version.variables}
    command = [
        "docker",
        "compose",
        "--project-name",
        project,
        "up",
        "--detach",
        "--build",
        "--remove-orphans",
        *options,
    ]
    done = subprocess.run(command, cwd=directory, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def write(version: Version, project: str, directory: Path) -> None:
    """Make the directory that of another version."""
    shutil.rmtree(directory, ignore_errors=True)
    describe(version, project, directory, Path.home())


@pytest.mark.parametrize("seed", SEEDS)
def test_compose_by_hand_makes_what_is_described(docker: Docker, project_name: str, tmp_path: Path, seed: int) -> None:
    make_hello()
    pair = generate(seed)
    for version in (pair.first, pair.second):
        write(version, project_name, tmp_path / "project")
        up(version, project_name, tmp_path / "project", "--force-recreate")
        described = describe(version, project_name, tmp_path / "project", Path.home())
        left = [words for words in differences(docker, project_name, described) if "described by nothing" not in words]
        assert left == [], pair.second.show(project_name)


@pytest.mark.parametrize("seed", SEEDS)
def test_compose_by_hand_keeps_what_is_described_alike(
    docker: Docker, project_name: str, tmp_path: Path, seed: int
) -> None:
    make_hello()
    pair = generate(seed)
    seen = []
    for version in (pair.first, pair.second):
        write(version, project_name, tmp_path / "project")
        up(version, project_name, tmp_path / "project")
        described = describe(version, project_name, tmp_path / "project", Path.home())
        seen.append((described, containers_by_service(docker, project_name)))
    (was, before), (now, after) = seen
    for name in was.keys() & now.keys():
        if was[name].key == now[name].key:
            smaller = min(was[name].containers, now[name].containers)
            assert len(before[name] & after[name]) == smaller, pair.second.show(project_name)


def test_each_difference_is_found(docker: Docker, project_name: str, tmp_path: Path) -> None:
    make_hello()
    files = {"conf/a": (b"one", "0644"), "key": (b"key", "0600")}
    service = Service(environment={"E": "${V0}"}, mounts=["conf", "key"], configs=["inline"])
    configs = {"inline": {"content": "x"}}
    ran = Version({"s0": service, "gone": Service()}, files, {"V0": "1"}, configs, {})
    described = Version(
        {"s0": service, "missing": Service()},
        {"conf/a": (b"two", "0644"), "conf/b": (b"", "0644"), "key": (b"key", "0644")},
        {"V0": "2"},
        {"inline": {"content": "y"}},
        {},
    )
    write(ran, project_name, tmp_path / "ran")
    up(ran, project_name, tmp_path / "ran")
    words = differences(docker, project_name, describe(described, project_name, tmp_path / "described", Path.home()))
    assert words == [
        "gone is described by nothing, and has containers",
        "missing has 0 containers instead of 1",
        "s0: E is '1' instead of '2'",
        "s0: /mounted/conf/a has another content: b'one'",
        "s0: /mounted/conf/b has another content: b''",
        "s0: /mounted/key has mode 600 instead of 644",
        "s0: /srv/configs/inline has another content: b'x'",
        "s0: /mounted/conf has ['b'] too many or too few",
    ]
