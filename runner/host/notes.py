"""The notes that the host keeps for daos, and the host's report at the beginning of a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.containers import ContainerState
from runner.host.content import Items


@dataclass(frozen=True)
class Seen:
    """One container of a service, as the comparison needs it."""

    id: str
    service: str
    state: ContainerState
    image_id: str
    hash: str  # of its configuration, from Compose's label


@dataclass(frozen=True)
class Built:
    """An image that a run has built."""

    key: str  # digest of what it was built from
    image_id: str


@dataclass(frozen=True)
class Notes:
    """What daos stored on the host before it last changed the project.

    A container that did not exist at that time has been created since, from `contents`.  Therefore the notes need no
    second write after Up, and they stay correct wherever a run is cut off.
    """

    contents: Mapping[str, Items] = field(default_factory=dict)  # by service
    before: Mapping[str, Items | None] = field(default_factory=dict)  # by container; None: its sources are gone
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # path -> (sha256, mode) in the directory
    model: str = ""  # digest of the model that Up uses
    # Paths in the project directory that containers of this run or of an earlier one can write to.
    writable: Sequence[str] = ()

    @classmethod
    def read(cls, text: str) -> "Notes":
        """Return the notes in the output of `write`.  Raises: ValueError."""
        data = _mapping(json.loads(text))
        return cls(
            contents={name: _items(value) for name, value in _mapping(data.get("contents", {})).items()},
            before={
                name: None if value is None else _items(value)
                for name, value in _mapping(data.get("before", {})).items()
            },
            files={path: _digest_and_mode(value) for path, value in _mapping(data.get("files", {})).items()},
            model=str(data.get("model", "")),
            writable=[str(path) for path in data.get("writable", [])],
        )

    def write(self) -> str:
        """Return the notes as one line of JSON."""
        return json.dumps(
            {
                "contents": dict(self.contents),
                "before": dict(self.before),
                "files": dict(self.files),
                "model": self.model,
                "writable": list(self.writable),
            },
            sort_keys=True,
        )

    def items_of(self, container: Seen) -> Items | None:
        """Return what the container was made from; None if that is known to be gone."""
        if container.id in self.before:
            return self.before[container.id]
        return self.contents.get(container.service, {})


@dataclass(frozen=True)
class Sight:
    """The state of the host before a run changes anything."""

    containers: Sequence[Seen] = ()
    images: Mapping[str, str] = field(default_factory=dict)  # name -> id, of the images that exist
    # Files of the delivery that are not in the directory, differ there, or were not moved by a run that was cut off.
    changed: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()  # files that are created only if they are missing, and are missing
    modified: frozenset[str] = frozenset()  # files that differ from what the previous run left
    notes: Notes | None = None  # None: no run of this daos has stored notes
    had: frozenset[str] = frozenset()  # files of a run that left no notes, or was cut off before it had deleted them
    built: Mapping[str, Built] = field(default_factory=dict)  # by service


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _items(value: Any) -> Items:
    found = _mapping(value)
    if not all(isinstance(item, str) for item in found.values()):
        raise ValueError("not digests")
    return found


def _digest_and_mode(value: Any) -> tuple[str, int]:
    match value:
        case [str(checksum), int(mode)]:
            return checksum, mode
    raise ValueError("not a checksum and a mode")
