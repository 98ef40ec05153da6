"""Generated pairs of packages: what runs is what is described, and what the change does not touch is left alone.

scripts/pairs plays others for as long as one likes.
"""

from pathlib import Path

import pytest

from tests.e2e.conftest import Connect, NewSite
from tests.support.compose_versions import COMPOSES
from tests.support.docker import Docker
from tests.support.pairs import play_pair

FEW, MANY = 3, 45


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        everything = metafunc.config.getoption("all")
        ways = [(seed, COMPOSES[seed // 2 % 2 if everything else 0]) for seed in range(MANY if everything else FEW)]
        metafunc.parametrize(("seed", "compose"), ways, ids=[f"{seed}:{compose}" for seed, compose in ways])


@pytest.mark.usefixtures("hello")
async def test_what_runs_is_what_is_described(
    seed: int, compose: str, new_site: NewSite, connect: Connect, docker: Docker, tmp_path: Path
) -> None:
    site = new_site(compose, {})
    wrong = await play_pair(seed, site, connect(site.server), docker, tmp_path)
    assert wrong is None, wrong
