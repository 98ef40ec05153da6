"""Builds the script for a host from its parts: only those that the phases need, in a fixed order.

`python -m runner.host.script` prints the complete script, for a linter.
"""

import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from db.phase import Phase
from runner.host.arguments import PHASES, Arguments
from runner.host.delivery import Delivery

UP = frozenset(PHASES["up"])
DOWN = frozenset(PHASES["down"])
RECOVERY = frozenset({*PHASES["halt"], *PHASES["recover"]})
ALL = UP | DOWN | RECOVERY

# Each part with the phases that need it.  `protocol` must be first; `main`, which runs the phases, must be last.
PARTS: Mapping[str, frozenset[Phase]] = {
    "protocol": ALL,
    "phase": ALL,
    "lock": ALL,
    "marker": ALL,
    "docker": ALL,
    "containers": ALL,
    "logins": UP,
    "files": UP,
    "deploy": UP,
    "down": DOWN,
    "recover": RECOVERY,
    "main": ALL,
}


def read(directory: Path) -> dict[str, str]:
    """Return the text of each part, in order."""
    return {name: (directory / f"{name}.sh").read_text(encoding="utf-8") for name in PARTS}


def joined(parts: Mapping[str, str], phases: Iterable[Phase]) -> str:
    """Return the parts that the phases need, joined."""
    wanted = set(phases)
    return "".join(text for name, text in parts.items() if PARTS[name] & wanted)


def command(parts: Mapping[str, str], arguments: Arguments, delivery: Delivery | None) -> str:
    """Return a command line with the script and its arguments: one line, which any login shell passes on unchanged.

    The `parts` must be escaped.
    """
    delivered: tuple[object, ...] = (0, "-", 0, 0, "-", "no")
    if delivery is not None:
        sizes = len(delivery.logins), delivery.id, len(delivery.manifest), len(delivery.seeds)
        delivered = (*sizes, delivery.override or "-", "yes" if delivery.outside else "no")
    words = [
        ",".join(phase.word for phase in arguments.phases),
        arguments.id,
        arguments.deployment,
        arguments.installation,
        arguments.project,
        ",".join(str(math.ceil(arguments.timeout(phase))) for phase in arguments.phases),
        *delivered,
        *arguments.rivals,
    ]
    return f'set -- {shlex.join(map(str, words))}; eval "$(printf %b "{joined(parts, arguments.phases)}")"'


def escaped(script: str) -> str:
    """Escape the script for `printf %b`, including the characters that fish and csh interpret differently in quotes.

    Comments are removed, because the host's shell would read them in each run.
    """
    code = re.sub(r"(?m)^[ \t]*#.*\n", "", script)
    return re.sub(r"[^ -~]|[\\'\"$`!]", lambda match: "".join(f"\\0{byte:03o}" for byte in match[0].encode()), code)


if __name__ == "__main__":
    sys.stdout.write(joined(read(Path(__file__).parents[2] / "ansible/files/compose_project"), ALL))
