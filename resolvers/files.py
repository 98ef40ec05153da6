"""The files of a new package: their rules, and the decoding of their contents.  Pure, like `resolvers.rules`."""

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resolvers.rules import Check

MAX_FILES = 1000
MAX_SIZE = 4 * 1024 * 1024  # bytes of all files of a package together
MAX_PATH = 1024  # bytes; a host's limit is 4096, including the project's directory
MAX_COMPONENT = 255  # bytes, the limit of Linux's file systems
MAX_SHOWN = 100  # characters of a path in a message

DEFAULT_MODE = "0644"
MODE = re.compile(r"[0-7]{3,4}")
PERMISSIONS = 0o777
OWNER_READS = 0o400
RESERVED = {"compose.yaml", ".env"}
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class NewFile:
    """A file as a client sends it.  Exactly one of `content` and `base64` must be set."""

    path: str
    content: str | None = None
    base64: str | None = None
    mode: str = DEFAULT_MODE
    only_if_missing: bool = False

    @property
    def given(self) -> tuple[object, ...]:
        """The values by which requests are compared; a plain text file has the same ones as in earlier releases."""
        if self.content is not None and (self.base64, self.mode, self.only_if_missing) == (None, DEFAULT_MODE, False):
            return (self.path, self.content)
        return (self.path, self.content, self.base64, self.mode, self.only_if_missing)


@dataclass(frozen=True)
class DecodedFile:
    """A file as it is stored and delivered."""

    path: str
    data: bytes
    mode: int
    only_if_missing: bool


def decode(check: Check, argument: str, files: Sequence[NewFile]) -> list[DecodedFile]:
    """Return the files with their bytes, and add every problem to `check`.

    A file with an invalid content is empty, and one with an invalid mode has the default mode.
    """
    if len(files) > MAX_FILES:
        check.add(argument, "TOO_MANY", f"{argument} must have at most {MAX_FILES} files.")
        return []
    paths: set[str] = set()
    decoded = []
    for position, file in enumerate(files):
        problem = _path_problem(file.path, paths)
        if problem is not None:
            shown = file.path[:MAX_SHOWN]
            check.add((argument, position, "path"), "PATH", f"{argument}.{position}.path '{shown}' {problem}.")
        paths.add(file.path)
        data = _data(check, (argument, position), file)
        decoded.append(DecodedFile(file.path, data, _mode(check, (argument, position), file), file.only_if_missing))
    if sum(len(file.data) for file in decoded) > MAX_SIZE:
        rule = f"must have at most {MAX_SIZE} bytes together, after Base64 is decoded"
        check.add(argument, "TOO_LONG", f"{argument} {rule}.")
    taken = paths | RESERVED
    for both in sorted({folder for path in paths for folder in _folders(path) if folder in taken}):
        check.add(argument, "PATH", f"{argument}: '{both[:MAX_SHOWN]}' is both a file and a folder; rename one.")
    return decoded


def _data(check: Check, where: tuple[str, int], file: NewFile) -> bytes:
    name = f"{where[0]}.{where[1]}"
    if (file.content is None) == (file.base64 is None):
        rule = "must have exactly one of content and base64: content for text, base64 for any other bytes"
        check.add(where, "CONTENT", f"{name} {rule}.")
    elif file.content is not None:
        # NUL is allowed: the column stores bytes, not text.
        if not SURROGATE.search(file.content):
            return file.content.encode()
        rule = "must not have half surrogate pairs, which UTF-8 cannot express; send the bytes in base64"
        check.add((*where, "content"), "CHARACTER", f"{name}.content {rule}.")
    elif file.base64 is not None:
        try:
            return base64.b64decode(file.base64, validate=True)
        except (binascii.Error, ValueError):  # ValueError for characters that are not ASCII
            rule = "must be Base64 as in RFC 4648, with its padding and without line breaks, as `base64 -w0` writes it"
            check.add((*where, "base64"), "BASE64", f"{name}.base64 {rule}.")
    return b""


def _mode(check: Check, where: tuple[str, int], file: NewFile) -> int:
    problem = None
    if not MODE.fullmatch(file.mode):
        problem = "must be three or four octal digits, as chmod takes them: 0644, or 755"
    elif int(file.mode, 8) & ~PERMISSIONS:
        problem = "must not have the setuid, setgid or sticky bit, which a checkout cannot have either: use 0755"
    elif not int(file.mode, 8) & OWNER_READS:
        problem = "must allow the file's owner to read it, as daos and Compose need to: use at least 0400"
    if problem is None:
        return int(file.mode, 8)
    check.add((*where, "mode"), "MODE", f"{where[0]}.{where[1]}.mode {problem}.")
    return int(DEFAULT_MODE, 8)


def _path_problem(path: str, others: set[str]) -> str | None:
    """Return what is wrong with `path`, to be put after its name; names are compared without normalization."""
    if path in RESERVED:
        return "is written by daos itself; give it in " + ("variables" if path == ".env" else "composeFile")
    if path in others:
        return "is given twice; give each path once"
    return _character_problem(path) or _component_problem(path)


def _character_problem(path: str) -> str | None:
    if SURROGATE.search(path):
        return "must not have half surrogate pairs, which no UTF-8 name has; rename the file"
    # sha256sum escapes backslashes and line breaks in the manifest that hosts check.
    if "\\" in path or any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in path):
        return "must not have backslashes, control characters or line separators; rename the file"
    return None


def _component_problem(path: str) -> str | None:
    if path.startswith("/"):
        return "must be relative to the project's directory; remove the leading '/'"
    parts = path.split("/")
    if ".." in parts:
        return "must not lead out of the project with '..'; give the path inside the project's directory"
    if "" in parts or "." in parts:
        return "must not have empty names or '.' between slashes; remove them"
    if any(len(part.encode()) > MAX_COMPONENT for part in parts):
        return f"must not have names of more than {MAX_COMPONENT} bytes; shorten them"
    if len(path.encode()) > MAX_PATH:
        return f"must have at most {MAX_PATH} bytes; shorten it"
    return None


def _folders(path: str) -> Iterator[str]:
    """Return the folders that contain `path`, the outermost first."""
    return (path[:position] for position, character in enumerate(path) if character == "/")
