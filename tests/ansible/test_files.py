"""How Up puts the package's files in their place: all of them or none, unchanged, each with its mode."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from db.phase import Phase
from runner.spec.run import ProjectFile
from tests.support.docker import Docker
from tests.support.machine import PLAYBOOKS, Machine, Result, as_nobody, compose_that, contents, service

WEB = {"web": service("sleep", "1000")}
NOTHING = {"web": service("true", scale=0)}  # no container, for what depends on files alone

Files = Mapping[str, str | ProjectFile]


def put(machine: Machine, files: Files | None = None) -> Result:
    """The result of Up, or of the phase before that failed."""
    machine.begin(NOTHING, files)
    return machine.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP)[-1]


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def test_files_that_are_no_longer_in_the_package_go_and_others_stay(local: Machine) -> None:
    put(local, {"old/page": "1", "both": "1"})
    (local.files / "volume").mkdir()
    (local.files / "volume/rows").write_text("of a container")
    result = put(local, {"both": "2", "new page": "2"})
    assert result.changed
    assert result.warnings == []
    assert set(contents(local.files)) == {"compose.yaml", ".env", "both", "new page", "volume/rows"}
    assert (local.files / "both").read_text() == "2"


def test_a_file_that_a_package_before_had_is_not_deleted_twice(local: Machine) -> None:
    """Once it is out of the package, a file of the same name is the user's."""
    put(local, {"page": "1"})
    put(local)
    (local.files / "page").write_text("mine")
    put(local, {"other": "1"})
    assert (local.files / "page").read_text() == "mine"


def test_a_file_that_was_modified_on_the_host_is_replaced_and_named(local: Machine) -> None:
    local.deploy(WEB, {"page": "1", "gone": "1", "same": "1"})
    (local.files / "page").write_text("by hand")
    (local.files / "gone").write_text("by hand")
    play = local.deploy(WEB, {"page": "1", "same": "2"})
    assert play.succeeded, play.output
    assert play[Phase.PREPARE].warnings == [
        "File gone was modified on the host, and is deleted, as the package no longer has it.",
        "File page was modified on the host, and is replaced by the package's.",
    ]
    assert play[Phase.UP].changed
    files = contents(local.files)
    assert (files["page"], files["same"], "gone" in files) == (b"1", b"2", False)


def test_a_file_that_is_missing_on_the_host_is_put_back(local: Machine) -> None:
    put(local, {"page": "1"})
    (local.files / "page").unlink()
    assert put(local, {"page": "1"}).changed
    assert (local.files / "page").read_text() == "1"


def test_a_file_that_is_only_created_when_it_is_missing_belongs_to_the_container(
    local: Machine, docker: Docker
) -> None:
    web = {"web": service("sh", "-c", "echo more >>/state; sleep 1000", volumes=["./state:/state"])}
    seed = ProjectFile(b"first\n", only_if_missing=True)
    assert local.deploy(web, {"state": seed, "page": "1"}).succeeded
    before = docker.containers(local.project)

    play = local.deploy(web, {"state": ProjectFile(b"second\n", only_if_missing=True), "page": "2"})
    assert play.succeeded, play.output
    assert play[Phase.PREPARE].warnings == []
    assert (local.files / "state").read_text() == "first\nmore\n"
    assert docker.containers(local.project) == before

    (local.files / "state").unlink()
    put(local, {"state": seed})
    assert (local.files / "state").read_text() == "first\n"


def test_a_file_that_is_only_created_when_it_is_missing_stays_when_the_package_drops_it(local: Machine) -> None:
    put(local, {"state": ProjectFile(b"first", only_if_missing=True)})
    put(local)
    assert (local.files / "state").read_text() == "first"


def test_a_file_keeps_its_bytes_and_its_mode(machine: Machine, docker: Docker) -> None:
    every_byte = bytes(range(256)) * 9
    files = {
        "conf/key": ProjectFile(every_byte, mode=0o600),
        "run": ProjectFile(b"#!/bin/sh\nexec sleep 1000\n", mode=0o755),
        "shared": ProjectFile(b"", mode=0o664),
    }
    web = {"web": {**WEB["web"], "command": ["/run.sh"], "volumes": ["./run:/run.sh:ro", "./conf:/conf:ro"]}}
    play = machine.deploy(web, files)
    assert play.succeeded, play.output
    assert (machine.files / "conf/key").read_bytes() == every_byte
    assert [mode(machine.files / path) for path in files] == ["0600", "0755", "0664"]
    (container,) = docker.containers(machine.project)
    assert docker.run("exec", container, "stat", "-c", "%a", "/conf/key") == "600\n"


def test_a_changed_mode_alone_takes_effect(local: Machine, docker: Docker) -> None:
    services = {
        "web": service("sleep", "1000", volumes=["./run:/run.sh:ro"]),
        "db": service("sleep", "1000"),
    }
    local.deploy(services, {"run": "echo"})
    before = local.ids(docker)
    play = local.deploy(services, {"run": ProjectFile(b"echo", mode=0o755)})
    assert play.succeeded, play.output
    after = local.ids(docker)
    assert mode(local.files / "run") == "0755"
    assert (after["web"] == before["web"], after["db"] == before["db"]) == (False, True)
    assert docker.run("exec", after["web"], "stat", "-c", "%a", "/run.sh") == "755\n"


@pytest.mark.parametrize(
    ("volumes", "expected"),
    [([], "0600"), (["./conf:/conf"], "0600"), (["./.env:/env:ro"], "0644"), ([".:/project:ro"], "0644")],
)
def test_the_variables_are_readable_only_where_a_container_mounts_them(
    local: Machine, docker: Docker, volumes: list[str], expected: str
) -> None:
    local.values = {"WORD": "hunter2"}
    play = local.deploy({"web": service("sleep", "1000", user="65534", volumes=volumes)}, {"conf/x": "x"})
    assert play.succeeded, play.output
    assert mode(local.files / ".env") == expected
    if expected == "0644":
        (container,) = docker.containers(local.project)
        assert (
            docker.run("exec", container, "sh", "-c", "cat /env /project/.env 2>/dev/null; true") == "WORD='hunter2'\n"
        )


def test_mounted_variables_take_effect_when_they_change(local: Machine, docker: Docker) -> None:
    """The file is replaced, and a container has the old one mounted until it is recreated."""
    services = {"web": service("sleep", "1000", volumes=["./.env:/env:ro"]), "db": service("sleep", "1000")}
    local.values = {"WORD": "old"}
    local.deploy(services)
    before = local.ids(docker)
    local.values = {"WORD": "new"}
    assert local.deploy(services).succeeded
    after = local.ids(docker)
    assert docker.run("exec", after["web"], "cat", "/env") == "WORD='new'\n"
    assert after["db"] == before["db"]


def test_an_override_file_is_applied(local: Machine, docker: Docker) -> None:
    override = 'services: {web: {environment: {WORD: "%s"}}}'
    for name, word in (("compose.override.yaml", "one"), ("docker-compose.override.yml", "two")):
        play = local.deploy(WEB, {name: override % word})
        assert play.succeeded, play.output
        (container,) = docker.containers(local.project)
        assert f"WORD={word}" in docker.run("inspect", "--format", "{{.Config.Env}}", container)
    assert local.deploy(WEB).succeeded
    (container,) = docker.containers(local.project)
    assert "WORD" not in docker.run("inspect", "--format", "{{.Config.Env}}", container)


def test_a_file_replaces_the_empty_directory_that_docker_made_for_it(local: Machine) -> None:
    put(local)
    (local.files / "site.conf/deep").mkdir(parents=True)
    assert not put(local, {"site.conf": "x"}).failed
    assert (local.files / "site.conf").read_text() == "x"


def test_a_file_may_become_a_directory_and_a_directory_a_file(local: Machine) -> None:
    files = {"a": "1", "b/c": "1"}, {"a/c": "2", "b": "2"}
    for number in (0, 1, 0):
        result = put(local, files[number])
        assert not result.failed, result.detail
        found = contents(local.files)
        assert {path: found[path].decode() for path in found.keys() - {"compose.yaml", ".env"}} == files[number]


def have_a_directory_with_files(project: Path) -> None:
    (project / "z.conf").mkdir()
    (project / "z.conf/mine").write_text("x")


def have_a_link_as_a_directory(project: Path) -> None:
    (project / "z.conf").unlink(missing_ok=True)
    (project / "zone").symlink_to(project.parents[3])


def have_a_link_as_a_file(project: Path) -> None:
    (project / "z.conf").symlink_to(project.parents[3] / "elsewhere")


def have_a_pipe_as_a_file(project: Path) -> None:
    os.mkfifo(project / "z.conf")


def have_a_file_as_a_directory(project: Path) -> None:
    (project / "zone").write_text("mine")


@pytest.mark.parametrize(
    ("phase", "obstacle", "words"),
    [
        (
            Phase.UP,
            have_a_directory_with_files,
            "{}/z.conf is a directory with files in it. Remove or rename it on the host.",
        ),
        (
            Phase.PREPARE,
            have_a_link_as_a_directory,
            "{}/zone is a symbolic link, which daos does not follow. Remove it on the host.",
        ),
        (
            Phase.PREPARE,
            have_a_link_as_a_file,
            "{}/z.conf is a symbolic link, which daos does not follow. Remove it on the host.",
        ),
        (Phase.PREPARE, have_a_pipe_as_a_file, "{}/z.conf is not a regular file. Remove it on the host."),
        (
            Phase.UP,
            have_a_file_as_a_directory,
            "{}/zone is a file where the package has a directory. Remove or rename it on the host.",
        ),
    ],
)
def test_where_one_file_cannot_be_moved_none_is(
    local: Machine, docker: Docker, phase: Phase, obstacle: Callable[[Path], None], words: str
) -> None:
    files = {"a": "1", "gone": "1"}
    local.deploy(WEB, files)
    obstacle(local.files)
    outside = sorted(local.directory.iterdir())
    before = contents(local.files), docker.containers(local.project)
    local.begin({"web": service("sleep", "2000")}, {"a": "2", "b": "2", "z.conf": "2", "zone/one": "2"})
    *_, result = local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY)
    assert (result.phase, result.reason) == (phase, "TASK_FAILED")
    assert result.detail == f"No file was replaced: {words.format(local.files)}"
    for path in local.files.iterdir():
        if path.is_fifo():
            path.unlink()
    assert (contents(local.files), docker.containers(local.project)) == before
    assert sorted(local.directory.iterdir()) == outside

    for path in (local.files / "z.conf", local.files / "zone"):  # as the message says
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    play = local.deploy({"web": service("sleep", "2000")}, {"a": "2", "b": "2", "z.conf": "2", "zone/one": "2"})
    assert play.succeeded, play.output
    assert set(contents(local.files)) == {"compose.yaml", ".env", "a", "b", "z.conf", "zone/one"}


LINK = "is a symbolic link, which daos does not follow"


def test_a_link_to_what_the_package_has_does_not_count_as_its_file(local: Machine) -> None:
    put(local, {"page": "1", "zone/page": "1"})
    for path, target in (("page", "of-others"), ("zone", "directory-of-others")):
        shutil.move(local.files / path, local.directory / target)
        (local.files / path).symlink_to(local.directory / target)
        result = put(local, {"page": "1", "zone/page": "1"})
        assert (result.phase, result.detail) == (
            Phase.PREPARE,
            f"No file was replaced: {local.files / path} {LINK}. Remove it on the host.",
        )
        (local.files / path).unlink()
        shutil.move(local.directory / target, local.files / path)


@pytest.mark.parametrize(
    ("moment", "detail"),
    [
        ('*"-Rp "*', "The files could not be moved into the project: {}/zone " + LINK),  # behind the check
        ('"-f delete"*', "The files could not be moved into the project: {}/zone " + LINK),  # before files are deleted
    ],
)
def test_a_directory_that_becomes_a_link_behind_the_check_is_not_followed(
    local: Machine, tmp_path: Path, moment: str, detail: str
) -> None:
    put(local, {"zone/page": "1", "zone/gone": "1"})
    elsewhere = local.directory / "elsewhere"
    elsewhere.mkdir()
    for name in ("page", "gone"):
        (elsewhere / name).write_text("mine")
    before = contents(elsewhere)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("cp", "mv"):
        swap = f"/bin/mv {local.files}/zone {tmp_path}/taken; ln -s {elsewhere} {local.files}/zone"
        fake = programs / name
        fake.write_text(f'#!/bin/sh\ncase "$* " in {moment}) {swap} ;; esac\nexec /bin/{name} "$@"\n')
        fake.chmod(0o755)
    local.begin(NOTHING, {"zone/page": "2"})
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    result = local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, environment=environment)[-1]
    assert (result.phase, result.detail) == (Phase.UP, detail.format(local.files))
    assert contents(elsewhere) == before


def test_a_vacant_directory_that_becomes_a_link_is_not_followed(local: Machine, tmp_path: Path) -> None:
    put(local)
    (local.files / "zone/deep").mkdir(parents=True)
    elsewhere = local.directory / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "rmdir"
    swap = f"/bin/mv {local.files}/zone {tmp_path}/taken && ln -s {elsewhere} {local.files}/zone"
    fake.write_text(f'#!/bin/sh\n[ -e {tmp_path}/taken ] || {{ {swap}; }}\nexec /bin/rmdir "$@"\n')
    fake.chmod(0o755)
    local.begin(NOTHING, {"zone": "a file"})
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    result = local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, environment=environment)[-1]
    assert (result.phase, result.failed) == (Phase.UP, True)
    assert (tmp_path / "taken").is_dir()
    assert (elsewhere / "deep").is_dir()


def test_a_link_that_a_container_has_made_is_not_mounted(local: Machine, docker: Docker) -> None:
    """It writes to the project's directory, and would have the host's root on the next run."""
    services = {
        "writer": service("sleep", "1000", volumes=[".:/project", "./data:/data"]),
        "other": service("sleep", "1000", volumes=["./data/deep:/data"]),
    }
    (local.files / "data/deep").mkdir(parents=True)
    assert local.deploy(services).succeeded
    before = docker.containers(local.project)
    shutil.rmtree(local.files / "data/deep")
    (local.files / "data/deep").symlink_to("/")
    again = {name: {**described, "environment": {"CHANGED": "1"}} for name, described in services.items()}
    result = local.deploy(again).last
    assert (result.phase, result.detail) == (
        Phase.UP,
        f"No container was changed: {local.files}/data/deep is a symbolic link that a container could have made. "
        "Remove it on the host, or mount its target.",
    )
    assert docker.containers(local.project) == before


def test_a_link_of_a_container_that_the_package_no_longer_has_is_not_mounted(local: Machine, docker: Docker) -> None:
    """It could write to the project's directory until now."""
    assert local.deploy({"web": service("sleep", "1000", volumes=[".:/project"])}).succeeded
    (local.files / "data").symlink_to("/")
    before = docker.containers(local.project)
    for _ in range(2):
        result = local.deploy({"web": service("sleep", "1000", volumes=["./data:/data"])}).last
        assert (result.phase, result.failed) == (Phase.UP, True)
        assert f"{local.files}/data is a symbolic link that a container could have made." in result.detail
        assert docker.containers(local.project) == before


def test_a_compose_file_that_a_container_exchanges_decides_nothing(
    local: Machine, docker: Docker, tmp_path: Path
) -> None:
    """It mounts the project directory, and waits until Prepare has checked what is there."""
    services = {"web": service("sleep", "1000", volumes=[".:/project"])}
    assert local.deploy(services).succeeded
    evil = tmp_path / "evil.yaml"
    evil.write_text("services: {root: {image: demo:1, privileged: true, command: [sleep, '1000']}}")
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "mv"  # the notes of the run come first in Up
    fake.write_text(
        f'#!/bin/sh\ncase "$* " in "-f delete "*) cp {evil} {local.files}/compose.yaml ;; esac\nexec /bin/mv "$@"\n'
    )
    fake.chmod(0o755)
    local.begin({"web": {**services["web"], "environment": {"CHANGED": "1"}}})
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    result = local.run_phases(*PLAYBOOKS["deploy.yml"], environment=environment)[-1]
    assert (result.phase, result.failed) == (Phase.VERIFY, False)
    assert [found.service for found in result.containers] == ["web"]
    assert len(docker.containers(local.project)) == 1


def test_a_seccomp_profile_that_a_container_exchanges_decides_nothing(
    local: Machine, docker: Docker, tmp_path: Path
) -> None:
    """Compose reads the profile once more in Up."""
    forbidden, allowed = tmp_path / "forbidden.json", tmp_path / "allowed.json"
    forbidden.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    allowed.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    web = service("sleep", "1000", volumes=[".:/project"], security_opt=["seccomp:./profile.json"])
    local.begin({"web": web}, {"profile.json": forbidden.read_text()})
    environment = compose_that(tmp_path, up=f"cp {allowed} {local.files}/profile.json")
    result = local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, environment=environment)[-1]
    assert (result.phase, result.failed) == (Phase.UP, False)
    assert (local.files / "profile.json").read_text() == allowed.read_text()
    [container] = docker.containers(local.project)
    assert "SCMP_ACT_ERRNO" in docker.run("inspect", "--format", "{{.HostConfig.SecurityOpt}}", container)


def test_a_changed_seccomp_profile_takes_effect(local: Machine, docker: Docker) -> None:
    services = {"web": service("sleep", "1000", security_opt=["seccomp:./profile.json"]), "db": WEB["web"]}
    profile = '{"defaultAction": "SCMP_ACT_ALLOW"}'
    assert local.deploy(services, {"profile.json": profile}).succeeded
    before = local.ids(docker)
    assert local.deploy(services, {"profile.json": profile + "\n"}).succeeded
    after = local.ids(docker)
    assert (after["web"] == before["web"], after["db"] == before["db"]) == (False, True)


def test_a_link_that_no_container_could_have_made_is_mounted(local: Machine) -> None:
    elsewhere = local.directory / "disk"
    elsewhere.mkdir()
    local.files.mkdir(parents=True)
    (local.files / "data").symlink_to(elsewhere)
    services = {"web": service("touch", "/data/seen", volumes=["./data:/data"], restart="no")}
    assert local.deploy(services).succeeded
    assert (elsewhere / "seen").exists()


def test_the_mode_of_dotenv_is_not_set_through_a_link(local: Machine, tmp_path: Path) -> None:
    """A container that mounts the project directory exchanges `.env` when its mode is about to change."""
    put(local, {"page": "1"})
    outside = local.directory / "outside"
    outside.write_text("x")
    outside.chmod(0o640)
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "chmod"
    fake.write_text(f'#!/bin/sh\nln -sf {outside} {local.files}/.env\nexec /bin/chmod "$@"\n')
    fake.chmod(0o755)
    mounting = {"web": service("true", scale=0, volumes=["./.env:/env:ro"])}
    local.begin(mounting, {"page": "1"})
    local.run_phases(
        Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, environment={"PATH": f"{programs}:{os.environ['PATH']}"}
    )
    assert mode(outside) == "0640"
    assert mode(local.files / ".env") == "0644"
    assert not (local.files / ".env").is_symlink()


@pytest.mark.parametrize("path", ["data", "data/deep"])
def test_a_directory_that_a_container_has_taken_is_named_with_its_owner(nobodys_home: Machine, path: str) -> None:
    machine, files = nobodys_home, {"a": "1", f"{path}/b": "1"}

    def put_as_nobody(files: Files) -> Result:
        machine.begin(NOTHING, files)
        return machine.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, interpreter=as_nobody())[-1]

    assert not put_as_nobody(files).failed
    os.chown(machine.files / path, 0, 0)
    before = contents(machine.files)
    for changed in ({"a": "2", f"{path}/b": "2"}, {"a": "2"}, {"a": "2", f"{path}/c/d": "2"}):
        result = put_as_nobody(changed)
        assert (result.phase, result.reason) == (Phase.UP, "TASK_FAILED")
        assert result.detail == (
            f"No file was replaced: the directory {machine.files / path} belongs to user root, and daos cannot write "
            "to it. If a container has taken it, give it back on the host (chown), or leave the files in it out of "
            "the package."
        )
        assert contents(machine.files) == before

    assert not put_as_nobody({"a": "2", f"{path}/b": "1"}).failed  # nothing in it is to be replaced
    assert (machine.files / "a").read_text() == "2"


def test_a_changed_mounted_file_takes_effect_for_its_services_only(local: Machine, docker: Docker) -> None:
    services = {
        "web": service("sh", "-c", "cat /page; sleep 1000", volumes=["./page:/page:ro"]),
        "parts": service("sh", "-c", "cat /parts/deep/one; sleep 1000", volumes=["./parts:/parts:ro"]),
        "db": service("sleep", "1000"),
    }
    files = {"page": "old page\n", "parts/deep/one": "old part\n"}
    local.deploy(services, files)
    before = local.ids(docker)

    files |= {"page": "new page\n"}
    play = local.deploy(services, files)
    assert play.succeeded, play.output
    assert play[Phase.UP].changed
    after = local.ids(docker)
    assert {name for name in after if after[name] != before[name]} == {"web"}
    assert docker.run("logs", after["web"]) == "new page\n"
    assert not local.deploy(services, files).changed

    files |= {"parts/deep/one": "new part\n"}
    assert local.deploy(services, files).succeeded
    last = local.ids(docker)
    assert {name for name in last if last[name] != after[name]} == {"parts"}
    assert docker.run("logs", last["parts"]) == "new part\n"


def test_a_changed_mounted_file_takes_effect_after_a_failed_run_too(
    local: Machine, docker: Docker, tmp_path: Path
) -> None:
    web = {"web": service("sh", "-c", "cat /page; sleep 1000", volumes=["./page:/page:ro"])}
    local.deploy(web, {"page": "old\n"})
    before = docker.containers(local.project)
    play = local.deploy(web, {"page": "new\n"}, environment=compose_that(tmp_path, up="echo no; exit 1"))
    assert (play.last.phase, play.last.reason) == (Phase.UP, "TASK_FAILED")
    assert (local.files / "page").read_text() == "new\n"
    assert docker.containers(local.project) == before

    play = local.deploy(web, {"page": "new\n"})
    assert play.succeeded, play.output
    (container,) = docker.containers(local.project)
    assert docker.run("logs", container) == "new\n"


def test_a_file_that_was_taken_back_after_a_failed_run_recreates_nothing(
    local: Machine, docker: Docker, tmp_path: Path
) -> None:
    """The container has still the old file mounted, but it is gone: a new one of the same content took its place."""
    web = {"web": service("sh", "-c", "cat /page; sleep 1000", volumes=["./page:/page:ro"])}
    local.deploy(web, {"page": "old\n"})
    local.deploy(web, {"page": "new\n"}, environment=compose_that(tmp_path, up="echo no; exit 1"))
    play = local.deploy(web, {"page": "old\n"})
    assert play.succeeded, play.output
    (container,) = docker.containers(local.project)
    assert docker.run("exec", container, "cat", "/page") == "old\n"


@pytest.mark.parametrize("place", ["conf/part {}/x", "conf/part {}"])
def test_a_large_project_is_moved_completely(local: Machine, place: str) -> None:
    files = {place.format(number): str(number) for number in range(100)}
    result = put(local, files)
    assert not result.failed, result.detail
    assert {name: (local.files / name).read_text() for name in files} == files


def test_files_of_any_name_are_delivered_changed_and_removed(local: Machine) -> None:
    names = [
        "[id].ts",
        "Load (all).json",
        "naïve ☃.txt",
        "-rf",
        "a:b",
        "$x",
        "$(id)",
        "'q'",
        '"q"',
        "*",
        "~/x",
        "d/ a ",
    ]
    names += ["{}", "= x", "#x", "%s", "|", "é", "e\u0301", "a\u00a0b", "\u202eb", "☃" * 85, "--help/-x"]
    names += ["x: FAILED", "x", "x: FAILED open or read"]
    for files in ({name: name for name in names}, {name: f"{name} 2" for name in names[::2]}):
        for _ in range(2):
            result = put(local, files)
            assert not result.failed, result.detail
            delivered = contents(local.files)
            assert {path: delivered[path].decode() for path in delivered.keys() - {"compose.yaml", ".env"}} == files
        assert not result.changed


def test_a_modified_file_of_any_name_is_put_back_and_named(local: Machine) -> None:
    modified = ["naïve ☃.txt", " a ", "-rf", "y: FAILED", "'q'", "a\u00a0b", "é"]
    package = dict.fromkeys([*modified, "x: FAILED", "x", "y"], "1")
    put(local, package)
    for name in modified:
        (local.files / name).write_text("by hand")
    local.begin(NOTHING, package)
    prepared, *_, last = local.run_phases(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP)
    assert not last.failed, last.detail
    assert {name: (local.files / name).read_text() for name in package} == package
    assert prepared.warnings == [
        f"File {name} was modified on the host, and is replaced by the package's." for name in sorted(modified)
    ]


def test_projects_are_closed_and_their_files_are_open_to_containers(machine: Machine) -> None:
    machine.deploy(WEB, {"conf/site.conf": "x"})
    names = ("..", ".", "conf", "conf/site.conf", "compose.yaml", ".env")
    assert [mode(machine.files / name) for name in names] == ["0700", "0755", "0755", "0644", "0644", "0600"]
    assert (mode(machine.state), mode(machine.tree / "..")) == ("0700", "0700")


def test_no_file_leaves_the_project_when_the_disk_is_full(small_home: Machine) -> None:
    """The tree has room for the files, and the project has not: nothing of it may be replaced."""
    put(small_home, {"a": "old"})
    before = contents(small_home.files)
    filler = small_home.home / "filler"
    filler.write_bytes(b"x" * 350_000)
    result = put(small_home, {"a": "new", "large": "x" * 400_000})
    assert (result.phase, result.reason) == (Phase.UP, "DISK_FULL")
    assert contents(small_home.files) == before
    filler.unlink()
    assert not put(small_home, {"a": "new", "large": "x" * 400_000}).failed
    assert (small_home.files / "a").read_text() == "new"


def test_what_is_moved_is_a_rename(local: Machine) -> None:
    """Whoever reads a file while it is replaced gets the old one or the new one."""
    put(local, {"page": "old"})
    with (local.files / "page").open() as reader:
        put(local, {"page": "new"})
        assert reader.read() == "old"
    assert (local.files / "page").read_text() == "new"
    assert subprocess.run(["find", local.files.parent, "-name", "*.new"], capture_output=True, check=True).stdout == b""
