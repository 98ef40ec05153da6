"""What is packed for a host, and what is read of it."""

import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from runner.host.content import DeliveredFile
from runner.host.delivery import OVERRIDE_FILES, Delivery, archive, pack
from runner.spec.run import ProjectFile

ROOT = Path(__file__).parents[3]
FILES = {
    "compose.yaml": ProjectFile(b"services: {}"),
    "bin/start": ProjectFile(b"\0\xff\n\n", mode=0o755),
    "data/[a] (b).txt": ProjectFile("ü".encode()),
    "data/seed": ProjectFile(b"", mode=0o600, only_if_missing=True),
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def delivery(files: Mapping[str, ProjectFile] | None = None, values: Mapping[str, bytes] | None = None) -> Delivery:
    return Delivery.read(pack(FILES if files is None else files, values))


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, runner.host.delivery; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    first = {name.split(".")[0] for name in imported.stdout.split()}
    assert not first & {"db", "sqlalchemy", "yaml", "strawberry", "ansible"}


def test_a_delivery_is_read_as_it_was_packed() -> None:
    read = Delivery.read(pack(FILES, {"A": b"1"}, ["r.example pw me"], outside=True))
    assert read.files == {
        path: DeliveredFile(sha256(file.data), file.mode, file.only_if_missing) for path, file in FILES.items()
    }
    assert (read.values, read.logins, read.outside) == ({"A": sha256(b"1")}, ["r.example pw me"], True)


def test_the_archive_has_the_bytes_and_modes_of_the_files() -> None:
    with tarfile.open(fileobj=io.BytesIO(delivery().archive)) as tar:
        found = {member.name: (file.read(), member.mode) for member in tar if (file := tar.extractfile(member))}
    assert found == {f"./{path}": (file.data, file.mode) for path, file in FILES.items()}


def test_an_archive_without_modes_is_private() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive({"notes": b"x"}))) as tar:
        assert [member.mode for member in tar] == [0o600]


def test_the_manifest_is_what_sha256sum_checks_and_leaves_out_what_is_the_containers(tmp_path: Path) -> None:
    read = delivery()
    for path, file in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(file.data)
    checked = subprocess.run(
        ["sha256sum", "-c", "-"], cwd=tmp_path, input=read.manifest, capture_output=True, check=False
    )
    assert checked.returncode == 0
    assert checked.stdout.count(b": OK") == len(FILES) - 1
    assert read.seeds == b"data/seed\n"


def test_the_host_reads_logins_manifest_and_seeds_in_this_order() -> None:
    read = Delivery.read(pack(FILES, logins=["r.example pw me", "s.example pw you"]))
    assert read.stdin == b"r.example pw me\ns.example pw you\n" + read.manifest + read.seeds


@pytest.mark.parametrize(
    ("files", "is_same"),
    [
        (dict(reversed(FILES.items())), True),
        ({**FILES, "compose.yaml": ProjectFile(b"services: {} ")}, False),
        ({**FILES, "bin/start": ProjectFile(b"\0\xff\n\n")}, False),
        ({**FILES, "data/seed": ProjectFile(b"", mode=0o600)}, False),
        ({**FILES, "new": ProjectFile(b"")}, False),
        ({path: file for path, file in FILES.items() if path != "bin/start"}, False),
    ],
)
def test_the_id_is_that_of_the_content(files: dict[str, ProjectFile], is_same: bool) -> None:
    assert (delivery(files).id == delivery().id) is is_same


def test_the_id_does_not_show_logins_for_they_change_nothing() -> None:
    assert Delivery.read(pack(FILES, logins=["r.example pw me"])).id == delivery().id


@pytest.mark.parametrize("number", range(len(OVERRIDE_FILES)))
def test_compose_reads_the_first_override_file(number: int) -> None:
    present = {name: ProjectFile(b"") for name in reversed(OVERRIDE_FILES[number:])}
    assert delivery({**FILES, **present}).override == OVERRIDE_FILES[number]


def test_an_override_file_elsewhere_is_none() -> None:
    assert delivery({**FILES, "conf/compose.override.yaml": ProjectFile(b"")}).override is None


@pytest.mark.parametrize(
    ("value", "profiles"),
    [(b"", []), (b"a", ["a"]), (b" a , ,b,", ["a", "b"]), (b"\xff", ["\ufffd"])],
)
def test_profiles_are_those_that_the_variable_names(value: bytes, profiles: list[str]) -> None:
    assert delivery(values={"COMPOSE_PROFILES": value}).profiles == profiles


def test_no_value_is_in_the_delivery_but_its_checksum() -> None:
    assert b"hunter2" not in pack(FILES, {"PASSWORD": b"hunter2"})
