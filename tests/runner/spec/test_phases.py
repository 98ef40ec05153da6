"""What the log says of phases, and the progress that they make."""

import itertools

import pytest

from db.models import RunAction
from db.phase import Phase
from db.run_phases import OF_ACTION
from runner.spec.phases import ANNOUNCEMENTS, progress


def test_each_phase_is_announced() -> None:
    assert set(ANNOUNCEMENTS) == set(Phase)


@pytest.mark.parametrize("action", RunAction)
def test_the_phases_of_an_action_lead_from_0_to_1_without_a_gap(action: RunAction) -> None:
    phases = OF_ACTION[action]
    assert (progress(phases[0], 0.0), progress(phases[-1], 1.0)) == (0.0, 1.0)
    assert all(progress(one, 1.0) == progress(other, 0.0) for one, other in itertools.pairwise(phases))


@pytest.mark.parametrize(("fraction", "expected"), [(-1.0, 0.3), (0.0, 0.3), (0.5, 0.4), (1.0, 0.5), (7.0, 0.5)])
def test_the_progress_is_that_of_the_part_that_is_done(fraction: float, expected: float) -> None:
    assert progress(Phase.PULL, fraction) == pytest.approx(expected)


@pytest.mark.parametrize("phase", [Phase.HALT, Phase.RECOVER])
def test_what_is_played_after_a_run_adds_nothing(phase: Phase) -> None:
    assert progress(phase, 0.5) is None
