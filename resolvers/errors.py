"""Expected errors.  The docstring of a class is the message that a client receives, with its values filled in."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar
from uuid import UUID


class ErrorCode(StrEnum):
    """The kind of an error, for programs."""

    BAD_USER_INPUT = "BAD_USER_INPUT"
    HOST_NOT_FOUND = "HOST_NOT_FOUND"
    PACKAGE_NOT_FOUND = "PACKAGE_NOT_FOUND"
    NOT_FOUND = "NOT_FOUND"
    RUN_ALREADY_IN_PROGRESS = "RUN_ALREADY_IN_PROGRESS"
    NAME_TAKEN = "NAME_TAKEN"
    IN_USE = "IN_USE"
    HOST_UNREACHABLE = "HOST_UNREACHABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    OPERATION_TOO_COMPLEX = "OPERATION_TOO_COMPLEX"
    STORAGE_FULL = "STORAGE_FULL"
    INTERNAL_SERVER_ERROR = "INTERNAL_SERVER_ERROR"


class DaosError(Exception):
    """The request cannot be carried out."""

    code = ErrorCode.BAD_USER_INPUT
    status = 400  # the status that the error would have in plain HTTP

    def __init__(self, **values: object) -> None:
        super().__init__((self.__doc__ or "").format(**values))
        self.extensions: dict[str, object] = {}  # for programs, in addition to the code


class HostNotFound(DaosError):
    """Host '{id}' was not found; the query hosts lists the ids."""

    code = ErrorCode.HOST_NOT_FOUND


class PackageNotFound(DaosError):
    """Package '{id}' was not found; the query packages lists the ids."""

    code = ErrorCode.PACKAGE_NOT_FOUND


class NotFound(DaosError):
    """{kind} '{id}' was not found{hint}."""

    code = ErrorCode.NOT_FOUND
    status = 404

    _LISTED_BY: ClassVar = {
        "Deployment": "query deployments",
        "Host": "query hosts",
        "Package": "query packages",
        "Run": "field runs of its deployment",
        "SSH key": "query sshKeys",
    }

    def __init__(self, *, kind: str, id: object) -> None:  # noqa: A002
        source = self._LISTED_BY.get(kind)
        super().__init__(kind=kind, id=id, hint=f"; the {source} lists the ids" if source else "")


class RunInProgress(DaosError):
    """Deployment '{id}' has a run in progress; wait until run '{run}' has ended, or cancel it with cancelRun."""

    code = ErrorCode.RUN_ALREADY_IN_PROGRESS

    def __init__(self, *, id: str, run: UUID | None) -> None:  # noqa: A002
        """`run` is the active run; None if it was deleted in the meantime, with its deployment."""
        super().__init__(id=id, run=run)
        if run is not None:
            self.extensions = {"run_id": str(run)}


class HostHasRunInProgress(RunInProgress):
    """Host '{id}' cannot be changed during run '{run}'; wait until the run has ended, or cancel it with cancelRun."""


class NameTaken(DaosError):
    """{kind} '{name}' exists already; choose another {argument}."""

    code = ErrorCode.NAME_TAKEN

    def __init__(self, *, kind: str, name: str, argument: str = "name") -> None:
        super().__init__(kind=kind, name=name, argument=argument)


class ProjectTaken(NameTaken):
    """{kind} '{name}' exists already on host '{host}'; choose another projectName."""

    def __init__(self, *, name: str, host: str) -> None:
        DaosError.__init__(self, kind="Project", name=name, host=host)


class InUse(DaosError):
    """{kind} '{id}' is in use by {users}."""

    code = ErrorCode.IN_USE

    def __init__(self, *, kind: str, id: str, noun: str, count: int = 0, first: UUID | None = None) -> None:  # noqa: A002
        """`count` is the number of users that the principal can see; 0 if there are only others, never counted."""
        if not count:
            users = f"{noun}s that you cannot see"
        elif count == 1:
            users = f"{noun} '{first}'"
        else:
            users = f"{count} {noun}s; the first is '{first}'"
        super().__init__(kind=kind, id=id, users=users)
        if count:
            self.extensions = {"count": count, f"{noun}_id": str(first)}


class HostUnreachable(DaosError):
    """Host '{id}' cannot be asked for its keys: {why}."""

    code = ErrorCode.HOST_UNREACHABLE


class StorageFull(DaosError):
    """The server's storage is full, and nothing was changed; queries still work."""

    code = ErrorCode.STORAGE_FULL
    status = 507


@dataclass(frozen=True)
class Problem:
    """One violation of a rule by one value.  `path` locates the value: names of arguments and positions in lists."""

    path: tuple[str | int, ...]
    code: str
    message: str


class InvalidInput(DaosError):
    """The input breaks a rule."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__()
        self.problems = problems
        self.args = (problems[0].message if len(problems) == 1 else f"The input breaks {len(problems)} rules.",)


class Unauthenticated(DaosError):
    """A valid access token is needed: send the header 'Authorization: Bearer TOKEN'."""

    code = ErrorCode.UNAUTHENTICATED
    status = 401


class TokenUnknown(Unauthenticated):
    """The access token in the header 'Authorization' is unknown to this server; send one that was created on it."""


class TokenExpired(Unauthenticated):
    """The access token '{name}' expired on {moment:%Y-%m-%d at %H:%M} UTC; create a new one with createToken."""


class TokenRevoked(Unauthenticated):
    """The access token '{name}' was revoked on {moment:%Y-%m-%d at %H:%M} UTC; create a new one with createToken."""


class TokenOfIssuerRefused(Unauthenticated):
    """The token of the OpenID Connect issuer was refused; the server's log says why."""


class Forbidden(DaosError):
    """{field} needs the role {needed}, and the access token '{name}' has the role {role}; use one with {needed}."""

    code = ErrorCode.FORBIDDEN
    status = 403
