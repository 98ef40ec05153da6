"""A private key is there for ssh in the block, and nowhere afterwards, however the block ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resolvers import private_keys
from runner.ssh.key_in_memory import shown
from tests.runner.plays import wait_for
from tests.support.keys import holders

KEY = private_keys.generate()

HOLDER = """
import subprocess, sys
from db.encryption import Secret
from runner.ssh.key_in_memory import shown
with shown(Secret(sys.argv[1])) as path:
    child = subprocess.Popen(["sleep", "100"])
    print(path, child.pid, flush=True)
    sys.stdin.read()
"""


def test_ssh_reads_the_key_in_the_block() -> None:
    with shown(KEY.text) as path:
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o400
        command = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
        for _ in range(2):  # each reader has its own place in the file
            assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == KEY.public


def test_afterwards_it_is_gone() -> None:
    with pytest.raises(ZeroDivisionError), shown(KEY.text) as path:
        raise ZeroDivisionError
    assert path is not None
    assert not path.exists()
    assert holders(KEY.text.reveal()) == []


def test_without_a_key_there_is_nothing_to_show() -> None:
    with shown(None) as path:
        assert path is None


def test_nobody_has_it_when_its_holder_is_killed() -> None:
    text = private_keys.generate().text.reveal()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        path, child = holder.stdout.readline().split()
        try:
            wait_for(Path(path))
            assert holders(text) == [str(holder.pid)]
            holder.kill()
            holder.wait()
            assert not Path(path).exists()
            assert holders(text) == []
        finally:
            os.kill(int(child), signal.SIGKILL)
