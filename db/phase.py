"""The parts of a run, by one name each in the playbooks' reports, the log, the database and the API.

Standard library only: Ansible's own process imports it too.
"""

from enum import StrEnum


class Phase(StrEnum):
    """A part of a run."""

    PREPARE = "PREPARE"
    BUILD = "BUILD"
    PULL = "PULL"
    UP = "UP"
    VERIFY = "VERIFY"
    DOWN = "DOWN"
    HALT = "HALT"  # ends what is left of the run on the host
    RECOVER = "RECOVER"  # the same, and judges how the run would have ended

    @property
    def label(self) -> str:
        """The name in a sentence: "Prepare"."""
        return self.value.capitalize()

    @property
    def word(self) -> str:
        """The name in the script on the host and in what it writes there: "prepare"."""
        return self.value.lower()


OF_UP = (Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY)  # in their order
OF_DOWN = (Phase.DOWN,)


class PhaseOutcome(StrEnum):
    """How a phase ended."""

    OK = "OK"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # it had nothing to do, or the run ended before
