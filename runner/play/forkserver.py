"""The warm process: Ansible, loaded once and forked for each play: `python -P -m runner.play.forkserver`.

The fork, the play process, does what `runner.play.program` does as a program, through the same ansible-runner, but the
Ansible that it starts is a fork as well: of `runner.play.preload`.

stdin    a socket of messages.  The warm process sends one byte when it is ready.  Each message to it asks for a play:
         JSON `{"environment": …, "spec": …}` with the descriptors of the play's stdin, stdout and stderr, and those
         that it holds.  The socket's end is the end of the warm process, but not of its plays.
stderr   what nobody expects; the server logs it

A play's stdout begins with `begun` and its pid, or with `refused` and why: it would not be what a cold one is.  After
`begun` it waits for a first line on stdin, without a deadline; from there on it is as in `runner.play.program`, except
that the last line on stdout is `swept`: nothing that the play had started is left.
"""

import codecs
import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn, TypedDict

from ansible_runner.config.runner import RunnerConfig
from ansible_runner.runner import Runner
from ansible_runner.utils import OutputEventFilter

from runner import processes
from runner.play import posix
from runner.play.control import Orders
from runner.play.event import Event, Kind
from runner.play.program import GRACE, Spec, Teller, configuration, obey

MAX_REQUEST = 128 * 1024  # bytes; a socket's buffer takes no longer message
MAX_DESCRIPTORS = 16
CHUNK = 64 * 1024  # bytes of Ansible's output

# What differs from play to play.  A fork of the image looks at them, or the image had no use for them.
OF_A_PLAY = {"ANSIBLE_HOME", "ANSIBLE_LOCAL_TEMP", "AWX_ISOLATED_DATA_DIR", "TMPDIR", processes.COOKIE}


class Request(TypedDict):
    """What the server asks the warm process for."""

    environment: dict[str, str]
    spec: Spec


class Image:
    """Ansible as it was loaded, and what it was loaded with: it reads its configuration only then."""

    def __init__(self, project: Path) -> None:
        files = [Path(os.environ["ANSIBLE_CONFIG"]), *project.rglob("*.py"), *project.rglob("*.sh")]
        self._loaded = {path: _state(path) for path in files}
        with _example(project) as config:
            os.environ.update(config.env)
            # Not before now: the environment is its configuration.
            self.ansible: ModuleType = importlib.import_module("runner.play.preload")
            self.ansible.load(project)
            # Not an operator's playbooks: Ansible would remember their plugins in plays of ours, too.
            self.ansible.rehearse(config.command[1:], sorted(project.glob("*.yml")))
        self._environment = dict(os.environ)

    def difference(self, environment: Mapping[str, str]) -> str | None:
        """Why a play with `environment` cannot be a fork of this image; None if it can."""
        names = (self._environment.keys() | environment.keys()) - OF_A_PLAY
        different = sorted(name for name in names if self._environment.get(name) != environment.get(name))
        if different:
            return f"other environment variables: {', '.join(different)}"
        changed = [path for path, state in self._loaded.items() if _state(path) != state]
        return f"{changed[0]} has changed" if changed else None


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def _example(project: Path) -> Iterator[RunnerConfig]:
    """The configuration of a play that is not played.  ansible-runner adds to its environment."""
    with tempfile.TemporaryDirectory() as directory:
        user_string = {"__ansible_unsafe": "example"}
        host = {
            "ansible_connection": "ssh",
            "ansible_host": user_string,
            "ansible_port": 22,
            "daos": {"project": user_string},  # what the playbooks pass on
        }
        Path(directory, "inventory.json").write_text(json.dumps({"all": {"hosts": {"example": host}}}))
        yield configuration({"directory": directory, "project": str(project), "playbook": "none.yml", "held": []})


class Fork(Runner):  # type: ignore[misc]
    """ansible-runner with Ansible as a fork of this process, and not as a program under a terminal of its own.

    `orders` are obeyed, as in `runner.play.program`; `private` are descriptors that Ansible must not have.
    """

    def __init__(
        self, image: Image, config: RunnerConfig, teller: Teller, *, orders: Orders, private: list[int]
    ) -> None:
        super().__init__(config, event_handler=teller.handle)
        self._image = image
        self._teller = teller
        self._orders = orders
        self._private = private

    def run(self) -> tuple[str, int]:
        """Play to the end, or until it is to stop."""
        self.status_callback("starting")
        events = OutputEventFilter(None, self.event_callback, suppress_ansible_output=True)
        output, pid = self._start()
        obey(self._orders, self._teller)
        self.status_callback("running")
        exit_code = self._follow(output, pid, events)
        events.close()
        self.canceled = self._teller.stopping.is_set()
        self.rc = 254 if self.canceled else exit_code
        self.status_callback("canceled" if self.canceled else "failed" if self.rc else "successful")
        return self.status, self.rc

    def _start(self) -> tuple[int, int]:
        """Start Ansible; gives its output and its pid."""
        output, its_output = os.pipe()
        assert threading.active_count() == 1  # a lock that another thread holds would never be released in a fork
        pid = os.fork()
        if pid == 0:
            os.close(output)
            for descriptor in self._private:
                os.close(descriptor)
            _be_ansible(self._image, self.config, its_output)
        os.close(its_output)
        return output, pid

    def _follow(self, output: int, pid: int, events: OutputEventFilter) -> int:
        """Pass Ansible's output on until it ends; gives its exit status."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        process = os.pidfd_open(pid)
        os.set_blocking(output, False)
        waiting = select.poll()
        for descriptor in (output, process):
            waiting.register(descriptor, select.POLLIN)
        running = True
        while running:
            ready = {descriptor for descriptor, _ in waiting.poll()}
            running = process not in ready
            # Ansible itself may have ended and still be quoted: what it started has no hold of its output.
            while output in ready and (chunk := _read(output)) is not None:
                if not chunk:
                    waiting.unregister(output)
                    break
                events.write(decoder.decode(chunk))
        while chunk := _read(output):
            events.write(decoder.decode(chunk))
        os.close(output)
        os.close(process)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _read(descriptor: int) -> bytes | None:
    """What there is to read, b"" at the end, None where there is nothing yet."""
    try:
        return os.read(descriptor, CHUNK)
    except BlockingIOError:
        return None


def _be_ansible(image: Image, config: RunnerConfig, output: int) -> NoReturn:
    """Be `ansible-playbook` with the arguments and the environment of `config`."""
    code = 250  # Ansible's own for what it did not expect
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        posix.die_with_parent(signal.SIGTERM)  # as the last resort: its handler passes it on to the workers
        posix.move(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(output, 1)
        posix.move(output, 2)
        posix.replace_environment(config.env)
        os.chdir(config.cwd)
        code = image.ansible.play(config.command[1:])
    except BaseException:  # noqa: BLE001 - a fork must never return into what its parent was doing
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _be_play(image: Image, request: Request, descriptors: list[int]) -> None:
    """Be the play process; `descriptors` are its stdin, stdout, stderr and those that it holds."""
    stdin, stdout, stderr, *held = descriptors
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    posix.adopt_orphans()
    posix.move(stdin, 0)
    os.dup2(stderr, 1)  # whatever else prints must not get between the messages
    posix.move(stderr, 2)
    posix.renew(request["environment"])
    out = os.fdopen(stdout, "w", encoding="utf-8")
    teller = Teller(out)
    config = configuration(request["spec"])
    refusal = image.difference(config.env) or _rename(request["environment"])
    if refusal is not None:
        teller.say(kind="refused", message=refusal)
        return
    orders = Orders(0, request["spec"].get("deadline"))
    teller.say(kind="begun", pid=os.getpid())
    # The deadline does not end this wait: until it has told to begin, the server needs the pid to be this process's.
    if orders.first() is None or orders.is_over():
        return
    runner = Fork(image, config, teller, orders=orders, private=[stdout, *held])
    runner.run()
    teller.say(**Event(Kind.END, rc=runner.rc).write())
    processes.end_children(GRACE)  # ssh's master outlives the play
    teller.say(kind="swept")


def _rename(environment: Mapping[str, str]) -> str | None:
    try:
        processes.bear(environment[processes.COOKIE])
    except processes.CannotBear:
        return "a fork cannot show the cookie of its play"
    return None


def _serve(image: Image, control: socket.socket) -> None:
    """Fork a play for each message; returns at the end of the socket."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST, MAX_DESCRIPTORS)
        if not message:
            return
        try:
            pid = os.fork()
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ENOMEM}:
                raise
            print(f"cannot fork: {error}", file=sys.stderr, flush=True)
            pid = -1
        if pid == 0:
            _begin(image, control, message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _begin(image: Image, control: socket.socket, message: bytes, descriptors: list[int]) -> NoReturn:
    code = 1
    try:
        control.close()
        _be_play(image, json.loads(message), descriptors)
        code = 0
    except BaseException:  # noqa: BLE001 - as in _be_ansible
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def main() -> None:
    """Load Ansible, then serve the socket that is stdin."""
    control = socket.socket(fileno=os.dup(0))
    posix.move(os.open(os.devnull, os.O_RDWR), 0)
    image = Image(Path(sys.argv[1]))
    # The kernel takes leave of plays that have ended, and of what killed ones leave.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    posix.adopt_orphans()
    gc.collect()
    gc.freeze()  # or the first collection in each fork would copy every page
    try:
        control.send(b"\n")
    except BrokenPipeError:  # the server has stopped meanwhile
        return
    _serve(image, control)


if __name__ == "__main__":
    main()
