"""When a missing piece skips a test and when it fails it."""

import pytest

from tests.support.requirement import require


@pytest.mark.parametrize("required", ["all", "docker", "sshd,docker"])
def test_a_required_piece_fails(monkeypatch: pytest.MonkeyPatch, required: str) -> None:
    monkeypatch.setenv("DAOS_TEST_REQUIRE", required)
    with pytest.raises(pytest.fail.Exception, match="docker is required: it is away"):
        require("docker", "it is away")


@pytest.mark.parametrize("required", ["", "sshd"])
def test_another_piece_skips(monkeypatch: pytest.MonkeyPatch, required: str) -> None:
    monkeypatch.setenv("DAOS_TEST_REQUIRE", required)
    with pytest.raises(pytest.skip.Exception, match="docker: it is away"):
        require("docker", "it is away")


def test_a_present_piece_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAOS_TEST_REQUIRE", "all")
    require("docker", None)
