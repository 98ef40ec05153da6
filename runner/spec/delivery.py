"""Makes a delivery from a directory, for a run by hand: `python -m runner.spec.delivery DIRECTORY > delivery`.

The delivery of a run on the server is made from the database, see `runner.spec.run.delivery`.
"""

import argparse
import sys
from pathlib import Path

from runner.compose.file import reads_outside
from runner.host.content import ENV_FILE
from runner.host.delivery import COMPOSE_FILE, pack
from runner.spec.run import ProjectFile


def of_directory(directory: Path) -> bytes:
    """Return the delivery of all files below `directory`, with their modes.

    `.env` has the variables and may be missing.  Raises: ValueError, if there is no compose.yaml, or something that is
    neither a file nor a directory.
    """
    paths = (path for path in sorted(directory.rglob("*")) if path.is_symlink() or not path.is_dir())
    files = {str(path.relative_to(directory)): _file(path) for path in paths}
    if COMPOSE_FILE not in files:
        raise ValueError(f"there is no {COMPOSE_FILE} in {directory}")
    files.setdefault(ENV_FILE, ProjectFile(b"", mode=0o600))
    others = {path: file.data for path, file in files.items() if path not in {COMPOSE_FILE, ENV_FILE}}
    outside = reads_outside(files[COMPOSE_FILE].data.decode(errors="replace"), others)
    return pack(files, _variables(files[ENV_FILE].data), outside=outside)


def _file(path: Path) -> ProjectFile:
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    return ProjectFile(path.read_bytes(), mode=path.stat().st_mode & 0o777)


def _variables(dotenv: bytes) -> dict[str, bytes]:
    """Return the variables with their values as written, which is enough to detect a change."""
    lines = [line.strip().removeprefix(b"export ") for line in dotenv.splitlines()]
    pairs = (line.partition(b"=") for line in lines if b"=" in line and not line.startswith(b"#"))
    return {name.strip().decode(errors="replace"): value.strip().strip(b"\"'") for name, _, value in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m runner.spec.delivery", description="Prints a delivery.")
    parser.add_argument("directory", type=Path, help="with compose.yaml and the other files of a package")
    try:
        delivery = of_directory(parser.parse_args().directory)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(delivery)


if __name__ == "__main__":
    main()
