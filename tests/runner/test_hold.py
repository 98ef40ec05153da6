"""A worker's hold on a run."""

from db.models import Run
from runner.hold import Hold
from runner.interruption import Interruption
from runner.tenure import Tenure


async def test_the_first_interruption_counts() -> None:
    hold = Hold(Run(), Tenure("worker-1"))
    assert hold.interruption is None
    hold.interrupt(Interruption.STOPPED)
    hold.interrupt(Interruption.CANCELED)
    assert hold.interruption is Interruption.STOPPED
    assert await hold.interrupted is Interruption.STOPPED


async def test_without_a_play_there_is_no_deadline_to_move() -> None:
    Hold(Run(), Tenure("worker-1")).extend(5.0)
