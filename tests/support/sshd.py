"""A real sshd on a loopback address of its own, with its own keys, for the user who runs the tests."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.port import free_port
from tests.support.requirement import SYSTEM_DIRECTORIES, find_program

MARK = "DAOS_TEST_SSHD"


@dataclass(frozen=True)
class Process:
    """One process of this machine as it was when asked for.  `command` is its command line."""

    pid: int
    parent: int
    name: str
    command: str


@dataclass
class SshServer:
    """An sshd that accepts one key for one user, and further keys on demand.

    `log` is all that it said, at level VERBOSE.
    """

    directory: Path
    address: str
    port: int
    user: str
    key_path: Path
    path: str
    options: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    _mark: str = field(default_factory=lambda: secrets.token_hex(8))
    _sshd: subprocess.Popen[bytes] | None = None

    @property
    def host_key(self) -> str:
        """The public host key as a known_hosts file has it: `ssh-ed25519 AAAA…`."""
        return " ".join(self._host_key_path.with_suffix(".pub").read_text().split()[:2])

    @property
    def host_key_fingerprint(self) -> str:
        """`SHA256:…`, as ssh-keygen prints it."""
        listed = _ssh_keygen("-l", "-f", str(self._host_key_path.with_suffix(".pub")))
        return listed.split()[1]

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def start(self) -> None:
        """Listen, at the same port as before."""
        sshd = find_program("sshd")
        assert sshd is not None
        config = self._write_config(sshd)
        self._sshd = subprocess.Popen(
            [sshd, "-D", "-f", config, "-E", self._log_path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _wait_until_listening(self._sshd, self.address, self.port, self._log_path)

    def authorize(self, public_key: str) -> None:
        """Accept another key: a line for authorized_keys."""
        with (self.directory / "authorized_keys").open("a") as file:
            file.write(f"{public_key}\n")

    def stop(self) -> None:
        """Stop listening and drop the connections; processes of logins keep running, as on a host without a network."""
        if self._sshd is None:
            return
        connections = self.connections()
        self._sshd.terminate()
        self._sshd.wait(timeout=10)
        self._sshd = None
        _kill(connections)

    def close(self) -> None:
        """Stop, and end what the logins started."""
        self.stop()
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            _kill(left)
            time.sleep(0.02)

    def change_host_key(self) -> None:
        """Start again with another host key, like a reinstalled machine."""
        self.stop()
        self._make_host_key()
        self.start()

    def add_host_key(self, kind: str) -> None:
        """Start again with one more host key, of ssh-keygen's type `kind`."""
        self.stop()
        path = make_key(self.directory / f"host_key_{kind}", kind)
        self.options = [*self.options, f"HostKey {path}"]
        self.start()

    def certify(self, authority: Path, *names: str, valid: str = "always:forever") -> None:
        """Start again with a certificate of the host's key for these names, signed by the private key `authority`.

        `valid` is an interval as ssh-keygen's -V has it.
        """
        self.stop()
        what = ("-h", "-I", "host", "-n", ",".join(names), "-V", valid)
        _ssh_keygen("-q", "-s", str(authority), *what, f"{self._host_key_path}.pub")
        self.start()

    def connections(self) -> list[Process]:
        """sshd's own processes, two for each connection; a client's ControlPersist keeps them."""
        if self._sshd is None:
            return []
        children = _descendants(self._sshd.pid, _processes())
        return [process for process in children if process.name.startswith("sshd")]

    def processes(self) -> list[Process]:
        """What the logins started and is still alive, also when it left its parent and its session."""
        return [process for process in _processes() if _has_environment(process.pid, f"{MARK}={self._mark}")]

    @property
    def _host_key_path(self) -> Path:
        return self.directory / "host_key"

    @property
    def _certificate_path(self) -> Path:
        return self.directory / "host_key-cert.pub"

    @property
    def _log_path(self) -> Path:
        return self.directory / "sshd.log"

    def _make_host_key(self) -> None:
        self._host_key_path.unlink(missing_ok=True)
        self._certificate_path.unlink(missing_ok=True)
        make_key(self._host_key_path)

    def _write_config(self, sshd: Path) -> Path:
        # bash reads ~/.bashrc in a login over ssh, unless SHLVL indicates that it is a child of another shell.
        environment = {"PATH": self.path, MARK: self._mark, "SHLVL": "1", **self.environment}
        lines = [
            *self.options,  # first, because sshd keeps the first value of an option
            f"ListenAddress {self.address}:{self.port}",
            f"HostKey {self._host_key_path}",
            *([f"HostCertificate {self._certificate_path}"] if self._certificate_path.exists() else []),
            f"AuthorizedKeysFile {self.directory / 'authorized_keys'}",
            f"PidFile {self.directory / 'sshd.pid'}",
            f"SetEnv {' '.join(f'{name}={value}' for name, value in environment.items())}",
            "AuthenticationMethods publickey",
            "KbdInteractiveAuthentication no",
            "LogLevel VERBOSE",
            "MaxSessions 100",
            "MaxStartups 200",
            "PasswordAuthentication no",
            "PermitRootLogin prohibit-password",
            "PermitUserEnvironment no",
            "PrintMotd no",
            "StrictModes no",
            "Subsystem sftp internal-sftp",
            "UseDNS no",
            "UsePAM no",
        ]
        config = self.directory / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        # OpenSSH 9.8 and later block an address after failed logins; in earlier versions the option is an error.
        probe = [str(sshd), "-t", "-f", str(config), "-o", "PerSourcePenalties=no"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            config.write_text("\n".join([*lines, "PerSourcePenalties no"]) + "\n")
        return config


def why_missing() -> str | None:
    """Why no sshd can be started here, None when one can."""
    if find_program("sshd") is None:
        return "there is no sshd (Debian: openssh-server)"
    if shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        return "there is no ssh client (Debian: openssh-client)"
    return None


@contextlib.contextmanager
def serve_ssh(
    directory: Path,
    address: str,
    *,
    path: str = SYSTEM_DIRECTORIES,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[SshServer]:
    """An sshd on a free port of `address`; `path` is the logins' PATH, `options` are lines of sshd_config that win.

    `environment` is what logins have besides.
    """
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's sshd refuses to start without it
    key_path = directory / "client_key"
    _ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", "daos tests", "-f", str(key_path))
    shutil.copy(key_path.with_suffix(".pub"), directory / "authorized_keys")
    user = pwd.getpwuid(os.geteuid()).pw_name
    server = SshServer(directory, address, free_port(address), user, key_path, path, options, environment or {})
    server._make_host_key()
    try:
        server.start()
        yield server
    finally:
        server.close()


def make_key(path: Path, kind: str = "ed25519") -> Path:
    """A new private key at `path`, with its public key beside it."""
    _ssh_keygen("-q", "-t", kind, "-N", "", "-C", "host", "-f", str(path))
    return path


def _ssh_keygen(*arguments: str) -> str:
    return subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True, text=True).stdout


def _wait_until_listening(sshd: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and sshd.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        time.sleep(0.02)
    sshd.kill()
    raise RuntimeError(f"sshd does not listen: {log.read_text() if log.exists() else 'no log'}")


def _kill(processes: Sequence[Process]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _processes() -> list[Process]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # pid (name) state parent …, where the name may hold anything
            name, rest = (directory / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            state, parent = rest.split()[:2]
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if state != "Z":
                found.append(Process(int(directory.name), int(parent), name, command))
    return found


def _descendants(pid: int, processes: Sequence[Process]) -> list[Process]:
    children = [process for process in processes if process.parent == pid]
    return [*children, *(deeper for child in children for deeper in _descendants(child.pid, processes))]


def _has_environment(pid: int, entry: str) -> bool:
    with contextlib.suppress(OSError):
        return entry.encode() in Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    return False
