"""The sshd of the tests: whom it lets in, and that it sees what its logins leave behind."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import MakeSshd
from tests.support.sshd import SshServer


def login(server: SshServer, command: str, *, key: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command there with the system's ssh client, which trusts the present host key only."""
    known_hosts = f"[{server.address}]:{server.port} {server.host_key}"
    options = ("BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "IdentityAgent=none")
    return subprocess.run(
        [
            "ssh", "-F", "none", *(argument for option in options for argument in ("-o", option)),
            "-o", f"KnownHostsCommand=/usr/bin/env echo {known_hosts}", "-o", "UserKnownHostsFile=none",
            "-i", key or server.key_path, "-p", str(server.port), f"{server.user}@{server.address}", command,
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def leave_behind(server: SshServer) -> int:
    """The pid of a process that a login left in a session of its own."""
    return int(login(server, "setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $!").stdout)


def test_a_login_has_the_system_path_and_no_start_up_files(sshd: SshServer) -> None:
    assert login(sshd, "echo $PATH").stdout.strip() == sshd.path


def test_path_decides_what_a_login_finds(make_sshd: MakeSshd, tmp_path: Path) -> None:
    assert login(make_sshd(path=str(tmp_path)), "docker info").returncode == 127


def test_another_key_is_refused(sshd: SshServer, make_sshd: MakeSshd) -> None:
    refused = login(sshd, "true", key=make_sshd().key_path)
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr
    assert "Failed publickey" in sshd.log or "Connection closed by authenticating user" in sshd.log


def test_thirty_logins_at_once_are_let_in(sshd: SshServer) -> None:
    with ThreadPoolExecutor(30) as pool:
        logins = list(pool.map(lambda number: login(sshd, f"echo {number}").stdout, range(30)))
    assert [int(number) for number in logins] == list(range(30))


def test_a_process_that_left_its_session_is_seen_and_ended(make_sshd: MakeSshd) -> None:
    server = make_sshd()
    pid = leave_behind(server)
    assert [process.pid for process in server.processes()] == [pid]
    server.stop()
    assert [process.pid for process in server.processes()] == [pid]
    server.close()
    assert server.processes() == []


def test_a_stopped_server_refuses_and_a_started_one_is_the_same_again(make_sshd: MakeSshd) -> None:
    server = make_sshd()
    server.stop()
    assert "Connection refused" in login(server, "true").stderr
    server.start()
    assert login(server, "true").returncode == 0


def test_a_changed_host_key_is_noticed(make_sshd: MakeSshd) -> None:
    server = make_sshd()
    before = server.host_key_fingerprint
    server.change_host_key()
    assert server.host_key_fingerprint != before
    assert login(server, "true").returncode == 0
