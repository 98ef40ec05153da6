"""The delivery of a run to its host, as one sequence of bytes: a line of JSON, and a tar archive of the files.

The server writes it to the run's private directory, and the action plugin reads it there.  Ansible's process imports
this module, so it uses the standard library only.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

from runner.host.content import DeliveredFile, digest

COMPOSE_FILE = "compose.yaml"
PROFILES = "COMPOSE_PROFILES"
# Compose merges the first of these into compose.yaml, but not if files are passed to it by name.
OVERRIDE_FILES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)


class File(Protocol):
    """A file to deliver."""

    @property
    def data(self) -> bytes: ...
    @property
    def mode(self) -> int: ...
    @property
    def only_if_missing(self) -> bool: ...


@dataclass(frozen=True)
class Delivery:
    """The package of a run, the logins at registries, and the checksums that are compared on the host."""

    files: Mapping[str, DeliveredFile]
    values: Mapping[str, str] = field(default_factory=dict)  # sha256 of each variable's value
    logins: Sequence[str] = ()  # lines, see `runner.spec.run.logins`
    profiles: Sequence[str] = ()  # that COMPOSE_PROFILES names
    outside: bool = False  # Compose may read files that are not in the package
    archive: bytes = b""

    @classmethod
    def read(cls, packed: bytes) -> "Delivery":
        """Return the delivery in the output of `pack`."""
        header, _, archive = packed.partition(b"\n")
        entries = json.loads(header)
        return cls(
            files={path: DeliveredFile(*file) for path, file in entries["files"].items()},
            values=entries["values"],
            logins=entries["logins"],
            profiles=entries["profiles"],
            outside=entries["outside"],
            archive=archive,
        )

    @property
    def id(self) -> str:
        """A digest of the files: the same content has the same id."""
        return digest(_described(self.files))

    @property
    def manifest(self) -> bytes:
        """The files that every run replaces, in the format of sha256sum."""
        lines = (f"{file.digest}  ./{path}\n" for path, file in sorted(self.files.items()) if not file.only_if_missing)
        return "".join(lines).encode()

    @property
    def seeds(self) -> bytes:
        """The paths of the files that are created only if they are missing, one a line."""
        return "".join(f"{path}\n" for path, file in sorted(self.files.items()) if file.only_if_missing).encode()

    @property
    def override(self) -> str | None:
        """The file that Compose merges into compose.yaml; None if there is none."""
        return next((name for name in OVERRIDE_FILES if name in self.files), None)

    @property
    def stdin(self) -> bytes:
        """What the script on the host reads before it asks its first question."""
        return "".join(f"{login}\n" for login in self.logins).encode() + self.manifest + self.seeds


def pack(
    files: Mapping[str, File],
    values: Mapping[str, bytes] | None = None,
    logins: Sequence[str] = (),
    *,
    outside: bool = False,
) -> bytes:
    """Return the bytes that `Delivery.read` reads.  `values` are the values of the variables, by name."""
    described = {
        path: DeliveredFile(sha256(file.data).hexdigest(), file.mode, file.only_if_missing)
        for path, file in files.items()
    }
    profiles = (values or {}).get(PROFILES, b"").decode(errors="replace").split(",")
    header = {
        "files": _described(described),
        "values": {name: sha256(value).hexdigest() for name, value in (values or {}).items()},
        "logins": list(logins),
        "profiles": [name for profile in profiles if (name := profile.strip())],
        "outside": outside,
    }
    modes = {path: file.mode for path, file in files.items()}
    return json.dumps(header).encode() + b"\n" + archive({path: file.data for path, file in files.items()}, modes)


def archive(files: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> bytes:
    """Return an uncompressed tar archive of the files; a file has the mode 0600 unless `modes` has another."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"./{path}")
            entry.size = len(data)
            entry.mode = (modes or {}).get(path, 0o600)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _described(files: Mapping[str, DeliveredFile]) -> dict[str, Any]:
    return {path: [file.digest, file.mode, file.only_if_missing] for path, file in sorted(files.items())}
