"""Searches for secrets where they must not be: in files, processes, and texts, in plain text and in base64."""

import base64
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Watched = tuple[str, str]  # a file of /proc, and what was in it


def parts(text: str) -> list[str]:
    """What a private key can be known by: its lines of base64, without the first one, which all of its kind share."""
    return [line for line in text.splitlines()[2:-1] if len(line) > 16]


def forms(needle: str) -> set[bytes]:
    """`needle` as it is, and as any text with it in it looks in base64, of both alphabets."""
    plain = needle.encode()
    found = {plain}
    for before in range(3):
        encode = base64.b64encode, base64.urlsafe_b64encode
        first, last = -(-before * 8 // 6), (before + len(plain)) * 8 // 6  # the signs that nothing else is part of
        found |= {code(b"-" * before + plain)[first:last] for code in encode}
    return found


def holding(data: bytes, needles: Iterable[str]) -> set[str]:
    """Those of `needles` that are in `data` in any form."""
    return {needle for needle in needles if any(form in data for form in forms(needle))}


def files_below(*roots: Path) -> Iterator[Path]:
    """All files in `roots`, and those of them that are files; without what goes away meanwhile."""
    for root in roots:
        found = [root, *(Path(directory, name) for directory, _, names in os.walk(root) for name in names)]
        yield from (path for path in found if path.is_file())


def leaking(files: Iterable[Path], needles: Iterable[str]) -> dict[Path, set[str]]:
    """Which of `files` have which of `needles` in them, in any form."""
    found = {}
    wanted = list(needles)
    for path in files:
        with suppress(OSError):
            if held := holding(path.read_bytes(), wanted):
                found[path] = held
    return found


@contextmanager
def watching(*needles: str) -> Iterator[set[Watched]]:
    """What one of `needles` is in of the command lines and environments of all processes while the block runs.

    Environments of containers are left out: what they are given is for them.
    """
    wanted = [form for needle in needles for form in forms(needle)]
    ours = Path("/proc/self/ns/pid").readlink()
    found: set[Watched] = set()
    stop = threading.Event()

    def look() -> None:
        clean: set[bytes] = set()
        while not stop.wait(0.02):
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with suppress(OSError):
                        said = (process / name).read_bytes()
                        if said in clean:
                            continue
                        if not any(form in said for form in wanted):
                            clean.add(said)
                        elif name == "cmdline" or (process / "ns" / "pid").readlink() == ours:
                            found.add((name, said.replace(b"\0", b" ").decode(errors="replace")))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
