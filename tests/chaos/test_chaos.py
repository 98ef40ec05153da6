"""A short time of trouble.  `scripts/chaos` makes it longer."""

from pathlib import Path

from tests.support import postgres, sshd
from tests.support.chaos.scenario import SHORT, staged
from tests.support.requirement import require

SEED = 5


async def test_all_that_is_promised_holds_after_trouble_of_every_kind(tmp_path: Path) -> None:
    require("sshd", sshd.why_missing())
    require("postgresql", postgres.why_missing())
    with staged(SHORT, SEED, tmp_path) as scene:
        report = await scene.play()
    print(report)
    assert report.faults == []
    assert all(report.counts.values())
