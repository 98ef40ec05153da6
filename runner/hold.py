"""A worker's hold on a run: from the claim until the end is written, and how the attempt at it is interrupted."""

import asyncio

from db.models import Run
from runner.interruption import Interruption
from runner.play.play import Process
from runner.tenure import Tenure


class Hold:
    """A worker's hold on a run that it has claimed, by which the attempt at it is interrupted."""

    def __init__(self, run: Run, tenure: Tenure) -> None:
        self.run = run
        self.tenure = tenure
        self.interrupted: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()
        self._process: Process | None = None

    @property
    def interruption(self) -> Interruption | None:
        """The first one; None as long as there is none."""
        return self.interrupted.result() if self.interrupted.done() else None

    def interrupt(self, interruption: Interruption) -> None:
        """Cut the play off; nothing happens where that was done before."""
        if not self.interrupted.done():
            self.interrupted.set_result(interruption)

    def attach(self, process: Process | None) -> None:
        """Let `process` be the play whose deadline `extend` moves; None when there is none any more."""
        self._process = process

    def extend(self, deadline: float) -> None:
        """Let the play continue until `deadline`, see `Tenure.deadline`."""
        if self._process is not None:
            self._process.extend(deadline)
