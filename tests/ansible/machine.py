"""Plays the project's playbooks on a machine, as the runner does, and its script by hand."""

import contextlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

PROJECT = Path(__file__).parents[2] / "ansible"
SCRIPT = PROJECT / "roles/compose_project/files/compose_project.sh"
PLAYBOOKS = {"deploy.yml": ("prepare", "pull", "up", "verify"), "down.yml": ("down",), "settle.yml": ("settle",)}
TIMEOUTS = {"prepare": 30, "pull": 30, "up": 30, "verify": 30, "down": 30, "settle": 20}

# With -v, Ansible's own callback prints each task's result on one line.
RESULT = re.compile(r"^(ok|changed|fatal): \[[^]]+\](?:: \w+!)? => (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What the action plugin made of one phase."""

    told: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.told["daos"][name]

    @property
    def changed(self) -> bool:
        return bool(self.told["changed"])

    @property
    def failed(self) -> bool:
        return bool(self.told["failed"])

    @property
    def words(self) -> str:
        return "\n".join(self.told["daos"]["lines"])


@dataclass(frozen=True)
class Play:
    """What a playbook said.  `phases` are the results in their order."""

    output: str
    phases: Sequence[Result]
    unreachable: str | None

    def __getitem__(self, phase: str) -> Result:
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

    @property
    def files(self) -> Path:
        return self.home / ".daos/projects" / self.project

    @property
    def state(self) -> Path:
        return self.home / ".daos/state" / self.project

    @property
    def marker(self) -> dict[str, str]:
        """The host's note of the last run, empty when there is none."""
        with contextlib.suppress(FileNotFoundError):
            return dict(line.split("=", 1) for line in (self.state / "run").read_text().splitlines())
        return {}

    def deploy(
        self, services: Mapping[str, Any] | str, files: Mapping[str, str] | None = None, **variables: Any
    ) -> Play:
        """Play deploy.yml as a new run, with a package of these services and files."""
        self.begin(services, files)
        return self.play("deploy.yml", **variables)

    def down(self, **variables: Any) -> Play:
        self.run = str(uuid4())
        return self.play("down.yml", **variables)

    def settle(self, **variables: Any) -> Result:
        """Ask what became of the present run."""
        return self.play("settle.yml", **variables).last

    def begin(self, services: Mapping[str, Any] | str, files: Mapping[str, str] | None = None) -> None:
        """A new run of a package; nothing is played yet."""
        self.run = str(uuid4())
        compose = services if isinstance(services, str) else json.dumps({"services": services})
        write_archive(self.directory / "files.tar", {"compose.yaml": compose, ".env": "", **(files or {})})

    def play(self, playbook: str, **variables: Any) -> Play:
        return self._play_by_hand(playbook, **variables) if self.by_hand else self._play(playbook, **variables)

    def _play(self, playbook: str, **variables: Any) -> Play:
        with self.playing(playbook, **variables) as ansible:
            output, errors = ansible.communicate(timeout=120)
        results = [{"failed": word == "fatal", **json.loads(result)} for word, result in RESULT.findall(output)]
        unreachable = [result["msg"] for result in results if result.get("unreachable")]
        phases = [Result(result) for result in results if "daos" in result]
        assert phases or unreachable, output + errors
        return Play(output + errors, phases, unreachable[0] if unreachable else None)

    def _play_by_hand(self, playbook: str, **variables: Any) -> Play:
        phases = []
        for phase in PLAYBOOKS[playbook]:
            phases.append(self.phase(phase, **variables))
            if phases[-1].failed:
                break
        return Play("\n".join(map(str, phases)), phases, None)

    @contextlib.contextmanager
    def playing(self, playbook: str, **variables: Any) -> Iterator[subprocess.Popen[str]]:
        """The ansible-playbook that plays it; killed at the end if it is still there."""
        inventory = {"all": {"hosts": {self.deployment: unsafe(self.arguments(**variables))}}}
        path = self.directory / "inventory.json"
        path.write_text(json.dumps(inventory))
        ansible = subprocess.Popen(
            [Path(sys.executable).with_name("ansible-playbook"), "-v", "-i", path, PROJECT / playbook],
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

    def phase(
        self,
        name: str,
        *,
        interpreter: Sequence[str] = ("/bin/sh",),
        environment: Mapping[str, str] | None = None,
        **variables: Any,
    ) -> Result:
        """Run one phase here without Ansible."""
        archive = self.directory / "files.tar"
        ended = subprocess.run(
            [*interpreter, "-c", self.command(name, **variables)],
            env={**os.environ, "HOME": str(self.home), **self.environment, **(environment or {})},
            input=archive.read_bytes() if name == "prepare" else b"",
            capture_output=True,
            check=False,
            timeout=60,
        )
        stdout, stderr = (stream.decode(errors="replace") for stream in (ended.stdout, ended.stderr))
        return Result(load_plugin().result(name, ended.returncode, stdout, stderr))

    def command(self, phase: str, **variables: Any) -> str:
        return str(load_plugin().command(SCRIPT.read_text(), phase, self.arguments(**variables)))

    def arguments(self, **variables: Any) -> dict[str, Any]:
        """The variables that the server gives to a host; `timeouts` are put over the usual ones."""
        timeouts = {**TIMEOUTS, **variables.pop("timeouts", {})}
        named = {f"daos_{name}": value for name, value in variables.items()}
        return {
            "daos_run": self.run,
            "daos_deployment": self.deployment,
            "daos_project": self.project,
            "daos_archive": str(self.directory / "files.tar"),
            "daos_rivals": [],
            "daos_timeouts": timeouts,
            "daos_settle": 0.3,
            **self.variables,
            **named,
        }

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


def write_archive(path: Path, files: Mapping[str, str]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            tar.addfile(entry, io.BytesIO(content.encode()))


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
