"""Provides a stored private key to ssh as a file that is in no directory.

The key is in anonymous memory of this process, which ssh, running as the same user, opens by its name in /proc.  A file
in the run's directory would have to be removed, and a process that is killed removes nothing; the kernel frees this
memory when the process that holds it ends, however it ends.  An agent would be another process to end, and every client
of its socket could log in.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db.encryption import Secret

NAME = "daos-ssh-key"  # in /proc/PID/fd it is `/memfd:daos-ssh-key (deleted)`


@contextmanager
def shown(key: Secret | None) -> Iterator[Path | None]:
    """Yield the path at which ssh finds the key during the block; None if there is no key."""
    if key is None:
        yield None
        return
    descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o400)  # its mode is 0777 at first, and ssh refuses a key that others can read
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(key.reveal().encode())
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
