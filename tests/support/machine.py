"""Plays the project's playbooks on a machine, as the runner does, and its script by hand."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from db.phase import Phase
from runner.host.answers import Answers
from runner.host.arguments import SPEC, Arguments
from runner.host.delivery import Delivery, pack
from runner.host.script import command as command_line
from runner.host.stream import stream
from runner.play.event import MARK, Event, Kind, PhaseResult
from runner.play.listener import Listener
from runner.spec.run import ProjectFile
from tests.support.docker import Docker

PROJECT = Path(__file__).parents[2] / "ansible"
SCRIPT = PROJECT / "files/compose_project"
PLAYBOOKS = {
    "deploy.yml": (Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY),
    "down.yml": (Phase.DOWN,),
    "recover.yml": (Phase.RECOVER,),
}
TIMEOUTS = {"prepare": 30, "build": 30, "pull": 30, "up": 30, "verify": 30, "down": 30, "recover": 20}

NOBODY = 65534

# What the action plugin displays, and what Ansible's own callback prints of a host that it cannot reach.
DISPLAYED = re.compile(rf"^{MARK}(\[.*\])$", re.MULTILINE)
UNREACHABLE = re.compile(r"^fatal: \[[^]]+\]: UNREACHABLE! => (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What the action plugin reported of one phase; what its end has can be read from this."""

    phase: Phase
    lines: Sequence[str]
    end: PhaseResult
    failed: bool
    announced: bool = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.end, name)

    @property
    def words(self) -> str:
        return "\n".join(self.lines)


def results(events: Iterable[Event]) -> list[Result]:
    """The results of the phases that have ended, from the plugin's events."""
    lines: dict[Phase | None, list[str]] = {}
    found = []
    announced = set()
    for event in events:
        if not event.is_warning:
            lines.setdefault(event.phase, []).extend(event.lines)
        if event.kind is Kind.PHASE:
            announced.add(event.phase)
        if event.phase is not None and event.result is not None:
            is_failure = event.kind is Kind.FAILED
            found.append(
                Result(event.phase, lines.pop(event.phase), event.result, is_failure, event.phase in announced)
            )
    return found


@dataclass(frozen=True)
class Play:
    """What a playbook said.  `phases` are the results in their order."""

    output: str
    phases: Sequence[Result]
    unreachable: str | None

    def __getitem__(self, phase: Phase) -> Result:
        return next(result for result in self.phases if result.phase == phase)

    @property
    def last(self) -> Result:
        return self.phases[-1]

    @property
    def changed(self) -> bool:
        return any(result.changed for result in self.phases)

    @property
    def succeeded(self) -> bool:
        return self.unreachable is None and bool(self.phases) and not any(result.failed for result in self.phases)


@dataclass
class Machine:
    """A machine and one project on it.  `variables` say how Ansible gets there, `home` is the login's."""

    project: str
    home: Path
    directory: Path
    variables: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    by_hand: bool = False  # without Ansible: the same commands, in half the time
    deployment: str = field(default_factory=lambda: str(uuid4()))
    run: str = ""
    values: Mapping[str, str] = field(default_factory=dict)  # of the deployment's variables

    @property
    def files(self) -> Path:
        return self.home / ".daos/projects" / self.project

    @property
    def tree(self) -> Path:
        return self.home / ".daos/trees" / self.project

    @property
    def delivery(self) -> Path:
        return self.directory / "delivery"

    @property
    def state(self) -> Path:
        return self.home / ".daos/state" / self.project

    @property
    def marker(self) -> dict[str, str]:
        """The host's note of the last run, empty when there is none."""
        with contextlib.suppress(FileNotFoundError):
            return dict(line.split("=", 1) for line in (self.state / "run").read_text().splitlines() if "=" in line)
        return {}

    def deploy(
        self, services: Mapping[str, Any] | str, files: Mapping[str, str | ProjectFile] | None = None, **variables: Any
    ) -> Play:
        """Play deploy.yml as a new run, with a package of these services and files."""
        self.begin(services, files)
        return self.play("deploy.yml", **variables)

    def down(self, **variables: Any) -> Play:
        self.run = str(uuid4())
        return self.play("down.yml", **variables)

    def recover(self, **variables: Any) -> Result:
        """Ask what became of the present run."""
        return self.play("recover.yml", **variables).last

    def begin(
        self,
        services: Mapping[str, Any] | str,
        files: Mapping[str, str | ProjectFile] | None = None,
        logins: Sequence[str] = (),
    ) -> None:
        """A new run of a package; nothing is played yet.  `logins`: see `runner.spec.run.logins`."""
        self.run = str(uuid4())
        compose = services if isinstance(services, str) else json.dumps({"services": services})
        variables = "".join(f"{name}='{value}'\n" for name, value in self.values.items())
        package = {"compose.yaml": compose, ".env": variables, **(files or {})}
        self.delivery.write_bytes(
            pack(
                {
                    path: content
                    if isinstance(content, ProjectFile)
                    else ProjectFile(content.encode(), mode=0o600 if path == ".env" else 0o644)
                    for path, content in package.items()
                },
                {name: value.encode() for name, value in self.values.items()},
                logins,
            )
        )

    def play(self, playbook: str, **variables: Any) -> Play:
        if not self.by_hand:
            return self._play(playbook, **variables)
        phases = self.run_phases(*PLAYBOOKS[playbook], **variables)
        return Play("\n".join(map(str, phases)), phases, None)

    def _play(self, playbook: str, **variables: Any) -> Play:
        with self.playing(playbook, **variables) as ansible:
            output, errors = ansible.communicate(timeout=120)
        phases = results(
            Event.read(event) for displayed in DISPLAYED.findall(output) for event in json.loads(displayed)
        )
        unreachable = [json.loads(result)["msg"] for result in UNREACHABLE.findall(output)]
        assert phases or unreachable, output + errors
        return Play(output + errors, phases, unreachable[0] if unreachable else None)

    @contextlib.contextmanager
    def playing(self, playbook: str, **variables: Any) -> Iterator[subprocess.Popen[str]]:
        """The ansible-playbook that plays it; killed at the end if it is still there."""
        of_host = unsafe({**self.variables, "daos": self.run_variable(**variables)})
        inventory = {"all": {"hosts": {self.deployment: of_host}}}
        path = self.directory / "inventory.json"
        path.write_text(json.dumps(inventory))
        ansible = subprocess.Popen(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", path, PROJECT / playbook],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
                "ANSIBLE_LOCAL_TEMP": str(self.directory / "ansible"),
                "LANG": "C.UTF-8",
                **self.environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield ansible
        finally:
            ansible.kill()
            ansible.communicate()

    def phase(self, name: Phase, **how: Any) -> Result:
        """Run one phase here without Ansible."""
        return self.run_phases(name, **how)[0]

    def run_phases(
        self,
        *names: Phase,
        interpreter: Sequence[str] = ("/bin/sh",),
        environment: Mapping[str, str] | None = None,
        events: list[Event] | None = None,
        **variables: Any,
    ) -> list[Result]:
        """Run phases in one command here without Ansible, up to the first that fails.

        The events are appended to `events` as they come.
        """
        delivery = Delivery.read(self.delivery.read_bytes()) if Phase.PREPARE in names else None
        arguments = replace(self.arguments(**variables), phases=names)
        events = [] if events is None else events
        answers = Answers(self.project, delivery, arguments.limits)
        listener = Listener(names, answers, events.extend)
        own = {"HOME": str(self.home), **self.environment, **(environment or {})}
        command = ["env", *(f"{name}={value}" for name, value in own.items()), *interpreter, "-c"]
        text = command_line(load_plugin().PARTS, arguments, delivery)
        rc, stderr = stream([*command, text], b"\n" + (delivery.stdin if delivery else b""), listener)
        listener.conclude(rc, stderr.decode(errors="replace"))
        return results(events)

    @contextlib.contextmanager
    def running(self, *names: Phase, **how: Any) -> Iterator[Future[list[Result]]]:
        """Run phases as `run_phases` does while the test acts; what is left of them is killed at the end."""
        with ThreadPoolExecutor(max_workers=1) as executor:
            try:
                yield executor.submit(self.run_phases, *names, **how)
            finally:
                for pid in self.processes():
                    with contextlib.suppress(ProcessLookupError):  # they end with each other
                        os.kill(pid, signal.SIGKILL)

    def command(self, *phases: Phase, **variables: Any) -> str:
        delivery = Delivery.read(self.delivery.read_bytes()) if Phase.PREPARE in phases else None
        arguments = replace(self.arguments(**variables), phases=phases)
        return command_line(load_plugin().PARTS, arguments, delivery)

    def arguments(self, **more: Any) -> Arguments:
        """The arguments of the server's run, without Ansible."""
        validated = ArgumentSpecValidator(SPEC).validate({"action": "up", "run": self.run_variable(**more)})
        assert not validated.error_messages
        return Arguments.read(validated.validated_parameters)

    def run_variable(self, **more: Any) -> dict[str, Any]:
        """The variable `daos` that the server gives to a host; `timeouts` are put over the usual ones."""
        timeouts = {**TIMEOUTS, **more.pop("timeouts", {})}
        return {
            "id": self.run,
            "deployment": self.deployment,
            "installation": "installation-of-the-tests",
            "project": self.project,
            "delivery": str(self.delivery),
            "timeouts": timeouts,
            "settle": 0.3,
            "display": "events",
            **more,
        }

    def ids(self, docker: Docker) -> dict[str, str]:
        """The container of each service."""
        found = docker.containers(self.project)
        label = '{{index .Config.Labels "com.docker.compose.service"}}'
        names = docker.run("inspect", "--format", label, *found).split() if found else []
        return dict(zip(names, found, strict=True))

    def processes(self) -> dict[int, str]:
        """What works on the project on this machine: pid and command line of each process that names it."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if self.project in command and int(process.name) != os.getpid():
                    found[int(process.name)] = command
        return found


def service(*command: str, **more: Any) -> dict[str, Any]:
    """A service that needs no network and stops at once."""
    return {"image": "demo:1", "command": list(command), "init": True, "network_mode": "none", **more}


def unsafe(value: Any) -> Any:
    """The value with every string marked, as the runner marks them."""
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, dict):
        return {key: unsafe(item) for key, item in value.items()}
    return [unsafe(item) for item in value] if isinstance(value, list) else value


def as_nobody(group: int | None = None) -> tuple[str, ...]:
    """The shell of user nobody, in the group of Docker's socket or another one."""
    gid = Path("/var/run/docker.sock").stat().st_gid if group is None else group
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={gid}", "--clear-groups", "/bin/sh")


def compose_that(directory: Path, up: str = ":", after_up: str = ":", version: str = "") -> dict[str, str]:
    """The environment with a plugin that is compose, but runs commands before and after Up, and has this version."""
    plugin = directory / "docker config/cli-plugins/docker-compose"
    plugin.parent.mkdir(parents=True, exist_ok=True)
    asked = f"case $* in *'version --short') echo {version}; exit ;; esac" if version else ""
    plugin.write_text(
        f"""#!/bin/sh
{asked}
case " $* " in *' up '*) {up} ;; esac
{_compose_plugin()} "$@" || exit
case " $* " in *' up '*) {after_up} >/dev/null ;; esac
"""
    )
    plugin.chmod(0o755)
    return {"DOCKER_CONFIG": str(plugin.parents[1])}


@cache
def _compose_plugin() -> Path:
    """Compose's own program, where Docker has found it."""
    listed = subprocess.run(
        ["docker", "info", "--format", '{{range .ClientInfo.Plugins}}{{.Name}} {{.Path}}{{"\\n"}}{{end}}'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return Path(next(line.split(maxsplit=1)[1] for line in listed.splitlines() if line.startswith("compose ")))


def compose_by_docker(directory: Path) -> dict[str, str]:
    """The environment in which only `docker` knows where compose is; its configuration is put into the directory."""
    (directory / "config.json").write_text('{"cliPluginsExtraDirs": []}')
    return {"DOCKER_CONFIG": str(directory)}


def contents(directory: Path) -> dict[str, bytes]:
    """The files below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    """Return as soon as the condition holds.  Raises: TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} seconds")
        time.sleep(0.02)


def kill_with_children(pid: int, keep: str = "") -> None:
    """SIGKILL the process and its descendants, but not those whose command line contains `keep`, nor theirs."""
    children = Path("/proc", str(pid), "task", str(pid), "children").read_text().split()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in map(int, children):
        command = Path("/proc", str(child), "cmdline").read_text()
        if not keep or keep not in command:
            kill_with_children(child, keep)


@cache
def load_plugin() -> ModuleType:
    """The action plugin as Ansible loads it: by its path, for `ansible/` is no package."""
    spec = importlib.util.spec_from_file_location("daos_action_plugin", PROJECT / "action_plugins/compose_project.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
