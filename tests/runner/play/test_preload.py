"""Two forks of the loaded Ansible share nothing that they would not share as programs."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from runner.play.play import environment

LOAD = """
import json, os, sys, tempfile
from pathlib import Path
from runner.play.program import configuration
from ansible_runner.utils import get_callback_dir

os.environ["ANSIBLE_STDOUT_CALLBACK"] = "awx_display"
os.environ["ANSIBLE_CALLBACK_PLUGINS"] = get_callback_dir()
from runner.play import posix, preload
from runner.play.play import project_directory
project = project_directory()
preload.load(project)
inventory = Path(sys.argv[1], "inventory.json")
inventory.write_text('{"all": {"hosts": {"here": {"ansible_connection": "local", "daos": {}}}}}')
preload.rehearse(["-i", str(inventory), "none.yml"], sorted(project.glob("*.yml")))
from ansible import constants
from ansible.utils.display import Display
from ansible.utils.vars import get_unique_id
get_unique_id()
tempfile.gettempdir()

def in_fork(name, tell):
    "What `tell` gives in a fork for the play `name`."
    directory = Path(sys.argv[1], name)
    (directory / "tmp").mkdir(parents=True)
    reading, writing = os.pipe()
    if os.fork() == 0:
        changed = {variable: str(directory / place) for variable, place in {
            "ANSIBLE_HOME": "home", "ANSIBLE_LOCAL_TEMP": "tmp", "TMPDIR": "tmp", "AWX_ISOLATED_DATA_DIR": "events"
        }.items()}
        posix.renew({**os.environ, **changed})
        preload.renew()
        with os.fdopen(writing, "w") as out:
            json.dump(tell(), out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        return json.load(told)

def compare(tell):
    print(json.dumps([in_fork("one", tell), in_fork("two", tell)]))
"""


def forks(tmp_path: Path, script: str) -> Any:
    """What the script prints, after Ansible was loaded as the warm process loads it."""
    variables = environment(tmp_path, "image", {})
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-c", LOAD + textwrap.dedent(script), str(tmp_path)]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_ids_of_two_plays_differ(tmp_path: Path) -> None:
    one, two = forks(tmp_path, "compare(lambda: [get_unique_id(), get_unique_id()])")
    assert len({*one, *two}) == 4


@pytest.mark.parametrize("of", ["random.random()", "next(tempfile._get_candidate_names())", "str(uuid.uuid4())"])
def test_random_numbers_of_two_plays_differ(tmp_path: Path, of: str) -> None:
    one, two = forks(tmp_path, f"import random, uuid; random.random(); compare(lambda: {of})")
    assert one != two


def test_a_play_has_directories_of_its_own(tmp_path: Path) -> None:
    script = """
    from ansible.plugins.loader import callback_loader
    def tell():
        callback_loader.get("awx_display", class_only=True)
        events = sys.modules["ansible.plugins.callback.awx_display"].event_context.cache.private_data_dir
        return [constants.ANSIBLE_HOME, str(constants.DEFAULT_LOCAL_TMP), tempfile.gettempdir(), events]
    compare(tell)
    """
    one, two = forks(tmp_path, script)
    for name, told in (("one", one), ("two", two)):
        assert all(path.startswith(str(tmp_path / name)) for path in told), told


def test_loading_leaves_no_files(tmp_path: Path) -> None:
    assert forks(tmp_path, 'print(json.dumps(os.listdir(os.environ["ANSIBLE_LOCAL_TEMP"])))') == []


def test_what_loading_has_registered_for_its_end_is_not_done_at_the_end_of_a_play(tmp_path: Path) -> None:
    assert forks(tmp_path, "import atexit; print(json.dumps(atexit._ncallbacks()))") == 0


def test_a_play_says_what_loading_has_said_already(tmp_path: Path) -> None:
    script = """
    display = Display()
    display.warning("beware")
    def tell():
        sys.stderr = open(Path(tempfile.gettempdir(), "said"), "w")
        display.warning("beware")
        sys.stderr.close()
        return Path(tempfile.gettempdir(), "said").read_text()
    compare(tell)
    """
    assert forks(tmp_path, script) == ["[WARNING]: beware\n"] * 2


def test_the_streams_of_a_play_wait_for_the_lock_of_the_display(tmp_path: Path) -> None:
    # Without it, a worker could be forked while a thread writes, and wait for ever for the stream's own lock.
    script = """
    import threading
    def tell():
        writing = threading.Thread(target=lambda: sys.stderr.buffer.write(b""))
        with Display()._lock:
            writing.start()
            writing.join(0.2)
            waited = writing.is_alive()
        writing.join()
        return waited
    compare(tell)
    """
    assert forks(tmp_path, script) == [True, True]


def test_what_was_loaded_is_not_read_again(tmp_path: Path) -> None:
    """Also the documentation of what has no settings, of which nothing is kept: the callback "oneline" and a cache."""
    script = """
    import yaml
    from ansible.plugins.loader import action_loader, cache_loader, callback_loader, connection_loader
    def tell():
        yaml.load = None
        plugins = (connection_loader, "ssh"), (callback_loader, "oneline"), (callback_loader, "awx_display"), (
            cache_loader, "memory"), (action_loader, "compose_project")
        return [loader.get(name, class_only=True).__name__ for loader, name in plugins]
    compare(tell)
    """
    assert (
        forks(tmp_path, script)
        == [["Connection", "CallbackModule", "CallbackModule", "CacheModule", "ActionModule"]] * 2
    )


def test_what_was_rehearsed_is_not_done_again(tmp_path: Path) -> None:
    """A pattern is not compiled, and the parser of the command line not made; what one play parses is its own."""
    script = """
    import argparse, re
    from ansible import context
    from ansible.cli.playbook import PlaybookCLI
    from ansible.vars.clean import clean_facts
    def tell():
        re._compiler = argparse.ArgumentParser = None
        clean_facts({"fact": 1})
        cli = PlaybookCLI(["ansible-playbook", "-i", os.environ["TMPDIR"] + ",", "play.yml"])
        before = len(context.CLIARGS)
        cli.parse()
        return [before, context.CLIARGS["inventory"], context.CLIARGS["args"]]
    compare(tell)
    """
    assert forks(tmp_path, script) == [[0, [f"{tmp_path / name / 'tmp'},"], ["play.yml"]] for name in ("one", "two")]


def test_rehearsing_says_nothing_and_leaves_nothing_to_run(tmp_path: Path) -> None:
    script = """
    import threading
    display = Display()
    said = [len(words) for words in (display._warns, display._deprecations, display._errors)]
    print(json.dumps([*said, threading.active_count(), len(os.listdir("/proc/self/task"))]))
    """
    assert forks(tmp_path, script) == [0, 0, 0, 1, 1]
