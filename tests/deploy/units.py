"""Units of systemd, read as far as tests look at them, and the time that a stop takes at most."""

from pathlib import Path

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
AFTER_GRACE = 48  # seconds that a stop takes besides DAOS_SHUTDOWN_GRACE: see docs/operations.md


def directives(unit: Path) -> dict[str, list[str]]:
    """The values of each directive, in order; an empty one is an empty text."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#;[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found
