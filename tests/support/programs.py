"""Folders of programs, for hosts that lack one."""

import os
from pathlib import Path

DIRECTORIES = (Path("/usr/sbin"), Path("/usr/bin"), Path("/bin"))


def link_programs(folder: Path, *, without: str, directories: tuple[Path, ...] = DIRECTORIES) -> Path:
    """Make a folder with the programs of this machine, those apart whose names begin with `without`."""
    folder.mkdir()
    for directory in directories:
        for program in directory.iterdir():
            link = folder / program.name
            # Not `exists`: a link whose target is missing is there too, as /usr/bin/X11 can be.
            if not program.name.startswith(without) and not os.path.lexists(link):
                link.symlink_to(program)
    return folder
