"""What Up recreates: the containers that were made from something else, and no others.

Configs, secrets, variables, and what a daos before this one has left.
"""

import json
from hashlib import sha256
from typing import Any

import pytest

from db.phase import Phase
from tests.support.docker import Docker
from tests.support.machine import Machine, service

DB = service("sleep", "1000")


def package(kind: str, source: dict[str, str]) -> str:
    """A Compose file with a config or a secret of one of two services."""
    path = "/run/thing"
    web = service("sleep", "1000", **{f"{kind}s": [{"source": "thing", "target": path}]})
    return json.dumps({"services": {"web": web, "db": DB}, f"{kind}s": {"thing": source}})


def read_thing(local: Machine, docker: Docker) -> str:
    return docker.run("exec", local.ids(docker)["web"], "cat", "/run/thing")


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, how) for kind in ("config", "secret") for how in ("file", "environment")),
        ("config", "content"),
        ("config", "content of a variable"),
    ],
)
def test_a_changed_config_or_secret_recreates_its_services_only(
    local: Machine, docker: Docker, kind: str, how: str
) -> None:
    def deploy(word: str) -> Any:
        local.values = {"WORD": word} if "variable" in how or how == "environment" else {"OTHER": word}
        source = {
            "environment": {"environment": "WORD"},
            "content": {"content": word},
            "content of a variable": {"content": "${WORD}"},
        }.get(how, {"file": "./things/thing"})
        play = local.deploy(package(kind, source), {"things/thing": word if "file" in how else "same"})
        assert play.succeeded, play.output
        return play

    deploy("old")
    before = local.ids(docker)
    assert read_thing(local, docker) == "old"
    play = deploy("new")
    after = local.ids(docker)
    assert read_thing(local, docker) == "new"
    assert play[Phase.UP].changed
    assert {name for name in after if after[name] != before[name]} == {"web"}
    assert not deploy("new").changed
    assert local.ids(docker) == after


def test_a_changed_variable_recreates_only_the_services_that_use_it(local: Machine, docker: Docker) -> None:
    services = {"web": service("sleep", "1000", environment={"WORD": "${WORD}"}), "db": DB}
    local.values = {"WORD": "old"}
    local.deploy(services)
    before = local.ids(docker)
    local.values = {"WORD": "new"}
    assert local.deploy(services).succeeded
    after = local.ids(docker)
    assert {name for name in after if after[name] != before[name]} == {"web"}


def test_a_changed_env_file_recreates_only_its_services(local: Machine, docker: Docker) -> None:
    services = {"web": service("sleep", "1000", env_file="web.env"), "db": DB}
    for word in ("old", "new"):
        assert local.deploy(services, {"web.env": f"WORD={word}\n"}).succeeded
        container = local.ids(docker)["web"]
        assert f"WORD={word}" in docker.run("inspect", "--format", "{{.Config.Env}}", container)


def test_a_config_that_changes_with_a_setting_of_its_service_reaches_the_container(
    local: Machine, docker: Docker
) -> None:
    """Compose recreates the container for the setting; the next run must know what it was made from."""
    for word in ("old", "new"):
        compose = json.loads(package("config", {"content": word}))
        compose["services"]["web"]["environment"] = {"WORD": word}
        assert local.deploy(json.dumps(compose)).succeeded
        assert read_thing(local, docker) == word
    assert not local.play("deploy.yml").changed


@pytest.mark.parametrize(("dependent", "dependency"), [("db", "web"), ("web", "db")])
def test_a_recreated_service_takes_neither_dependents_nor_dependencies_along(
    local: Machine, docker: Docker, dependent: str, dependency: str
) -> None:
    compose = json.loads(package("config", {"content": "old"}))
    compose["services"][dependent]["depends_on"] = [dependency]
    local.deploy(json.dumps(compose))
    before = local.ids(docker)
    compose["configs"]["thing"]["content"] = "new"
    assert local.deploy(json.dumps(compose)).succeeded
    after = local.ids(docker)
    assert read_thing(local, docker) == "new"
    assert {name for name in after if after[name] != before[name]} == {"web"}


def test_each_container_of_a_scaled_service_is_recreated(local: Machine, docker: Docker) -> None:
    for word in ("old", "new"):
        compose = json.loads(package("config", {"content": word}))
        compose["services"]["web"]["scale"] = 3
        assert local.deploy(json.dumps(compose)).succeeded
        label = "label=com.docker.compose.service=web"
        project = f"label=com.docker.compose.project={local.project}"
        found = docker.run("ps", "--quiet", "--filter", label, "--filter", project).split()
        assert [docker.run("exec", one, "cat", "/run/thing") for one in found] == [word] * 3


def test_a_service_that_is_no_longer_described_is_removed_with_its_profile(local: Machine, docker: Docker) -> None:
    services = {"web": service("sleep", "1000"), "extra": service("sleep", "1000", profiles=["extra"])}
    local.values = {"COMPOSE_PROFILES": "extra"}
    local.deploy(services)
    before = local.ids(docker)
    local.values = {}
    play = local.deploy(services)
    assert play.succeeded, play.output
    assert play[Phase.UP].changed
    assert local.ids(docker) == {"web": before["web"]}


def test_containers_that_compose_does_not_manage_are_left_alone(local: Machine, docker: Docker) -> None:
    project = f"com.docker.compose.project={local.project}"
    local.deploy({"web": service("sleep", "1000")})
    docker.run("run", "--detach", "--network", "none", "--label", project, "demo:1", "sleep", "1000")
    play = local.deploy({"web": service("sleep", "2000")})
    assert play.succeeded, play.output
    assert [found.service for found in play.last.containers] == ["web"]
    assert local.down().succeeded
    assert len(docker.containers(local.project)) == 1


# A host that a daos deployed to which knew no tree and took no notes: its project directory, and the list of its files.


def leave_as_an_older_daos(local: Machine, docker: Docker, compose: dict[str, Any], files: dict[str, str]) -> None:
    written = {"compose.yaml": json.dumps(compose), ".env": "", **files}
    for path, content in written.items():
        place = local.files / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    (local.files / ".env").chmod(0o600)
    local.files.chmod(0o755)
    local.state.mkdir(parents=True)
    lines = (f"{sha256(content.encode()).hexdigest()}  ./{path}\n" for path, content in sorted(written.items()))
    (local.state / "manifest").write_text("".join(lines))
    (local.state / "owner").write_text(f"{local.deployment}\n")
    compose_up = ("compose", "--project-directory", str(local.files), "--project-name", local.project, "up")
    docker.run(*compose_up, "--detach", "--build")


OLD_SERVICES = {
    "web": service("sleep", "1000", volumes=["./page:/page:ro", "./data:/data"], configs=["thing"]),
    "db": service("sleep", "1000", env_file="db.env", volumes=["rows:/rows"]),
    "all": service("sleep", "1000", volumes=[".:/project:ro"]),
}
OLD = {"services": OLD_SERVICES, "configs": {"thing": {"file": "./thing"}}, "volumes": {"rows": {}}}
OLD_FILES = {"page": "page", "thing": "thing", "db.env": "WORD=x\n", "deep/gone": "x", "deep/mine": "x"}


def test_an_upgrade_of_daos_recreates_nothing(local: Machine, docker: Docker) -> None:
    leave_as_an_older_daos(local, docker, OLD, OLD_FILES)
    before = local.ids(docker)
    for _ in range(2):
        play = local.deploy(json.dumps(OLD), OLD_FILES)
        assert play.succeeded, play.output
        assert not play.changed
        assert [warning for result in play.phases for warning in result.warnings] == []
        assert local.ids(docker) == before
    assert (local.state / "owner").read_text().split() == [local.deployment, "installation-of-the-tests"]


def test_after_an_upgrade_of_daos_changes_take_effect_and_dropped_files_go(local: Machine, docker: Docker) -> None:
    old = {**OLD, "services": {"web": OLD_SERVICES["web"], "db": OLD_SERVICES["db"]}}
    leave_as_an_older_daos(local, docker, old, OLD_FILES)
    (local.files / "data/rows").write_text("of a container")
    (local.files / "deep/mine").write_text("by hand")
    before = local.ids(docker)
    files = {path: content for path, content in OLD_FILES.items() if not path.startswith("deep/")}
    play = local.deploy(json.dumps(old), {**files, "page": "new page"})
    assert play.succeeded, play.output
    assert play[Phase.PREPARE].warnings == [
        "File deep/mine was modified on the host, and is deleted, as the package no longer has it."
    ]
    after = local.ids(docker)
    assert {name for name in after if after[name] != before[name]} == {"web"}
    assert docker.run("exec", after["web"], "cat", "/page") == "new page"
    assert not (local.files / "deep/gone").exists()
    assert (local.files / "data/rows").read_text() == "of a container"

    play = local.deploy(json.dumps(old), {**files, "page": "new page", "thing": "new thing"})
    last = local.ids(docker)
    assert {name for name in last if last[name] != after[name]} == {"web"}
    assert docker.run("exec", last["web"], "cat", "/thing") == "new thing"


def test_the_first_run_after_an_upgrade_notices_a_changed_config(local: Machine, docker: Docker) -> None:
    old = {**OLD, "services": {"web": OLD_SERVICES["web"], "db": OLD_SERVICES["db"]}}
    leave_as_an_older_daos(local, docker, old, OLD_FILES)
    before = local.ids(docker)
    play = local.deploy(json.dumps(old), {**OLD_FILES, "thing": "new thing"})
    assert play.succeeded, play.output
    after = local.ids(docker)
    assert docker.run("exec", after["web"], "cat", "/thing") == "new thing"
    assert after["db"] == before["db"]


def test_after_an_upgrade_of_daos_an_image_is_built_once_and_nothing_is_recreated_for_it(
    local: Machine, docker: Docker
) -> None:
    web = service("sleep", "1000", build=".") | {"image": f"{local.project}:mine"}
    files = {"Dockerfile": "FROM demo:1\nCOPY page /page\n", "page": "old"}
    leave_as_an_older_daos(local, docker, {"services": {"web": web}}, files)
    try:
        before = local.ids(docker)
        # An older daos did not notice each change: whether its image is the one of these files is not known.
        assert local.deploy({"web": web}, files)[Phase.BUILD].announced
        assert local.ids(docker) == before
        assert not local.deploy({"web": web}, files)[Phase.BUILD].announced
        assert local.deploy({"web": web}, {**files, "page": "new"}).succeeded
        assert docker.run("exec", local.ids(docker)["web"], "cat", "/page") == "new"
    finally:
        docker.remove_project(local.project)
        docker.run("image", "rm", "--force", f"{local.project}:mine")
