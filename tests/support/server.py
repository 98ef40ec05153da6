"""The real `daos serve`, or `daos worker`, as a process of its own, with its own data directory."""

import contextlib
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from daos.settings import Settings

START_TIMEOUT = 60.0  # seconds; a killed server's plays have 15 of them to end
LINK = re.compile(r"(?:GraphiQL: (http://\S+?)/graphql#token=(\S+)|Worker: (http://\S+)/readyz)")
WARM = re.compile(r"plays are forks of the warm process (\d+)")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Return as soon as the condition holds.  Raises: AssertionError."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.02)


def at_work(project: str) -> dict[int, str]:
    """Pid and command line of every process of this machine that works on a compose project of its user.

    Both ends of an ssh connection are seen: the host is this machine.
    """
    lock = Path(pwd.getpwuid(os.getuid()).pw_dir, ".daos", "state", project, "lock")
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if project in line or any(_is_same(descriptor, lock) for descriptor in (process / "fd").iterdir()):
                found[int(process.name)] = line
    return found


def _is_same(descriptor: Path, file: Path) -> bool:
    with contextlib.suppress(OSError):
        return descriptor.readlink() == file
    return False


def processes_with(entry: str) -> dict[int, str]:
    """Pid and command line of every process on this machine that has `entry` in its environment, zombies apart."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


@dataclass
class Server:
    """A server that can be stopped, killed and started again on the same data directory.

    `settings` are environment variables, `command` is what starts it.
    """

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str | Path] = (sys.executable, "-m", "daos")
    environment: Mapping[str, str] | None = None  # all of it; None: that of the tests without their DAOS_*
    role: str = "serve"  # or "worker"
    url: str = ""
    token: str = ""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def run_root(self) -> Path:
        """Where runs have their directories."""
        return Settings(data_dir=self.data_dir).run_root

    @property
    def log(self) -> str:
        """All that the server has said on stderr, in all its lives."""
        return self._log_path.read_text()

    @property
    def output(self) -> str:
        """What the server has printed on stdout in its last life."""
        return self._output_path.read_text()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """What it has ended with, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def start(self) -> None:
        """Start and wait until it is ready."""
        self.launch()
        wait_until(self._is_ready, "the server is ready", START_TIMEOUT)

    @property
    def warm_pid(self) -> int | None:
        """The warm process that plays go to, if there is one."""
        pids = WARM.findall(self.log)
        with contextlib.suppress(OSError):
            if pids and Path(f"/proc/{pids[-1]}/cmdline").read_bytes():  # empty when it is dead
                return int(pids[-1])
        return None

    def wait_until_warm(self) -> None:
        """Return when it has Ansible loaded, so that plays are forks of that."""
        wait_until(lambda: self.warm_pid, "Ansible is loaded", 120)

    def launch(self) -> None:
        """Start without waiting."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log, self._output_path.open("wb") as output:
            self._process = subprocess.Popen(
                [*self.command, self.role, "--port", "0"],
                cwd=self.directory,
                env={**self._environment(), "DAOS_DATA_DIR": str(self.data_dir), **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )

    def stop(self, seconds: float = 60.0) -> int:
        """Ask it politely to end, and give its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its end, and give its exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it as a power cut would: it gets to do nothing."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Stop it if it runs, whatever it takes."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()

    def processes(self, run_id: str = "") -> dict[int, str]:
        """What runs have started on this machine and is alive, but on the far side of no ssh."""
        cookie = Settings(data_dir=self.data_dir).cookie
        return processes_with(f"DAOS_RUN={cookie}/{run_id}")

    @property
    def _log_path(self) -> Path:
        return self.directory / "server.log"

    @property
    def _output_path(self) -> Path:
        return self.directory / "server.out"

    def _environment(self) -> dict[str, str]:
        if self.environment is not None:
            return dict(self.environment)
        return {name: value for name, value in os.environ.items() if not name.startswith("DAOS_")}

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the server has ended: {self.log}"
        link = LINK.search(self.output)
        if link is None:
            return False
        self.url, self.token = link[1] or link[3], link[2] or ""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == httpx.codes.OK
        return False
