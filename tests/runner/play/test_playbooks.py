"""An operator's own playbooks: what is refused at start, and that they are played with what is beside them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from db.phase import Phase
from runner.play.event import Event, Kind
from runner.play.launcher import Starter
from runner.play.play import Process, project_directory
from runner.play.playbooks import BadPlaybooks, check, locate
from tests.runner import plays
from tests.support.docker import Docker

OURS = project_directory()
TASK = """
- name: Deploy
  hosts: all
  gather_facts: false
  tasks:
    - name: Deploy
      compose_project:
        action: up
        run: "{{ daos }}"
"""


def write(directory: Path, **playbooks: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in playbooks.items():
        (directory / f"{name}.yml").write_text(text)
    return directory


@pytest.mark.parametrize(
    "playbooks",
    [
        {"deploy": TASK},
        {"deploy": (OURS / "deploy.yml").read_text(), "down": (OURS / "down.yml").read_text()},
        {"deploy": TASK.replace("  tasks:", "  vars: {key: !vault x, text: !unsafe '{{'}\n  tasks:")},
        {"deploy": TASK.replace("    - name: Deploy\n", "    - name: Deploy\n      tags: [compose_project]\n")},
    ],
)
def test_playbooks_with_our_task_can_be_played(tmp_path: Path, playbooks: dict[str, str]) -> None:
    check(write(tmp_path / "own", **playbooks), OURS)


@pytest.mark.parametrize(
    ("playbooks", "words"),
    [
        ({}, "there is no deploy.yml in {}; copy "),
        ({"deploy": "- hosts: all\n"}, "{}/deploy.yml must contain the task compose_project with the action up "),
        ({"deploy": "# compose_project: \n"}, "and does not contain it; take it from "),
        ({"deploy": TASK + TASK}, "exactly once, and has the actions up, up; take it from "),
        ({"deploy": TASK.replace("up", "down")}, "with the action up exactly once, and has the actions down;"),
        ({"deploy": TASK, "down": TASK}, "{}/down.yml must contain the task compose_project with the action down"),
        ({"deploy": "- ["}, "{}/deploy.yml cannot be read: while parsing"),
    ],
)
def test_what_cannot_be_played_is_refused_with_what_to_do(
    tmp_path: Path, playbooks: dict[str, str], words: str
) -> None:
    own = write(tmp_path / "own", **playbooks)
    with pytest.raises(BadPlaybooks) as refused:
        check(own, OURS)
    assert words.format(own) in str(refused.value)


def test_a_directory_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPlaybooks, match=r"not a directory; create it, with a deploy\.yml in it"):
        check(tmp_path / "missing", OURS)


def test_the_operators_playbook_is_played_in_place_of_ours(tmp_path: Path) -> None:
    own = write(tmp_path / "own", deploy=TASK, halt=TASK, recover=TASK)
    assert locate("deploy.yml", own) == str(own / "deploy.yml")
    assert [locate(name, own) for name in ("down.yml", "halt.yml", "recover.yml")] == [
        "down.yml",
        "halt.yml",
        "recover.yml",
    ]
    assert locate("deploy.yml", None) == "deploy.yml"


OWN = """
- name: Deploy
  hosts: all
  gather_facts: false
  vars_files: [vars/words.yml]
  roles: [before]
  tasks:
    - name: Ask
      compose_project:
        action: halt
        run: "{{ daos }}"
      register: found
  post_tasks:
    - name: Show
      ansible.builtin.debug:
        msg: "{{ words | shouted }} {{ found.containers | length }} {{ lookup('file', 'note') }}"
    - name: Module
      own_module:
    - name: Forgive
      ansible.builtin.raw: "echo oh; exit 3"
      ignore_errors: true
    - name: Fail
      ansible.builtin.raw: "echo no way; exit 3"
      when: is_broken | bool
"""
BESIDE = {
    "vars/words.yml": "words: hello\n",
    "files/note": "a note",
    "roles/before/tasks/main.yml": """
- name: Announce
  ansible.builtin.raw: "echo {{ lookup('file', 'sign') }}"
""",
    "roles/before/files/sign": "a sign",
    "filter_plugins/shouted.py": """
class FilterModule:
    def filters(self):
        return {"shouted": str.upper}
""",
    "library/own_module.py": """
from ansible.module_utils.basic import AnsibleModule
AnsibleModule({}).exit_json(msg="a module")
""",
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory of playbooks with what Ansible finds beside them."""
    own = write(tmp_path / "own", deploy=OWN)
    for name, text in BESIDE.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(text)
    return own


ARGUMENTS = {"project": "daos-test-of-nobody", "display": "events"}


async def play(start: Starter, directory: Path, playbook: str, cookie: str) -> list[Event]:
    process = await start(plays.request_of(directory, playbook, cookie))
    try:
        return [event async for event in process.events()]
    finally:
        await process.stop()


EXPECTED = [
    (Kind.TASK, "Announce", []),
    (Kind.LINES, "Announce", ["Announce: a sign"]),
    (Kind.OK, "Announce", []),
    (Kind.PHASE, Phase.HALT, []),
    (Kind.OK, Phase.HALT, []),
    (Kind.TASK, "Show", []),
    (Kind.LINES, "Show", ["Show: HELLO 0 a note"]),
    (Kind.OK, "Show", []),
    (Kind.TASK, "Module", []),
    (Kind.LINES, "Module", ["Module: a module"]),
    (Kind.OK, "Module", []),
    (Kind.TASK, "Forgive", []),
    (Kind.LINES, "Forgive", ["Forgive: oh", "Forgive: non-zero return code"]),
    (Kind.TASK, "Fail", []),
    (Kind.END, None, []),
]


@asynccontextmanager
async def starter(way: str, root: Path, cookie: str) -> AsyncIterator[Starter]:
    """One way to start a play."""
    if way == "cold":
        yield Process.start
        return
    async with plays.warmed(root, cookie) as warm:
        yield warm.start


@pytest.mark.parametrize("way", ["cold", "warm"])
async def test_an_operators_playbook_is_played_with_what_is_beside_it(
    way: str, docker: Docker, tmp_path: Path, own: Path, cookie: str
) -> None:
    directory = plays.make_directory(tmp_path / "run", daos=ARGUMENTS, is_broken=False)
    async with starter(way, tmp_path / "kept", cookie) as start:
        events = await play(start, directory, locate("deploy.yml", own), cookie)
    assert [(event.kind, event.task or event.phase, event.lines) for event in events] == EXPECTED
    assert events[-1].rc == 0


@pytest.mark.parametrize("way", ["cold", "warm"])
async def test_a_task_of_the_operators_that_fails_is_named(
    way: str, docker: Docker, tmp_path: Path, own: Path, cookie: str
) -> None:
    directory = plays.make_directory(tmp_path / "run", daos=ARGUMENTS, is_broken=True)
    async with starter(way, tmp_path / "kept", cookie) as start:
        events = await play(start, directory, locate("deploy.yml", own), cookie)
    assert events[-3:] == [
        Event(Kind.LINES, task="Fail", lines=["Fail: no way"], is_warning=True),
        Event(Kind.FAILED, task="Fail", message="non-zero return code"),
        Event(Kind.END, rc=2),
    ]


@pytest.mark.parametrize("way", ["cold", "warm"])
async def test_what_is_beside_the_operators_playbook_is_not_there_for_ours(
    way: str, docker: Docker, tmp_path: Path, own: Path, cookie: str
) -> None:
    (own / "action_plugins").mkdir()
    (own / "action_plugins/compose_project.py").write_text("raise Exception('not ours')")
    directory = plays.make_directory(tmp_path / "run", daos=ARGUMENTS)
    async with starter(way, tmp_path / "kept", cookie) as start:
        events = await play(start, directory, locate("halt.yml", own), cookie)
    assert [event.phase for event in events if event.kind is Kind.OK] == [Phase.HALT]
