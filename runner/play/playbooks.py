"""Decides which playbook is played: one of ours, or an operator's in its place.

An operator's directory has a deploy.yml and may have a down.yml; each contains our task once, among others.  halt.yml
and recover.yml are always ours, because their results decide how a run ended.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from runner.play.event import TASK

ACTIONS: Mapping[str, str] = {"deploy.yml": "up", "down.yml": "down"}  # of our task, in an operator's playbooks


class BadPlaybooks(Exception):
    """The operator's directory of playbooks is not valid; the text says what to do."""


def locate(playbook: str, own: Path | None) -> str:
    """Return the path of the operator's playbook of that name in the directory `own`; without one, the name of ours."""
    if own is not None and playbook in ACTIONS and (own / playbook).is_file():
        return str(own / playbook)
    return playbook


def check(own: Path, ours: Path) -> None:
    """Check an operator's directory of playbooks, `own`; the messages refer to our own in `ours` as examples.

    Raises: BadPlaybooks, if it has no deploy.yml, or a playbook that does not contain our task exactly once.
    """
    if not own.is_dir():
        raise BadPlaybooks(f"{own} is not a directory; create it, with a deploy.yml in it, or unset the setting")
    if not (own / "deploy.yml").is_file():
        raise BadPlaybooks(f"there is no deploy.yml in {own}; copy {ours / 'deploy.yml'} there, and add your tasks")
    for name, action in ACTIONS.items():
        path = own / name
        if path.is_file():
            _check_task(path, action, ours / name)


def _check_task(path: Path, action: str, ours: Path) -> None:
    try:
        actions = list(_actions(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadPlaybooks(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if actions != [action]:
        found = f"has the actions {', '.join(actions)}" if actions else "does not contain it"
        wanted = f"the task {TASK} with the action {action} exactly once"
        raise BadPlaybooks(f"{path} must contain {wanted}, and {found}; take it from {ours}")


def _actions(node: yaml.Node | None) -> Iterator[str]:
    """Yield the action of each of our tasks below a node.  Tags that need Ansible are ignored: `!vault`, `!unsafe`."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _actions(item)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == TASK:
                yield _action(value)
            else:
                yield from _actions(value)


def _action(arguments: yaml.Node) -> str:
    entries = arguments.value if isinstance(arguments, yaml.MappingNode) else []
    return next((str(value.value) for key, value in entries if key.value == "action"), "(none)")
