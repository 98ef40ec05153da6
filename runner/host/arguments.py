"""The arguments of the task `compose_project`: their argument spec, and the validated arguments.

ansible/library/compose_project.py documents them for operators; a test compares the two.  Ansible's process imports
this module, so it uses the standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.phase import OF_DOWN, OF_UP, Phase
from runner.host.answers import Limits

PHASES: Mapping[str, tuple[Phase, ...]] = {
    "up": OF_UP,
    "down": OF_DOWN,
    "halt": (Phase.HALT,),
    "recover": (Phase.RECOVER,),
}

_BY_HAND = {"type": "str", "default": "by-hand"}

# Ansible's argument spec.  The defaults of `timeouts` are those of `runner.spec.run.Timeouts`.
SPEC: dict[str, dict[str, Any]] = {
    "action": {"type": "str", "required": True, "choices": list(PHASES)},
    "run": {
        "type": "dict",
        "required": True,
        "options": {
            "project": {"type": "str", "required": True},
            "delivery": {"type": "path"},
            "id": _BY_HAND,
            "deployment": _BY_HAND,
            "installation": _BY_HAND,
            "rivals": {"type": "list", "elements": "str", "default": []},
            "settle": {"type": "float", "default": 2.0},
            "timeouts": {
                "type": "dict",
                "apply_defaults": True,
                "options": {
                    "prepare": {"type": "float", "default": 120},
                    "build": {"type": "float", "default": 1800},
                    "pull": {"type": "float", "default": 1800},
                    "up": {"type": "float", "default": 600},
                    "verify": {"type": "float", "default": 300},
                    "down": {"type": "float", "default": 300},
                    "recover": {"type": "float", "default": 12},
                    "run": {"type": "float", "default": 3600},
                },
            },
            "display": {"type": "str", "default": "text", "choices": ["text", "events"]},
        },
    },
}


@dataclass(frozen=True)
class Arguments:
    """The validated arguments of one task."""

    phases: tuple[Phase, ...]
    project: str  # Compose's project name
    id: str  # of the run
    deployment: str
    installation: str
    rivals: tuple[str, ...]
    settle: float  # seconds
    timeouts: Mapping[str, float]  # seconds
    delivery: Path | None = None  # None if nothing is delivered
    has_events: bool = False  # display events, for the server

    @classmethod
    def read(cls, validated: Mapping[str, Any]) -> "Arguments":
        """Read arguments that Ansible has validated by `SPEC`.  Raises: ValueError, if they contradict each other."""
        phases, run = PHASES[validated["action"]], validated["run"]
        is_delivered = Phase.PREPARE in phases
        if is_delivered and run["delivery"] is None:
            raise ValueError(f"missing required arguments: delivery found in run, for action {validated['action']}")
        return cls(
            phases=phases,
            project=run["project"],
            id=run["id"],
            deployment=run["deployment"],
            installation=run["installation"],
            rivals=tuple(run["rivals"]),
            settle=run["settle"],
            timeouts=run["timeouts"],
            delivery=Path(run["delivery"]) if is_delivered else None,
            has_events=run["display"] == "events",
        )

    def timeout(self, phase: Phase) -> float:
        """Return the seconds that the host allows for a phase."""
        return self.timeouts[Phase.RECOVER.word if phase is Phase.HALT else phase.word]

    @property
    def limits(self) -> Limits:
        """The time limits for judging containers."""
        return Limits(self.settle, self.timeouts["verify"], self.timeouts["run"], self.timeouts["recover"])

    @property
    def phase_limits(self) -> dict[Phase, float]:
        """The seconds after which each phase is ended.  Verify may take as long as health checks need."""
        return {phase: self.timeouts["run"] if phase is Phase.VERIFY else self.timeout(phase) for phase in self.phases}
