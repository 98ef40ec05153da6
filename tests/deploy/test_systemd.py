"""The units of systemd: valid, and as tight as runs allow."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from daos.settings import Settings
from tests.deploy.units import AFTER_GRACE, UNITS, directives
from tests.support.requirement import find_program, require

COMMAND = "/srv/daos/env/bin/daos"
MOST_EXPOSED = 4.0  # of ten; systemd calls up to 4 "OK"


@pytest.fixture
def systemd_analyze() -> Path:
    found = find_program("systemd-analyze")
    require("systemd", None if found else "there is no systemd-analyze (Debian: systemd)")
    assert found is not None
    return found


@pytest.fixture(params=UNITS, ids=lambda unit: unit.stem)
def unit(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def installed(unit: Path, tmp_path: Path) -> Path:
    """The unit with a command that is there."""
    text = unit.read_text()
    assert COMMAND in text
    copy = tmp_path / unit.name
    copy.write_text(text.replace(COMMAND, sys.executable))
    return copy


def test_there_is_one_for_each_kind_of_node() -> None:
    commands = {unit.stem: directives(unit)["ExecStart"] for unit in UNITS}
    assert commands == {"daos": [f"{COMMAND} serve"], "daos-worker": [f"{COMMAND} worker"]}


def test_a_unit_is_valid(installed: Path, systemd_analyze: Path) -> None:
    verified = subprocess.run([systemd_analyze, "verify", installed], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_a_unit_exposes_little(installed: Path, systemd_analyze: Path) -> None:
    command = [str(systemd_analyze), "security", "--offline=true", "--no-pager", str(installed)]
    rated = subprocess.run(command, capture_output=True, text=True, check=True)
    [level] = re.findall(r"exposure level for \S+: ([\d.]+)", rated.stdout)
    assert float(level) < MOST_EXPOSED


def test_a_stopped_node_has_time_to_end_its_runs(unit: Path) -> None:
    found = directives(unit)
    assert found["KillMode"] == ["mixed"]  # SIGTERM for the runs too would end them without their grace
    assert int(found["TimeoutStopSec"][0]) > Settings().shutdown_grace + AFTER_GRACE


def test_a_node_gets_the_keys_that_are_handed_to_it(unit: Path) -> None:
    found = directives(unit)
    [(name, _)] = [credential.split(":") for credential in found["LoadCredential"]]
    assert f"DAOS_SECRET_KEY_FILE=%d/{name}" in found["Environment"]


def test_a_node_has_a_data_directory_of_its_own(unit: Path) -> None:
    found = directives(unit)
    assert f"DAOS_DATA_DIR=/var/lib/{unit.stem}" in found["Environment"]
    assert unit.stem in found["StateDirectory"][0].split()
    assert found["StateDirectoryMode"] == ["0700"]
