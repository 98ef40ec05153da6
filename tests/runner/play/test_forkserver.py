"""The warm process itself: what it has loaded, and what makes it refuse a play.  Its plays are in test_warm.py."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.play.play import environment, project_directory


@pytest.mark.parametrize("name", ["ansible.cfg", "action_plugins/compose_project.py", "files/compose_project/main.sh"])
def test_a_file_that_has_changed_since_it_was_loaded_is_noticed(name: str, tmp_path: Path) -> None:
    project = shutil.copytree(project_directory(), tmp_path / "project")
    (tmp_path / "tmp").mkdir()
    script = """
import os, sys
from pathlib import Path
from runner.play.forkserver import Image
image = Image(Path(sys.argv[1]))
assert image.difference(os.environ) is None
with open(sys.argv[2], "a") as file:
    file.write("# another line")
print(image.difference(os.environ))
os.remove(sys.argv[2])
print(image.difference(os.environ))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(project), str(project / name)],
        env={**environment(tmp_path, "image", {}), "ANSIBLE_CONFIG": str(project / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == f"{project / name} has changed\n" * 2, ended.stderr
