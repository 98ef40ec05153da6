"""Which tests go to one process together: those of a file, but each case and each pair of packages by itself."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, Scheduling

# Their tests share no more than a server, which each process starts for itself.
SPREAD = ("tests/e2e/test_cases.py", "tests/e2e/test_pairs.py")


def unit(node_id: str) -> str:
    """What a test is sent to a process with.

    For a test with a parameter in a file of SPREAD that is what is before the parameter's first colon, so that two
    processes do not wait for the same case.
    """
    file, _, test = node_id.partition("::")
    if file not in SPREAD or "[" not in test:
        return file
    return f"{file}::{test.partition(':')[0].rstrip(']')}"


class Spreading(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """`--dist loadfile`, with the units of this module."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """The scheduler for `--dist loadfile`; None for what pytest-xdist has itself."""
    return Spreading(config, log) if config.getoption("dist") == "loadfile" else None
