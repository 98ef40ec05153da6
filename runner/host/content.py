"""The content that a run delivers, as checksums."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

ENV_FILE = ".env"
Items = Mapping[str, str]  # what a container is made from in addition to its configuration: name -> digest


@dataclass(frozen=True)
class DeliveredFile:
    """One file of a delivery."""

    digest: str  # sha256 of the content
    mode: int
    only_if_missing: bool = False  # created once; afterwards it belongs to the container


@dataclass(frozen=True)
class Content:
    """The package and the variables that a run delivers.  `files` includes compose.yaml and `.env`."""

    files: Mapping[str, DeliveredFile]
    values: Mapping[str, str] = field(default_factory=dict)  # sha256 of each variable's value


def digest(value: object) -> str:
    """Return the SHA-256 of a value's JSON."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
