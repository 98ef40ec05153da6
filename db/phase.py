"""The phases of a run, with the same names in the playbooks' reports, the log, the database, and the API.

Standard library only: Ansible's own process imports this module too.
"""

from enum import StrEnum


class Phase(StrEnum):
    """A part of a run, with a time limit of its own."""

    PREPARE = "PREPARE"
    BUILD = "BUILD"
    PULL = "PULL"
    UP = "UP"
    VERIFY = "VERIFY"
    DOWN = "DOWN"
    HALT = "HALT"  # ends whatever of an interrupted run is still running on the host
    RECOVER = "RECOVER"  # does the same, and determines how the run would have ended

    @property
    def label(self) -> str:
        """The name of the phase in a sentence: "Prepare"."""
        return self.value.capitalize()

    @property
    def word(self) -> str:
        """The name of the phase in the script on the host and in the files that the script writes: "prepare"."""
        return self.value.lower()


OF_UP = (Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY)  # in their order
OF_DOWN = (Phase.DOWN,)


class PhaseOutcome(StrEnum):
    """How a phase ended."""

    OK = "OK"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # it had nothing to do, or the run ended before it
