"""A stored private key while ssh may need it: a file that is in no directory.

It is anonymous memory of this process, which ssh, having the same user, opens by its name in /proc.  A file in the
run's directory would have to be removed, and whoever is killed removes nothing; of this the kernel lets nothing stay
when the process that holds it ends, however it ends.  An agent would be one more process to end, and would let
whoever reaches its socket log in.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db.encryption import Secret

NAME = "daos-ssh-key"  # in /proc/PID/fd it is `/memfd:daos-ssh-key (deleted)`


@contextmanager
def shown(key: Secret | None) -> Iterator[Path | None]:
    """The path at which ssh finds the key in the block; None where there is none."""
    if key is None:
        yield None
        return
    descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o400)  # ssh refuses a key that others may read, and it begins with 0777
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(key.reveal().encode())
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
