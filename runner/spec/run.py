"""What a run needs, as plain data: Ansible's inventory, and the project's files for the host.  Nothing is played here.

Every string that a user may have written is marked `__ansible_unsafe`.  Without the mark, Ansible evaluates it as a
template, and `{{ lookup('pipe', 'id') }}` in an address would be executed on the server.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from db.encryption import Secret
from db.models import HostTransport, RunAction
from runner.compose.file import reads_outside
from runner.host.content import ENV_FILE
from runner.host.delivery import COMPOSE_FILE, pack
from runner.ssh.target import Target, connection_options

KEEP_ALIVE = "-o ServerAliveInterval=5 -o ServerAliveCountMax=2"  # as in ansible.cfg


@dataclass(frozen=True)
class Login:
    """The login at one registry, with which a package's images are pulled."""

    registry: str
    username: str
    password: Secret


@dataclass(frozen=True)
class ProjectFile:
    """A file of the project, as it is delivered to the host."""

    data: bytes
    mode: int = 0o644  # permission bits
    only_if_missing: bool = False  # a file that already exists on the host is not replaced


@dataclass(frozen=True)
class Project:
    """The deployment of one run: everything that is played, and nothing about how."""

    run_id: UUID
    number: int
    action: RunAction
    deployment_id: UUID
    installation: UUID  # of this daos; several installations can share a host's account
    name: str  # Compose's project name
    package: str  # name and version, for people
    target: Target
    compose_file: str
    files: dict[str, ProjectFile]  # by path, without compose.yaml and .env
    variables: dict[str, Secret]
    secrets: list[Secret] = field(default_factory=list)  # values that must not be shown
    rivals: list[UUID] = field(
        default_factory=list
    )  # existing deployments with this project name; hosts may share a machine
    logins: list[Login] = field(default_factory=list)


@dataclass(frozen=True)
class Timeouts:
    """The time limits of each part of a run, in seconds."""

    connect: int = 10
    prepare: int = 120
    build: int = 1800
    pull: int = 1800
    up: int = 600
    verify: int = 300
    down: int = 300
    recover: int = 12  # with the connection, it must fit into the 30 s after a restart in which each run must end
    run: int = 3600


@dataclass(frozen=True)
class Paths:
    """The paths of a run's files while it is played."""

    delivery: Path  # see `delivery`
    known_hosts: Path
    control: Path  # the directory of ssh's control socket
    master: Path | None = None  # the control socket of a connection that is already open
    identity: Path | None = None  # where ssh finds a stored key, see `runner.ssh.key_in_memory`


def playbook(action: RunAction) -> str:
    """Return the name of the playbook for `action`."""
    return "deploy.yml" if action is RunAction.UP else "down.yml"


def logins(project: Project) -> list[str]:
    """Return the logins at registries, one a line, with passwords that the host's `printf %b` restores unchanged."""
    return [f"{login.registry} {_in_octal(login.password)} {login.username}" for login in project.logins]


def _in_octal(secret: Secret) -> str:
    return "".join(f"\\0{byte:03o}" for byte in secret.reveal().encode())


def delivery(project: Project) -> bytes:
    """Return the delivery, see `runner.host.delivery`: compose.yaml, `.env`, and the package's other files."""
    own = {
        COMPOSE_FILE: ProjectFile(project.compose_file.encode()),
        ENV_FILE: ProjectFile(dotenv(project.variables).encode(), mode=0o600),
    }
    values = {name: value.reveal().encode() for name, value in project.variables.items()}
    # A file that is created only if it is missing may differ on the host from the delivered one.
    fixed = {path: file.data for path, file in project.files.items() if not file.only_if_missing}
    return pack(own | project.files, values, logins(project), outside=reads_outside(project.compose_file, fixed))


def dotenv(variables: dict[str, Secret]) -> str:
    """Return `variables` so that Compose reads them unchanged, including quotes, `$`, backslashes, and newlines."""
    return "".join(f"{name}={_quote(value.reveal())}\n" for name, value in sorted(variables.items()))


def _quote(value: str) -> str:
    # Compose takes text in single quotes literally, but they cannot contain a single quote or a final backslash.
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def inventory(project: Project, paths: Paths, timeouts: Timeouts, settle: float) -> dict[str, Any]:
    """Return Ansible's inventory: one host, named by the deployment's id.

    Its variable `daos` has the arguments that the playbooks pass to the task.  For `settle` see `Limits.settle`.
    """
    limits = asdict(timeouts)
    del limits["connect"]
    arguments = {
        "id": str(project.run_id),
        "deployment": str(project.deployment_id),
        "installation": str(project.installation),
        "project": _unsafe(project.name),
        "delivery": _unsafe(str(paths.delivery)),
        "rivals": [str(rival) for rival in project.rivals],
        "timeouts": limits,
        "settle": settle,
        "display": "events",
    }
    variables = {"daos": arguments, **_connection(project.target, paths, timeouts)}
    return {"all": {"hosts": {str(project.deployment_id): variables}}}


def _connection(target: Target, paths: Paths, timeouts: Timeouts) -> dict[str, Any]:
    if target.transport is HostTransport.LOCAL:
        return {"ansible_connection": "local"}
    arguments = [*connection_options(target, paths.known_hosts), f"-oConnectTimeout={timeouts.connect}"]
    variables: dict[str, Any] = {
        "ansible_connection": "ssh",
        "ansible_host": _unsafe(target.address or ""),
        "ansible_port": target.port,
        "ansible_user": _unsafe(target.user),
        "ansible_timeout": timeouts.connect,
        # The directory belongs to the run, so a connection that was opened with one credential is not used by another.
        # Two percent signs, because Ansible first formats the path with `directory`.
        "ansible_control_path": str(paths.control / "%%C"),
        "ansible_control_path_dir": str(paths.control),  # otherwise Ansible creates one in the home directory
    }
    if paths.master is not None:
        variables["ansible_control_path"] = str(paths.master)
        # If the master has ended in the meantime, each command opens its own connection.
        variables["ansible_ssh_args"] = f"-o ControlMaster=no -o ControlPersist=no {KEEP_ALIVE}"
    if target.has_key:
        variables["ansible_ssh_private_key_file"] = _unsafe(str(paths.identity or target.ssh_key_path))
    variables["ansible_ssh_common_args"] = _unsafe(" ".join(arguments))
    return variables


def _unsafe(value: str) -> dict[str, str]:
    """Return `value` as a literal, which Ansible never evaluates."""
    return {"__ansible_unsafe": value}
