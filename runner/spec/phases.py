"""What daos knows about each phase: when it is played, what the log says as it begins, and how far a run is then.

Its time limit is in `runner.spec.run.Timeouts`.
"""

from collections.abc import Mapping

from db.models import RunAction
from db.phase import Phase
from runner.host.arguments import PHASES

OF_ACTION: Mapping[RunAction, tuple[Phase, ...]] = {
    RunAction.UP: PHASES["up"],
    RunAction.DOWN: PHASES["down"],
}

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
    """The progress of a run, 0 to 1, when `fraction` of the phase is done; None for phases that add nothing to it."""
    if phase not in _PROGRESS:
        return None
    begin, end = _PROGRESS[phase]
    return begin + (end - begin) * min(max(fraction, 0.0), 1.0)
