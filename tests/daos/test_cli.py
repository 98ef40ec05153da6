"""The command `daos`: its arguments, and the socket that it listens on."""

import json
import socket
from pathlib import Path

import pytest

from daos import __version__
from daos.app import CannotStart
from daos.cli import bind, main


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of the commands."""
    monkeypatch.setenv("DAOS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"daos {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["serve", "--port", "http"], ["audit", "--since", "yesterday"]])
def test_what_is_no_command_is_refused_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: daos")


def test_the_schema_is_printed_without_a_data_directory(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    main(["schema"])
    assert "type Query {" in capsys.readouterr().out
    assert not data_dir.exists()


def test_the_admins_token_is_printed_and_a_new_data_directory_is_named(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    main(["token"])
    first = capsys.readouterr()
    main(["token"])
    second = capsys.readouterr()
    assert first.out == second.out
    assert f"created the data directory {data_dir}" in first.err
    assert second.err == ""


def test_a_token_is_created_listed_revoked_and_in_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    main(["token", "create", "ci", "--role", "deployer", "--label", "web", "--days", "2"])
    assert len(capsys.readouterr().out.split()) == 1
    main(["token", "revoke", "ci"])
    capsys.readouterr()
    main(["token", "list"])
    listed = capsys.readouterr().out
    assert listed.startswith("ci  DEPLOYER on web  created ")
    assert "expires" in listed
    assert "revoked" in listed
    main(["audit", "--since", "2026-01-31"])
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(entry["principal"], entry["mutation"]) for entry in entries] == [
        ("command line", "createToken"),
        ("command line", "revokeToken"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["token", "revoke", "nobody"], "daos: "),
        (["copy", "--to", "sqlite:///elsewhere.db"], "daos: "),
        (["secrets", "retire"], "daos: "),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("daos: ")]
    assert line.startswith(words)


def test_a_setting_that_makes_no_sense_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAOS_MAX_RUNS", "many")
    with pytest.raises(SystemExit):
        main(["migrate"])
    assert "DAOS_MAX_RUNS" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_socket_is_bound_to_a_free_port_with_its_protocol(host: str) -> None:
    with bind(host, 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP
        assert bound.getsockname()[1] > 0


@pytest.mark.parametrize("port", [-1, 65536, 65536 + 8000])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(CannotStart, match=f"port {port}: the port must be 0 to 65535"):
        bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["a" * 64, "no.such.name.invalid", "203.0.113.1"])
def test_an_address_that_is_not_this_machines_is_refused(host: str) -> None:
    with pytest.raises(CannotStart, match=rf"\Acannot listen on {host} port 0: "):
        bind(host, 0)
