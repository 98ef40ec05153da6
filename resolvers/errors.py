"""Expected trouble.  A class's docstring is the message that a client gets, with its values filled in."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class ErrorCode(StrEnum):
    """What went wrong, for programs."""

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
    status = 400  # what the error would be in plain HTTP

    def __init__(self, **values: object) -> None:
        super().__init__((self.__doc__ or "").format(**values))
        self.extensions: dict[str, object] = {}  # what programs get besides the code


class HostNotFound(DaosError):
    """Host '{id}' was not found."""

    code = ErrorCode.HOST_NOT_FOUND


class PackageNotFound(DaosError):
    """Package '{id}' was not found."""

    code = ErrorCode.PACKAGE_NOT_FOUND


class NotFound(DaosError):
    """{kind} '{id}' was not found."""

    code = ErrorCode.NOT_FOUND
    status = 404


class RunInProgress(DaosError):
    """Deployment '{id}' has a run in progress."""

    code = ErrorCode.RUN_ALREADY_IN_PROGRESS


class HostHasRunInProgress(DaosError):
    """Host '{id}' has a run in progress, which has to find it where it was."""

    code = ErrorCode.RUN_ALREADY_IN_PROGRESS


class NameTaken(DaosError):
    """{kind} '{name}' exists already."""

    code = ErrorCode.NAME_TAKEN


class InUse(DaosError):
    """{kind} '{id}' is in use by {users}."""

    code = ErrorCode.IN_USE

    def __init__(self, *, kind: str, id: str, noun: str, count: int = 0, first: UUID | None = None) -> None:  # noqa: A002
        """`count` is of those that the principal sees; 0 where there are only others, whose number is not told."""
        if not count:
            users = f"{noun}s that you do not see"
        elif count == 1:
            users = f"{noun} '{first}'"
        else:
            users = f"{count} {noun}s, of which the first is '{first}'"
        super().__init__(kind=kind, id=id, users=users)
        if count:
            self.extensions = {"count": count, f"{noun}_id": str(first)}


class HostUnreachable(DaosError):
    """Host '{id}' cannot be asked for its keys: {why}."""

    code = ErrorCode.HOST_UNREACHABLE


class StorageFull(DaosError):
    """The server's storage is full, and nothing was changed; reading goes on."""

    code = ErrorCode.STORAGE_FULL
    status = 507


@dataclass(frozen=True)
class Problem:
    """One rule that one value breaks.  `path` leads to the value: names of arguments and positions in lists."""

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
    """A valid access token is needed."""

    code = ErrorCode.UNAUTHENTICATED
    status = 401


class Forbidden(DaosError):
    """The access token does not allow this."""

    code = ErrorCode.FORBIDDEN
    status = 403
