"""Node.js, for the scripts in tests/node and the packages of their lock file."""

import asyncio
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "node"
TIMEOUT = 40.0  # seconds for one script


@dataclass(frozen=True)
class Node:
    """The interpreter at `path`."""

    path: Path

    async def run(self, script: str, *arguments: str, given: object = None) -> Any:
        """What a script of tests/node prints.  It prints JSON, and reads `given` as JSON."""
        process = await asyncio.create_subprocess_exec(
            self.path, SCRIPTS / script, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate(json.dumps(given).encode())
        assert process.returncode == 0
        return json.loads(output)


def why_missing() -> str | None:
    """Why no script can be run here, None when one can."""
    return None if shutil.which("node") and shutil.which("npm") else "there is no node with npm (Debian: nodejs npm)"


def make_node() -> Node:
    """Node.js, with the packages installed anew where the lock file is not the one they came from."""
    path, npm = shutil.which("node"), shutil.which("npm")
    assert path is not None
    assert npm is not None
    lock, installed = SCRIPTS / "package-lock.json", SCRIPTS / "node_modules" / ".of"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        subprocess.run([npm, "ci", "--no-progress", "--loglevel=error"], cwd=SCRIPTS, check=True)
        shutil.copy(lock, installed)
    return Node(Path(path))
