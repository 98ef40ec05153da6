"""Which database each file of tests/e2e has, by a written rule.

PostgreSQL, where clients or runs compete, where lists, constraints, and errors of the database are the matter, and
where a notification has to arrive: what differs between the two engines.  SQLite, where a server has its database to
itself, where its data directory is the matter, and where the database is asked for little.  `--both` runs what is
assigned to one of them on each of the two.
"""

from pathlib import PurePath

SQLITE, POSTGRESQL, OWN = "sqlite", "postgresql", "the tests choose it themselves"

ASSIGNED = {
    "test_cancel.py": POSTGRESQL,  # a cancellation and a claim compete
    "test_cases.py": SQLITE,  # what Compose does with files
    "test_copy.py": OWN,
    "test_deploy.py": POSTGRESQL,  # the way of every run, with its log and its lists
    "test_errors.py": POSTGRESQL,  # constraints, and what the driver says of them
    "test_failures.py": POSTGRESQL,  # each end of a run is a compare-and-set
    "test_full_disk.py": SQLITE,  # the disk of the data directory
    "test_host_keys.py": POSTGRESQL,  # runs that meet a host at the same time
    "test_leftovers.py": SQLITE,  # files of the data directory
    "test_live.py": POSTGRESQL,  # notifications arrive from other connections
    "test_many.py": POSTGRESQL,  # many runs and many clients
    "test_mistakes.py": SQLITE,  # a new user has SQLite
    "test_pairs.py": SQLITE,  # what Compose does with files
    "test_points.py": OWN,
    "test_postgresql.py": OWN,
    "test_proxy.py": OWN,
    "test_registry.py": SQLITE,  # what the host pulls
    "test_restart.py": SQLITE,  # half of it is said of a server that has its database to itself
    "test_rotation.py": OWN,
    "test_secrets.py": SQLITE,  # what the data directory shows, with the database in it
    "test_ssh_keys.py": SQLITE,  # keys in memory and on the host
    "test_start.py": SQLITE,  # how a data directory is refused
    "test_tokens.py": POSTGRESQL,  # a command and a server change one table
    "test_warm.py": SQLITE,  # how Ansible is started
    "test_workers.py": OWN,
}


def of_file(path: PurePath) -> str:
    """The database of a file's servers, by default and for other folders SQLite."""
    assigned = ASSIGNED.get(path.name, SQLITE) if path.parent.name == "e2e" else SQLITE
    return SQLITE if assigned == OWN else assigned


def for_both(path: PurePath) -> list[str]:
    """The databases of a file's servers with `--both`."""
    return [of_file(path)] if ASSIGNED.get(path.name, OWN) == OWN else [SQLITE, POSTGRESQL]
