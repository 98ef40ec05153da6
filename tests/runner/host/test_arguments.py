"""What a task is given fits its declaration, which is what operators read."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from db.phase import Phase
from runner.host.answers import Limits
from runner.host.arguments import SPEC, Arguments
from runner.spec.run import Timeouts

LIBRARY = Path(__file__).parents[3] / "ansible/library"


def validate(**given: Any) -> dict[str, Any]:
    found = ArgumentSpecValidator(SPEC).validate(given)
    assert found.error_messages == []
    return dict(found.validated_parameters)


def test_by_hand_a_project_and_a_delivery_are_enough() -> None:
    read = Arguments.read(validate(action="up", run={"project": "shop", "delivery": "/delivery"}))
    usual = asdict(Timeouts())
    del usual["connect"]
    assert read == Arguments(
        phases=(Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP, Phase.VERIFY),
        project="shop",
        id="by-hand",
        deployment="by-hand",
        installation="by-hand",
        rivals=(),
        settle=2.0,
        timeouts=usual,
        delivery=Path("/delivery"),
    )


def test_what_goes_up_has_to_be_delivered() -> None:
    with pytest.raises(ValueError, match=r"^missing required arguments: delivery found in run, for action up$"):
        Arguments.read(validate(action="up", run={"project": "shop"}))
    assert Arguments.read(validate(action="down", run={"project": "shop", "delivery": "/x"})).delivery is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"run": {"project": "shop"}}, "missing required arguments: action"),
        ({"action": "up"}, "missing required arguments: run"),
        ({"action": "sideways", "run": {"project": "x"}}, "value of action must be one of: up, down, halt, recover"),
        ({"action": "down", "run": {}}, "missing required arguments: project found in run"),
        ({"action": "down", "run": "shop"}, "dictionary requested, could not parse"),
        ({"action": "down", "run": {"project": "shop", "colour": "red"}}, "run.colour. Supported parameters include"),
        ({"action": "down", "run": {"project": "shop", "timeouts": {"down": "soon"}}}, "argument 'down' is of type"),
        ({"action": "down", "phases": ["down"], "run": {"project": "shop"}}, "phases. Supported parameters include"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(given: dict[str, Any], words: str) -> None:
    assert words in ArgumentSpecValidator(SPEC).validate(given).error_messages[0]


def test_the_phases_have_their_times() -> None:
    timeouts = {"prepare": 1, "build": 2, "pull": 3, "up": 4, "verify": 5, "down": 6, "recover": 7, "run": 8}
    run = {"project": "shop", "delivery": "/x", "settle": 0.5, "timeouts": timeouts}
    up, halt = (Arguments.read(validate(action=action, run=run)) for action in ("up", "halt"))
    assert list(up.phase_limits.values()) == [1, 2, 3, 4, 8]
    assert [up.timeout(phase) for phase in up.phases] == [1, 2, 3, 4, 5]
    assert halt.phase_limits == {Phase.HALT: 7}
    assert up.limits == Limits(settle=0.5, verify=5, run=8, recovery=7)


def test_the_documentation_declares_the_same() -> None:
    ansible_doc = Path(sys.executable).with_name("ansible-doc")
    command = [str(ansible_doc), "--json", "-M", str(LIBRARY), "-t", "module", "compose_project"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    assert declared(json.loads(shown.stdout)["compose_project"]["doc"]["options"]) == declared(SPEC)


def declared(options: dict[str, Any]) -> dict[str, Any]:
    """What of the options is validated."""
    found = {}
    for name, option in options.items():
        kept = {key: option.get(key) for key in ("type", "elements", "choices", "default")}
        kept["required"] = bool(option.get("required"))
        found[name] = kept | {"options": declared(option.get("suboptions") or option.get("options") or {})}
    return found
