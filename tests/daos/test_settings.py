"""Settings: what is read, and what is refused."""

from dataclasses import fields

import pytest

from daos.settings import BadSetting, Settings, help_text, unknown_names, variable_name
from runner.spec.run import Timeouts
from schema.limits import Limits


def test_every_setting_is_in_the_help() -> None:
    text = help_text()
    assert [name for setting in fields(Settings) if (name := variable_name(setting.name)) not in text] == []


def test_time_limits_of_phases_are_settings() -> None:
    environment = {
        "DAOS_CONNECT_TIMEOUT": "1",
        "DAOS_BUILD_TIMEOUT": "2",
        "DAOS_PULL_TIMEOUT": "3",
        "DAOS_UP_TIMEOUT": "4",
        "DAOS_VERIFY_TIMEOUT": "5",
        "DAOS_DOWN_TIMEOUT": "6",
        "DAOS_RUN_TIMEOUT": "7",
    }
    assert Settings.read(environment).timeouts == Timeouts(connect=1, build=2, pull=3, up=4, verify=5, down=6, run=7)
    assert Settings().timeouts == Timeouts()


def test_limits_of_operations_are_settings() -> None:
    environment = {
        "DAOS_MAX_DEPTH": "1",
        "DAOS_MAX_ALIASES": "2",
        "DAOS_MAX_FIELDS": "3",
        "DAOS_MAX_COST": "4",
        "DAOS_MAX_TOKENS": "5",
        "DAOS_OPERATION_TIMEOUT": "0.5",
    }
    expected = Limits(depth=1, aliases=2, fields=3, cost=4, tokens=5, seconds=0.5)
    assert Settings.read(environment).limits == expected
    assert Settings().limits == Limits()


def test_limits_of_the_transport_are_settings() -> None:
    environment = {
        "DAOS_ALLOWED_HOSTS": "daos.example",
        "DAOS_ALLOWED_ORIGINS": "https://portal.example",
        "DAOS_MAX_BODY": "10",
        "DAOS_MAX_SUBSCRIPTIONS": "2",
    }
    transport = Settings.read(environment).transport
    assert (transport.allowed_hosts, transport.allowed_origins) == ("daos.example", "https://portal.example")
    assert (transport.body.size, transport.max_subscriptions) == (10, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DAOS_LOG_FORMAT", "xml"),
        ("DAOS_LOG_LEVEL", "loud"),
        ("DAOS_HOST_KEY_POLICY", "accept"),
        ("DAOS_ANSIBLE_VERBOSITY", "4"),
        ("DAOS_MAX_DEPTH", "0"),
        ("DAOS_MAX_BODY", "8 MiB"),
        ("DAOS_OPERATION_TIMEOUT", "nan"),
        ("DAOS_OPERATION_TIMEOUT", "inf"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=name):
        Settings.read({name: value})


def test_a_mistyped_setting_is_named_with_the_one_that_was_meant() -> None:
    environment = {"DAOS_MAXRUNS": "3", "DAOS_QUITE_ANOTHER": "", "DAOS_MAX_RUNS": "3", "DAOS_RUN": "x", "PATH": ""}
    assert unknown_names(environment) == [("DAOS_MAXRUNS", "DAOS_MAX_RUNS"), ("DAOS_QUITE_ANOTHER", None)]
