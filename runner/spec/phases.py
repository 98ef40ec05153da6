"""The log entry at the beginning of each phase, and the progress of a run by phase.

Which phases an action has is in `db.run_phases`, their time limits are in `runner.spec.run.Timeouts`.
"""

from collections.abc import Mapping

from db.phase import Phase

ANNOUNCEMENTS: Mapping[Phase, str] = {
    Phase.PREPARE: "Sending the project's files to the host.",
    Phase.BUILD: "Building the images of the package.",
    Phase.PULL: "Pulling the images that the host does not have.",
    Phase.UP: "Starting the containers.",
    Phase.VERIFY: "Waiting until the containers are healthy.",
    Phase.DOWN: "Removing the containers.",
    Phase.HALT: "Ending what is left of the run on the host.",
    Phase.RECOVER: "Asking the host how far the run had come.",
}

# The progress of a run when a phase begins and when it has ended, from 0 to 1.
_PROGRESS: Mapping[Phase, tuple[float, float]] = {
    Phase.PREPARE: (0.0, 0.1),
    Phase.BUILD: (0.1, 0.3),
    Phase.PULL: (0.3, 0.5),
    Phase.UP: (0.5, 0.8),
    Phase.VERIFY: (0.8, 1.0),
    Phase.DOWN: (0.0, 1.0),
}


def progress(phase: Phase, fraction: float) -> float | None:
    """Return a run's progress, from 0 to 1, when `fraction` of the phase is done; None if the phase does not count."""
    if phase not in _PROGRESS:
        return None
    begin, end = _PROGRESS[phase]
    return begin + (end - begin) * min(max(fraction, 0.0), 1.0)
