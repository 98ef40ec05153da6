"""The phases Build and Pull: which images a run builds and pulls, and what happens when it cannot."""

from collections.abc import Iterator
from typing import Any

import pytest

from db.containers import ContainerState
from db.phase import Phase
from runner.spec.run import ProjectFile
from tests.support.docker import Docker
from tests.support.machine import PLAYBOOKS, Machine, service

UNREACHABLE = "missing.invalid/nothing:1"


@pytest.fixture
def tag(docker: Docker, local: Machine) -> Iterator[str]:
    """The name of an image of this test's own, without a tag; all images of the project are removed afterwards."""
    yield local.project
    names = docker.run("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    docker.remove_project(local.project)
    for name in names:
        if name.startswith(local.project):
            docker.run("image", "rm", "--force", name)


def built(name: str | None = None, **more: Any) -> dict[str, Any]:
    """A service whose image the package builds."""
    described = service("sleep", "1000", build=".", **more)
    del described["image"]
    return described | ({"image": name} if name else {})


def dockerfile(*lines: str) -> dict[str, str]:
    return {"Dockerfile": "\n".join(["FROM demo:1", *lines, ""])}


def page(docker: Docker, machine: Machine, name: str = "web", path: str = "/page") -> str:
    """The file in the container of a service."""
    return docker.run("exec", machine.ids(docker)[name], "cat", path)


@pytest.mark.parametrize("policy", ["never", "build"])
def test_an_image_that_must_not_be_pulled_and_is_absent_stops_nothing(
    local: Machine, docker: Docker, policy: str
) -> None:
    local.deploy({"web": service("sleep", "1000"), "db": service("sleep", "1000")}, {"page": "old"})
    before = docker.containers(local.project)
    web = service("sleep", "1000") | {"image": UNREACHABLE, "pull_policy": policy}
    play = local.deploy({"web": web, "db": service("sleep", "2000")}, {"page": "new"})
    assert (play.last.phase, play.last.reason) == (Phase.PULL, "IMAGE_PULL_FAILED")
    assert play.last.detail == (
        f"Image {UNREACHABLE} of service 'web' is not on the host, and its pull_policy '{policy}' forbids to pull it."
    )
    assert docker.containers(local.project) == before
    assert (local.files / "page").read_text() == "old"


def test_an_image_that_must_not_be_pulled_and_is_there_is_used(local: Machine) -> None:
    assert local.deploy({"web": service("sleep", "1000", pull_policy="never")}).succeeded


def test_an_image_that_the_host_has_is_not_pulled(local: Machine, docker: Docker, tag: str) -> None:
    """Compose itself pulls `latest` again, whatever the policy `missing` says."""
    docker.run("tag", "demo:1", f"{tag}:latest")
    services = {
        "tagged": service("sleep", "1000") | {"image": f"{tag}:latest"},
        "untagged": service("sleep", "1000") | {"image": tag},
        "missing": service("sleep", "1000", pull_policy="missing") | {"image": tag},
    }
    play = local.deploy(services)
    assert play.succeeded, play.output
    assert not play[Phase.PULL].announced


def test_an_image_that_is_always_pulled_is_pulled(local: Machine, docker: Docker) -> None:
    local.deploy({"web": service("sleep", "1000")})
    before = docker.containers(local.project)
    play = local.deploy({"web": service("sleep", "1000", pull_policy="always")})
    assert (play.last.phase, play.last.reason) == (Phase.PULL, "IMAGE_PULL_FAILED")
    assert "Image demo:1 of service 'web' could not be pulled" in play.last.detail
    assert docker.containers(local.project) == before


def test_only_what_is_absent_is_pulled(local: Machine) -> None:
    absent = service("true") | {"image": UNREACHABLE}
    play = local.deploy({"web": service("sleep", "1000"), "job": absent, "off": {**absent, "profiles": ["later"]}})
    assert play.last.reason == "IMAGE_PULL_FAILED"
    assert f"Image {UNREACHABLE} of service 'job' could not be pulled" in play.last.detail
    assert "demo:1" not in play.output


def test_a_changed_file_rebuilds_its_images_and_recreates_only_their_services(
    local: Machine, docker: Docker, tag: str
) -> None:
    services = {"web": built(), "db": service("sleep", "1000")}
    first = local.deploy(services, {**dockerfile("COPY page /page"), "page": "old"})
    assert first.succeeded, first.output
    assert [first[phase].changed for phase in PLAYBOOKS["deploy.yml"]] == [
        0,
        1,
        0,
        1,
        0,
    ]
    before = local.ids(docker)

    unchanged = local.deploy(services, {**dockerfile("COPY page /page"), "page": "old"})
    assert not unchanged.changed
    assert not unchanged[Phase.BUILD].announced
    assert local.ids(docker) == before

    assert local.deploy(services, {**dockerfile("COPY page /page"), "page": "new"}).succeeded
    assert page(docker, local) == "new"
    after = local.ids(docker)
    assert (after["web"] == before["web"], after["db"] == before["db"]) == (False, True)

    assert local.deploy(services, {**dockerfile("COPY page /page", "RUN echo more >>/page"), "page": "new"}).succeeded
    assert page(docker, local) == "newmore\n"
    assert local.ids(docker)["db"] == before["db"]


def test_a_changed_argument_rebuilds(local: Machine, docker: Docker, tag: str) -> None:
    web = built()
    web["build"] = {"context": ".", "args": {"WORD": "${WORD}"}}
    for word in ("one", "two"):
        local.values = {"WORD": word}
        play = local.deploy({"web": web}, dockerfile("ARG WORD", "RUN echo $WORD >/page"))
        assert play.succeeded, play.output
        assert page(docker, local) == f"{word}\n"


def test_a_changed_mode_in_the_context_rebuilds(local: Machine, docker: Docker, tag: str) -> None:
    for mode in (0o644, 0o755):
        run = ProjectFile(b"echo", mode=mode)
        files: dict[str, str | ProjectFile] = {**dockerfile("COPY run /run.sh"), "run": run}
        assert local.deploy({"web": built()}, files).succeeded
        container = local.ids(docker)["web"]
        assert docker.run("exec", container, "stat", "-c", "%a", "/run.sh") == f"{mode:o}\n"


def test_an_inline_dockerfile_is_built_again_when_it_changes(local: Machine, docker: Docker, tag: str) -> None:
    web = built()
    for word in ("one", "two"):
        web["build"] = {"context": ".", "dockerfile_inline": f"FROM demo:1\nRUN echo {word} >/page\n"}
        assert local.deploy({"web": web}).succeeded
        assert page(docker, local) == f"{word}\n"


def test_an_image_that_was_removed_or_replaced_is_built_again(local: Machine, docker: Docker, tag: str) -> None:
    files = {**dockerfile("COPY page /page"), "page": "mine"}
    services = {"web": built(f"{tag}:mine")}
    assert local.deploy(services, files).succeeded
    docker.run("tag", "demo:1", f"{tag}:mine")
    assert local.deploy(services, files).succeeded
    assert page(docker, local) == "mine"

    docker.run("rm", "--force", *docker.containers(local.project))
    docker.run("image", "rm", "--force", f"{tag}:mine")
    assert local.deploy(services, files).succeeded
    assert page(docker, local) == "mine"


def test_an_image_is_built_once_and_used_by_a_sibling(local: Machine, docker: Docker, tag: str) -> None:
    services = {"web": built(f"{tag}:both"), "worker": service("sleep", "1000") | {"image": f"{tag}:both"}}
    for word in ("old", "new"):
        play = local.deploy(services, {**dockerfile("COPY page /page"), "page": word})
        assert play.succeeded, play.output
        assert (page(docker, local, "web"), page(docker, local, "worker")) == (word, word)
        assert not play[Phase.PULL].announced


def test_a_service_with_an_image_and_without_its_dockerfile_is_not_built(local: Machine) -> None:
    """As in a repository whose package has the Compose file alone."""
    play = local.deploy({"web": service("sleep", "1000", build="./source")})
    assert play.succeeded, play.output
    assert not play[Phase.BUILD].announced


def test_an_image_that_cannot_be_built_leaves_what_runs(local: Machine, docker: Docker, tag: str) -> None:
    services = {"web": built(), "db": service("sleep", "1000")}
    assert local.deploy(services, {**dockerfile("COPY page /page"), "page": "old"}).succeeded
    before = local.ids(docker)
    broken = {**dockerfile("COPY page /page", "RUN echo no compiler >&2; exit 3"), "page": "new"}
    for _ in range(2):
        play = local.deploy({**services, "db": service("sleep", "2000")}, broken)
        assert (play.last.phase, play.last.reason) == (Phase.BUILD, "IMAGE_BUILD_FAILED")
        assert "could not be built" in play.last.detail
        assert "no compiler" in play.last.detail
        assert [found.state for found in play.last.containers] == [ContainerState.RUNNING] * 2
        assert local.ids(docker) == before
        assert (local.files / "page").read_text() == "old"

    play = local.deploy(services, {**dockerfile("COPY page /page"), "page": "new"})
    assert play.succeeded, play.output
    assert page(docker, local) == "new"


def test_a_missing_dockerfile_is_named(local: Machine) -> None:
    play = local.deploy({"web": built()})
    assert (play.last.phase, play.last.reason) == (Phase.BUILD, "IMAGE_BUILD_FAILED")
    assert "Dockerfile" in play.last.detail


def test_what_was_built_before_the_run_ended_is_not_lost(local: Machine, docker: Docker, tag: str) -> None:
    """A run that is cut off after Build: the next one must not take the old container for the new image's."""
    files = {**dockerfile("COPY page /page"), "page": "old"}
    assert local.deploy({"web": built()}, files).succeeded
    local.begin({"web": built()}, {**files, "page": "new"})
    assert not local.run_phases(Phase.PREPARE, Phase.BUILD)[-1].failed
    play = local.deploy({"web": built()}, {**files, "page": "new"})
    assert play.succeeded, play.output
    assert not play[Phase.BUILD].announced
    assert page(docker, local) == "new"


def test_a_file_that_belongs_to_a_container_is_built_from_as_it_is_in_the_package(
    local: Machine, docker: Docker, tag: str
) -> None:
    """What a container or a person has written into the project is not in the image."""
    files = {**dockerfile("COPY . /source"), "page": "mine"}
    assert local.deploy({"web": built(volumes=["./:/project"])}, files).succeeded
    (local.files / "stray").write_text("by hand")
    assert local.deploy({"web": built(volumes=["./:/project"])}, {**files, "page": "new"}).succeeded
    names = docker.run("exec", local.ids(docker)["web"], "ls", "/source").split()
    assert sorted(names) == ["Dockerfile", "compose.yaml", "page"]
