"""What the script on a host is answered, by what it has reported."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from db.containers import Container, ContainerState
from db.phase import Phase
from runner.host.answers import MAX_CONTAINERS, Answers, HostAnswer, Limits
from runner.host.delivery import Delivery, pack
from runner.host.model import Model
from runner.host.notes import Notes
from runner.spec.run import ProjectFile

ROOT = Path(__file__).parents[3]
DIRECTORY, TREE = "/home/deploy/.daos/projects/shop", "/home/deploy/.daos/trees/shop"
WEB = {"image": "web:1"}
BASE = {"compose.yaml": ProjectFile(b"services: {}"), ".env": ProjectFile(b"", mode=0o600)}


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def container(service: str = "web", **changes: Any) -> str:
    """What the script prints of a container."""
    usual = {
        "id": f"{service}-id",
        "name": f"/shop-{service}-1",
        "hash": "hash",
        "service": service,
        "image": f"{service}:1",
        "imageId": f"sha256:{service}",
        "state": "running",
        "restarts": 0,
        "startedAt": "2026-01-01T00:00:00.123456789Z",
        "ports": ["0.0.0.0:80->80/tcp", ""],
    }
    return json.dumps(usual | changes)


def answers(
    files: Mapping[str, ProjectFile] | None = None,
    values: Mapping[str, bytes] | None = None,
    clock: Clock | None = None,
    settle: float = 0.0,
) -> Answers:
    delivery = Delivery.read(pack({**BASE, **(files or {})}, values))
    return Answers("shop", delivery, Limits(settle=settle), clock or Clock())


def report(given: Answers, services: Mapping[str, Any] | None = None, *, changed: bool = True, **model: Any) -> Answers:
    """Have the host report what Prepare does, up to the question for the plan."""
    given.begin(Phase.PREPARE)
    resolved = {"services": {"web": WEB} if services is None else services, **model}
    for key, value in (
        ("docker", "20.10.24"),
        ("compose", "2.26.1"),
        ("tree", TREE),
        ("directory", DIRECTORY),
        *((("changed", "*"),) if changed else ()),
        ("baseline", ""),
        ("model", json.dumps(resolved)),
    ):
        given.set_fact(key, value)
    return given


def show_images(given: Answers, **there: str) -> Answers:
    """Have the host inspect the images that it is asked about; "web" is web:1."""
    names = asked(given)
    given.set_fact("names", " ".join(names))
    for name in names:
        if name.split(":")[0] in there:
            given.set_fact("image", there[name.split(":")[0]])
        else:
            given.set_fact("absent", f"Error: No such image: {name}")
    return given


def asked(given: Answers) -> list[str]:
    """The images that the host is asked to inspect before it gets its plan."""
    return fields(given.answer("plan"))["inspect"].split()


def fields(reply: bytes) -> dict[str, str]:
    """The lines of an answer; those of logs together."""
    head = reply.split(b"\n\n")[0].decode()
    found: dict[str, str] = {}
    for line in filter(None, head.splitlines()):
        key, _, value = line.partition(" ")
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def packed(reply: bytes) -> dict[str, str]:
    """The files that follow an answer."""
    body = reply.split(b"\n\n", 1)[1]
    assert len(body) == int(fields(reply)["size"])
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return {member.name: file.read().decode() for member in tar if (file := tar.extractfile(member))}


def texts(given: Answers) -> list[str]:
    return [line.text for line in given.take_lines()]


def planned(given: Answers, services: Mapping[str, Any] | None = None, **there: str) -> Answers:
    """Have the host get as far as its plan."""
    show_images(report(given, services), **(there or {"web": "sha256:web"})).answer("plan")
    given.take_lines()
    return given


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, runner.host.answers; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    first = {name.split(".")[0] for name in imported.stdout.split()}
    assert not first & {"sqlalchemy", "pydantic", "yaml", "strawberry", "ansible"}


# The archive and the plan


def test_the_archive_is_the_delivery() -> None:
    reply = answers({"conf/site": ProjectFile(b"\n\nx")}).answer("archive")
    assert set(packed(reply)) == {"./.env", "./compose.yaml", "./conf/site"}


def test_the_host_is_asked_for_images_first_and_once() -> None:
    given = report(answers(), {"web": WEB, "db": {"image": "db:1"}, "app": {"build": {"context": TREE}}})
    assert fields(given.answer("plan")) == {"inspect": "db:1 shop-app web:1"}
    given.set_fact("names", "db:1 shop-app web:1")
    for name in ("db:1", "shop-app", "web:1"):
        given.set_fact("absent", f"Error: No such image: {name}")
    assert fields(given.answer("plan"))["pull"] == "db web"


@pytest.mark.parametrize("image", ["a b", "*", "--format=x", "-q", "a;b", "$(id)", ""])
def test_the_host_is_asked_only_for_what_can_be_an_image(image: str) -> None:
    given = report(answers(), {"web": WEB, "odd": {"image": image}})
    assert set(asked(given)) <= {"web:1", "shop-odd"}


def test_the_plan_names_what_is_to_be_done() -> None:
    given = answers({"Dockerfile": ProjectFile(b"FROM scratch")})
    services = {"web": WEB, "app": {"build": {"context": TREE, "dockerfile": "Dockerfile"}}, "db": {"image": "db:1"}}
    reply = show_images(report(given, services), web="sha256:web").answer("plan")
    size = fields(reply).pop("size")
    assert fields(reply) == {
        "build": "app",
        "pull": "db",
        "rest": "yes",
        "services": "3",
        "mode": "600",
        "moves": "yes",
        "size": size,
    }
    files = packed(reply)
    assert files["./move"] == "./.env\n./Dockerfile\n./compose.yaml\n"
    assert files["./delete"] == ""
    assert json.loads(files["./model.json"])["services"]["db"] == {"image": "db:1", "pull_policy": "never"}
    assert Notes.read(files["./notes"].removeprefix("= notes ")).contents == {"app": {}, "db": {}, "web": {}}


def after_a_run(given: Answers) -> Answers:
    """Have the host report what a successful run of the same package has left."""
    notes = packed(show_images(report(given), web="sha256:web").answer("plan"))["./notes"]
    again = report(answers(), changed=False)
    again.set_fact("notes", notes.removeprefix("= notes ").rstrip())
    again.set_fact("container", container())
    return show_images(again, web="sha256:web")


def test_an_unchanged_project_moves_nothing_and_notes_nothing() -> None:
    assert fields(after_a_run(answers()).answer("plan")) == {"rest": "yes", "services": "1", "mode": "600"}


def test_files_that_a_run_was_cut_off_before_are_moved_and_deleted() -> None:
    given = after_a_run(answers())
    given.set_fact("changed", "./compose.yaml")
    given.set_fact("had", "./gone")
    files = packed(given.answer("plan"))
    assert (files["./move"], files["./delete"]) == ("./compose.yaml\n", "./gone\n")


def test_all_services_are_recreated_at_once_where_all_are_to_be() -> None:
    given = report(
        answers(values={"P": b"1"}), {"web": {**WEB, "secrets": [{"source": "p"}]}}, secrets={"p": {"environment": "P"}}
    )
    given.set_fact("notes", Notes(contents={"web": {"secret p": "older"}}).write())
    given.set_fact("baseline", "")
    given.set_fact("container", container())
    reply = fields(show_images(given, web="sha256:web").answer("plan"))
    assert reply["recreate"] == "web"
    assert "rest" not in reply


def test_a_project_without_services_has_a_plan() -> None:
    given = report(answers(), {})
    assert fields(given.answer("plan"))["services"] == "0"


def test_a_path_among_other_projects_fails_the_run() -> None:
    volumes = [{"type": "bind", "source": f"{TREE}/../other", "target": "/x"}]
    reply = fields(show_images(report(answers(), {"web": {**WEB, "volumes": volumes}})).answer("plan"))
    assert reply["fail"] == "COMPOSE_INVALID"
    assert reply["detail"].startswith("Service 'web' mounts ../other, which is not in the project's directory")


def test_the_versions_are_in_the_log_once() -> None:
    given = show_images(report(answers()), web="sha256:web")
    given.answer("plan")
    assert texts(given) == ["Docker 20.10.24, Compose 2.26.1."]


@pytest.mark.parametrize(
    ("version", "is_refused"),
    [("2.26.0", False), ("v2.26.1-ds1", False), ("5.6.1", False), ("dev", False), ("2.25.9", True), ("v1.29.2", True)],
)
def test_a_compose_that_is_too_old_is_refused(version: str, is_refused: bool) -> None:
    given = show_images(report(answers()), web="sha256:web")
    given.set_fact("compose", version)
    reply = fields(given.answer("plan"))
    assert (reply.get("fail") == "DOCKER_UNAVAILABLE") is is_refused
    assert (f"Docker Compose {version} is too old: daos needs 2.26 or newer." == reply.get("detail")) is is_refused


def test_an_old_compose_is_the_reason_when_it_refuses_the_files() -> None:
    given = report(answers())
    given.set_fact("compose", "2.19.0")
    given.set_fact("fallback", "COMPOSE_INVALID include: unknown key")
    assert fields(given.answer("why"))["reason"] == "DOCKER_UNAVAILABLE"
    assert "2.19.0 is too old" in fields(given.answer("sentence"))["detail"]


@pytest.mark.parametrize(
    ("profiles", "unknown"),
    [(b"", []), (b"fast", []), (b"fast,slow", ["slow"]), (b" slow , ,fast", ["slow"]), (b"*", [])],
)
def test_profiles_that_no_service_has_are_a_warning(profiles: bytes, unknown: list[str]) -> None:
    given = planned(answers(values={"COMPOSE_PROFILES": profiles}), {"web": {**WEB, "profiles": ["fast"]}})
    assert given.warnings == [f"No service has the profile '{name}' that COMPOSE_PROFILES names." for name in unknown]


def test_a_file_that_was_modified_on_the_host_is_a_warning() -> None:
    given = after_a_run(answers())
    given.set_fact("changed", "./compose.yaml")
    given.set_fact("modified", "./compose.yaml")
    given.set_fact("modified", "./gone")
    given.set_fact("had", "./gone")
    given.answer("plan")
    assert given.warnings == [
        "File compose.yaml was modified on the host, and is replaced by the package's.",
        "File gone was modified on the host, and is deleted, as the package no longer has it.",
    ]


def test_files_to_be_created_only_when_missing() -> None:
    given = after_a_run(answers({"seed": ProjectFile(b"", only_if_missing=True)}))
    assert "moves" not in fields(given.answer("plan"))
    given = report(answers({"seed": ProjectFile(b"", only_if_missing=True)}), changed=False)
    given.set_fact("missing", "seed")
    assert packed(show_images(given, web="sha256:web").answer("plan"))["./move"] == "./seed\n"


# Images, in Docker's words


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("new:1", "Error: No such image: new:1"),
        ("new:1", "Error response from daemon: No such image: new:1"),
        ("new:1", "Error response from daemon: no such image: new:1: No such image: new:1"),
        ("new", "Error response from daemon: no such image: new: No such image: new:latest"),
        ("new", "Error response from daemon: No such image: new:latest"),
        ("docker.io/library/new:1", "Error response from daemon: No such image: new:1"),
        ("docker.io/me/new", "Error response from daemon: No such image: me/new:latest"),
        ("index.docker.io/library/new:2", "Error response from daemon: No such image: new:2"),
        ("localhost:5000/new", "Error response from daemon: No such image: localhost:5000/new:latest"),
        ("new@sha256:0", "Error response from daemon: No such image: new@sha256:0"),
        ("NEW", "Error response from daemon: no such image: NEW: invalid reference format: must be lowercase"),
    ],
)
def test_an_image_that_is_missing_does_not_shift_the_others(image: str, words: str) -> None:
    services = {"a": {"image": "Aa"}, "new": {"image": image}, "z": {"image": "zz:1", "pull_policy": "never"}}
    given = report(answers(), services)
    given.set_fact("names", " ".join(asked(given)))
    for line in ("sha256:a", "sha256:z"):
        given.set_fact("image", line)
    given.set_fact("absent", words)
    assert fields(given.answer("plan"))["pull"] == "new"


@pytest.mark.parametrize("ids", [[], ["sha256:1", "sha256:2"]])
def test_ids_that_fit_no_image_are_never_guessed(ids: list[str]) -> None:
    given = report(answers())
    given.set_fact("names", "web:1")
    for line in ids:
        given.set_fact("image", line)
    with pytest.raises(HostAnswer):
        given.answer("plan")


def test_what_was_built_is_noted_with_its_image() -> None:
    build = {"context": TREE, "dockerfile": "Dockerfile"}
    given = answers({"Dockerfile": ProjectFile(b"FROM scratch")})
    planned(given, {"app": {"image": "app:1", "build": build}, "web": WEB})
    given.begin(Phase.BUILD)
    given.set_fact("names", "app:1 web:1")
    given.set_fact("image", "sha256:new")
    given.set_fact("image", "sha256:web")
    noted = json.loads(packed(given.answer("built"))["./built"].removeprefix("= built "))
    assert list(noted) == ["app"]
    assert noted["app"][1] == "sha256:new"
    again = report(answers({"Dockerfile": ProjectFile(b"FROM scratch")}), {"app": {"image": "app:1", "build": build}})
    again.set_fact("built", json.dumps(noted))
    assert "build" not in fields(show_images(again, app="sha256:new").answer("plan"))


# Why something failed


def failing(phase: Phase, *words: str, fallback: str = "TASK_FAILED the last line", late: bool = False) -> Answers:
    """Have a phase fail after a plan."""
    given = planned(answers())
    given.begin(phase)
    for line in words:
        given.receive_output(line)
    given.set_fact("late", "yes" if late else "no")
    given.set_fact("fallback", fallback)
    return given


def told(given: Answers) -> tuple[str, str]:
    """The reason and the sentence."""
    reason = fields(given.answer("why")).get("reason", "")
    return reason, fields(given.answer("sentence")).get("detail", "")


def test_what_nobody_knows_is_the_last_line() -> None:
    assert told(failing(Phase.UP, "what is this")) == ("TASK_FAILED", "the last line")


def test_a_port_in_use() -> None:
    words = (
        "Error response from daemon: driver failed programming: Bind for 0.0.0.0:80 failed: port is already allocated"
    )
    reason, sentence = told(failing(Phase.UP, words))
    assert (reason, sentence) == ("PORT_IN_USE", f"Port 80 is in use by another container on the host; {STOP}")


FULL = "write /var/lib/x: no space left on device"
STOP = "stop that container, or publish another port."


@pytest.mark.parametrize(
    ("disks", "free"),
    [
        (["2000 /var", "1000 /home"], ", with 1.02 MB free"),
        (["1000 /var"], ", with 1.02 MB free"),
        (["", "- /var", "9" * 5000], ""),
        ([], ""),
    ],
)
def test_a_full_disk_asks_for_the_disk_once(disks: list[str], free: str) -> None:
    given = failing(Phase.UP, FULL)
    assert fields(given.answer("why")) == {"disk": "yes"}
    for disk in disks:
        given.set_fact("disk", disk)
    assert told(given) == (
        "DISK_FULL",
        f"The disk of the host is full{free}: {FULL}. Free space on it, and run the deployment again.",
    )


def test_a_failed_build_and_a_failed_pull_have_their_reasons() -> None:
    assert told(failing(Phase.BUILD, "failed to solve: no"))[0] == "IMAGE_BUILD_FAILED"
    given = answers()
    planned(given, {"web": WEB, "db": {"image": "db:1"}}, web="sha256:web")
    given.begin(Phase.PULL)
    given.receive_output("Error response from daemon: manifest for db:1 not found: manifest unknown")
    reason, sentence = told(given)
    assert reason == "IMAGE_PULL_FAILED"
    assert sentence.startswith("Image db:1 of service 'db' could not be pulled:")


def test_an_image_that_must_not_be_pulled_is_named() -> None:
    given = planned(answers(), {"web": {**WEB, "pull_policy": "never"}}, none="")
    given.begin(Phase.PULL)
    given.set_fact("fallback", "IMAGE_PULL_FAILED Its pull_policy forbids to pull it.")
    assert told(given) == (
        "IMAGE_PULL_FAILED",
        "Image web:1 of service 'web' is not on the host, and its pull_policy 'never' forbids to pull it.",
    )


@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.BUILD, Phase.PULL])
def test_what_is_late_has_no_reason_but_the_time(phase: Phase) -> None:
    assert told(failing(phase, "failed to solve: no", late=True))[0] == ""


def test_containers_that_are_not_well_are_why_up_failed() -> None:
    given = failing(Phase.UP, "dependency failed to start: container shop-web-1 exited (3)")
    given.set_fact("containers", "")
    given.set_fact("container", container(state="exited", exitCode=3))
    assert fields(given.answer("why")) == {"verdict": "failed", "reason": "UNHEALTHY", "log": "web-id web"}
    given.receive_output("web | no money")
    given.receive_output("web |  ")
    assert fields(given.answer("sentence"))["detail"] == "Service 'web' exited with code 3: no money."


def test_up_that_is_late_names_what_it_was_waiting_for() -> None:
    given = failing(Phase.UP, late=True)
    given.set_fact("containers", "")
    given.set_fact("container", container(health={"status": "starting"}))
    assert fields(given.answer("why"))["reason"] == "UNHEALTHY"
    assert "web (starting)" in fields(given.answer("sentence"))["detail"]


# Whether the containers are well


def verifying(clock: Clock | None = None, **changes: Any) -> Answers:
    given = planned(answers(clock=clock))
    given.begin(Phase.VERIFY)
    given.set_fact("containers", "")
    given.set_fact("container", container(**changes))
    return given


def test_containers_that_are_well() -> None:
    assert fields(verifying().answer("verdict")) == {"verdict": "ok"}


def test_what_is_awaited_is_asked_for_again_and_logged() -> None:
    clock = Clock()
    given = verifying(clock, health={"status": "starting"})
    assert fields(given.answer("verdict")) == {"verdict": "wait", "wait": "0.20"}
    clock.now += 2
    assert fields(given.answer("verdict"))["verdict"] == "wait"
    assert texts(given) == ["Waiting for web (starting)"]


def test_a_container_is_steady_since_up_has_ended() -> None:
    clock = Clock()
    given = planned(answers(clock=clock, settle=2.0))
    given.begin(Phase.UP)
    given.set_fact("containers", "")
    clock.now += 1.8
    given.set_fact("containers", "")
    given.set_fact("container", container(id="new"))
    given.begin(Phase.VERIFY)
    assert fields(given.answer("verdict")) == {"verdict": "wait", "wait": "0.19"}
    clock.now += 0.2
    assert fields(given.answer("verdict")) == {"verdict": "ok"}


def test_each_container_of_a_service_has_its_own_last_words() -> None:
    given = verifying(id="w1", name="/shop-web-1", state="exited", exitCode=1)
    given.set_fact("container", container(id="w2", name="/shop-web-2", state="exited", exitCode=2))
    assert fields(given.answer("verdict")) == {
        "verdict": "failed",
        "reason": "UNHEALTHY",
        "log": "w1 shop-web-1, w2 shop-web-2",
    }
    given.receive_output("shop-web-1 | one")
    given.receive_output("shop-web-2 | two")
    assert texts(given) == ["shop-web-1 | one", "shop-web-2 | two"]
    assert fields(given.answer("sentence"))["detail"] == (
        "Service 'web' (container shop-web-1) exited with code 1: one. "
        "Service 'web' (container shop-web-2) exited with code 2: two."
    )


def test_a_service_without_a_container_is_missed_unless_it_has_none() -> None:
    given = planned(answers(), {"web": WEB, "none": {**WEB, "scale": 0}, "llm": {"provider": {"type": "model"}}})
    given.begin(Phase.VERIFY)
    given.set_fact("containers", "")
    assert fields(given.answer("verdict"))["verdict"] == "failed"
    assert fields(given.answer("sentence"))["detail"] == "Service 'web' has no container."


def test_what_is_undecided_after_a_crash_is_not_called_unhealthy() -> None:
    given = Answers("shop", None, Limits(verify=5.0, run=5.0), Clock())
    given.begin(Phase.RECOVER)
    given.set_fact("model", json.dumps({"services": {"web": WEB}}))
    given.set_fact("since", "600")
    given.set_fact("containers", "")
    given.set_fact("container", container(health={"status": "starting"}))
    assert fields(given.answer("verdict"))["reason"] == "TIMEOUT"


# Recovery


@pytest.mark.parametrize(
    ("digest", "image", "reply"),
    [("hash", "sha256:web", {"matching": "yes"}), ("other", "sha256:web", {}), ("hash", "sha256:newer", {})],
)
def test_recovery_compares_what_is_there_with_what_was_meant(digest: str, image: str, reply: dict[str, str]) -> None:
    given = Answers("shop")
    given.begin(Phase.RECOVER)
    given.set_fact("model", json.dumps({"services": {"web": WEB}}))
    given.set_fact("notes", Notes().write())
    given.set_fact("hash", f"web {digest}")
    given.set_fact("containers", "")
    given.set_fact("container", container())
    assert fields(given.answer("recovery")) == {"inspect": "web:1"}
    given.set_fact("names", "web:1")
    given.set_fact("image", image)
    assert fields(given.answer("recovery")) == reply


# What the host says


def test_a_pull_has_one_line_a_second_and_a_fraction() -> None:
    clock = Clock()
    given = planned(answers(clock=clock))
    given.begin(Phase.PULL)
    given.receive_output(" web Pulling ")
    for done in range(1, 10):
        given.receive_output(f" a260d03d79ca Downloading [=>   ]  {done}MB/10MB")
    assert texts(given) == [" web Pulling "]
    clock.now += 1.1
    given.receive_output(" a260d03d79ca Downloading [=>   ]  9.5MB/10MB")
    [line] = texts(given)
    assert "0 of 1 layers" in line
    assert given.fraction is not None
    assert 0 < given.fraction < 1
    given.begin(Phase.UP)
    assert given.fraction is None


def test_a_warning_of_compose_is_a_warning_once() -> None:
    given = planned(answers())
    for _ in range(2):
        given.receive_output('time="2026-01-01T00:00:00Z" level=warning msg="The \\"X\\" variable is not set."')
    [line] = given.take_lines()
    assert (line.text, line.is_warning) == ('The "X" variable is not set.', True)
    assert given.warnings == ['The "X" variable is not set.']


def test_the_containers_are_those_that_were_seen_last() -> None:
    given = report(answers())
    assert given.containers == []
    given.set_fact("container", container())
    [seen] = given.containers
    assert seen == Container(
        name="shop-web-1",
        service="web",
        image="web:1",
        state=ContainerState.RUNNING,
        started_at=datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC),
        ports=("0.0.0.0:80->80/tcp",),
    )
    assert not given.has_changed
    given.set_fact("containers", "")
    assert (given.containers, given.has_changed) == ([], True)
    given.set_fact("container", container())
    assert not given.has_changed
    given.set_fact("containers", "")
    given.set_fact("container", container(startedAt="2026-01-01T00:01:00Z", state="exited", exitCode=3))
    assert given.has_changed
    assert given.containers[0].exit_code == 3


# A host that is not to be believed


@pytest.mark.parametrize(
    "value",
    ["", "null", "[]", "{", "{}", '{"id": 5}', '{"id": "x", "ports": 5}', '{"id": "x", "ports": [5]}', "[" * 100_000],
)
def test_a_container_that_cannot_be_understood(value: str) -> None:
    given = report(answers())
    with pytest.raises(HostAnswer):
        given.set_fact("container", value)


def test_more_containers_than_a_project_can_have() -> None:
    given = report(answers())
    for _ in range(MAX_CONTAINERS):
        given.set_fact("container", container())
    with pytest.raises(HostAnswer, match="more than 1000 containers"):
        given.set_fact("container", container())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", ""),
        ("model", "null"),
        ("model", "[" * 100_000),
        ("model", '{"services": ["web"]}'),
        ("model", '{"services": {"web": "x"}}'),
        ("model", '{"services": {"web": {"image": "web:1", "volumes": [5]}}}'),
        ("model", '{"services": {"web": {"image": "web:1", "scale": "x"}}}'),
        ("notes", "{"),
        ("notes", '{"files": {"compose.yaml": []}}'),
        ("notes", '{"before": {"x": 1}}'),
        ("notes", "[" * 100_000),
        ("built", "[]"),
        ("built", '{"web": ["key"]}'),
        ("built", '{"web": 5}'),
        ("model", '{"services": {"web": {"image": "web:1", "scale": 1e999}}}'),
        ("model", '{"services": {"web": {"image": "web:1", "security_opt": 5}}}'),
        ("compose", "9" * 5000 + ".1"),
    ],
)
def test_facts_that_cannot_be_understood(key: str, value: str) -> None:
    given = show_images(report(answers()), web="sha256:web")
    given.set_fact(key, value)
    with pytest.raises(HostAnswer):
        given.answer("plan")


@pytest.mark.parametrize("question", ["", "secret", "__init__", "archive", "plan", "built", "recovery", "verdict"])
def test_questions_that_make_no_sense(question: str) -> None:
    with pytest.raises(HostAnswer):
        Answers("shop").answer(question)


def test_what_was_built_is_not_asked_before_the_plan() -> None:
    given = report(answers())
    with pytest.raises(HostAnswer, match="nothing is planned"):
        given.answer("built")


def test_an_answer_has_no_line_ends_of_its_own() -> None:
    given = failing(Phase.PREPARE, fallback="TASK_FAILED one\nsize 5\r\n\nverdict ok")
    given.answer("why")
    assert given.answer("sentence") == b"detail one size 5 verdict ok\n\n"


def test_a_model_is_what_compose_resolves_for_this_project() -> None:
    assert Model.read('{"services": {"app": {}}}', "shop").images() == ["shop-app"]
