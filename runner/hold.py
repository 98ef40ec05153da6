"""A worker's hold on a run, from the claim until the end is stored, by which the attempt is interrupted."""

import asyncio

from db.models import Run
from runner.interruption import Interruption
from runner.play.play import Process
from runner.tenure import Tenure


class Hold:
    """A worker's hold on a run that it has claimed, by which the attempt is interrupted."""

    def __init__(self, run: Run, tenure: Tenure) -> None:
        self.run = run
        self.tenure = tenure
        self.interrupted: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()
        self._process: Process | None = None

    @property
    def interruption(self) -> Interruption | None:
        """The first interruption; None as long as there is none."""
        return self.interrupted.result() if self.interrupted.done() else None

    def interrupt(self, interruption: Interruption) -> None:
        """Interrupt the attempt; only the first interruption counts."""
        if not self.interrupted.done():
            self.interrupted.set_result(interruption)

    def attach(self, process: Process | None) -> None:
        """Set the play whose deadline `extend` moves; None when the play has ended."""
        self._process = process

    def extend(self, deadline: float) -> None:
        """Let the play continue until `deadline`, see `Tenure.deadline`."""
        if self._process is not None:
            self._process.extend(deadline)
