"""The warm process: Ansible, loaded once and forked for each play: `python -P -m runner.play.forkserver`.

Each fork is a play process.  It does what `runner.play.program` does as a program, through the same ansible-runner,
but the Ansible that it starts is also a fork, in which `runner.play.preload` is loaded.

stdin    a socket of messages.  The warm process sends one byte when it is ready.  Each message to it requests a play:
         JSON `{"environment": …, "spec": …}` with the descriptors of the play's stdin, stdout, and stderr, and those
         that it holds.  When the socket is closed, the warm process ends, but not its plays.
stderr   unexpected output; the server logs it

The first message on a play's stdout is `begun` with its pid, or `refused` with a reason, if the play could differ from
a cold one.  After `begun` it waits for a first line on stdin, without a deadline; from then on it behaves like
`runner.play.program`, except that the last line on stdout is `swept`: no process that the play has started is left.
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
from runner.play.program import GRACE, Emitter, Spec, configuration, obey

MAX_REQUEST = 128 * 1024  # bytes; a longer message does not fit into a socket's buffer
MAX_DESCRIPTORS = 16
CHUNK = 64 * 1024  # bytes of Ansible's output

# Environment variables that differ from play to play.  A fork of the image reads them again, or the image does not use
# them.
OF_A_PLAY = {"ANSIBLE_HOME", "ANSIBLE_LOCAL_TEMP", "AWX_ISOLATED_DATA_DIR", "TMPDIR", processes.COOKIE}


class Request(TypedDict):
    """The server's request to the warm process for a play."""

    environment: dict[str, str]
    spec: Spec


class Image:
    """The loaded Ansible, with the files and the environment from which it was loaded: it reads them only once."""

    def __init__(self, project: Path) -> None:
        files = [Path(os.environ["ANSIBLE_CONFIG"]), *project.rglob("*.py"), *project.rglob("*.sh")]
        self._loaded = {path: _state(path) for path in files}
        with _example(project) as config:
            os.environ.update(config.env)
            # Import it only now, because it is configured by the environment.
            self.ansible: ModuleType = importlib.import_module("runner.play.preload")
            self.ansible.load(project)
            # Do not rehearse an operator's playbooks: plays of ours would inherit the plugins beside them.
            self.ansible.rehearse(config.command[1:], sorted(project.glob("*.yml")))
        self._environment = dict(os.environ)

    def difference(self, environment: Mapping[str, str]) -> str | None:
        """Return why a play with `environment` cannot be a fork of this image; None if it can."""
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
    """Yield the configuration of an example that is not played, with the environment that ansible-runner adds."""
    with tempfile.TemporaryDirectory() as directory:
        user_string = {"__ansible_unsafe": "example"}
        host = {
            "ansible_connection": "ssh",
            "ansible_host": user_string,
            "ansible_port": 22,
            "daos": {"project": user_string},  # what the playbooks pass to the task
        }
        Path(directory, "inventory.json").write_text(json.dumps({"all": {"hosts": {"example": host}}}))
        yield configuration({"directory": directory, "project": str(project), "playbook": "none.yml", "held": []})


class Fork(Runner):  # type: ignore[misc]
    """An ansible-runner that runs Ansible as a fork of this process instead of a program with its own terminal.

    `orders` are obeyed, as in `runner.play.program`; `private` are descriptors that Ansible must not inherit.
    """

    def __init__(
        self, image: Image, config: RunnerConfig, emitter: Emitter, *, orders: Orders, private: list[int]
    ) -> None:
        super().__init__(config, event_handler=emitter.handle)
        self._image = image
        self._emitter = emitter
        self._orders = orders
        self._private = private

    def run(self) -> tuple[str, int]:
        """Play to the end or until a stop is requested, and return ansible-runner's status and rc."""
        self.status_callback("starting")
        events = OutputEventFilter(None, self.event_callback, suppress_ansible_output=True)
        output, pid = self._start()
        obey(self._orders, self._emitter)
        self.status_callback("running")
        exit_code = self._forward_output(output, pid, events)
        events.close()
        self.canceled = self._emitter.stopping.is_set()
        self.rc = 254 if self.canceled else exit_code
        self.status_callback("canceled" if self.canceled else "failed" if self.rc else "successful")
        return self.status, self.rc

    def _start(self) -> tuple[int, int]:
        """Start Ansible, and return the descriptor of its output and its pid."""
        output, its_output = os.pipe()
        assert threading.active_count() == 1  # a fork would never release a lock that another thread holds
        pid = os.fork()
        if pid == 0:
            os.close(output)
            for descriptor in self._private:
                os.close(descriptor)
            _run_ansible(self._image, self.config, its_output)
        os.close(its_output)
        return output, pid

    def _forward_output(self, output: int, pid: int, events: OutputEventFilter) -> int:
        """Forward Ansible's output until it ends, and return its exit status."""
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
            # Read only what is there: after Ansible has ended, a process that it started may keep the pipe open.
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
    """Return the bytes that are available, b"" at the end, and None if there is nothing yet."""
    try:
        return os.read(descriptor, CHUNK)
    except BlockingIOError:
        return None


def _run_ansible(image: Image, config: RunnerConfig, output: int) -> NoReturn:
    """Run `ansible-playbook` in this fork, with the arguments and the environment of `config`."""
    code = 250  # Ansible's own exit status for an unexpected exception
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        posix.die_with_parent(signal.SIGTERM)  # the last resort: Ansible's handler passes it on to the workers
        posix.move(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(output, 1)
        posix.move(output, 2)
        posix.replace_environment(config.env)
        os.chdir(config.cwd)
        code = image.ansible.play(config.command[1:])
    except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _run_play(image: Image, request: Request, descriptors: list[int]) -> None:
    """Run as the play process; `descriptors` are its stdin, stdout, stderr, and those that it holds."""
    stdin, stdout, stderr, *held = descriptors
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    posix.adopt_orphans()
    posix.move(stdin, 0)
    os.dup2(stderr, 1)  # no other output must get between the messages
    posix.move(stderr, 2)
    posix.renew(request["environment"])
    out = os.fdopen(stdout, "w", encoding="utf-8")
    emitter = Emitter(out)
    config = configuration(request["spec"])
    refusal = image.difference(config.env) or _set_cookie(request["environment"])
    if refusal is not None:
        emitter.emit(kind="refused", message=refusal)
        return
    orders = Orders(0, request["spec"].get("deadline"))
    emitter.emit(kind="begun", pid=os.getpid())
    # The deadline does not end this wait: the pid must stay this process's until the server sends the order to begin.
    if orders.first() is None or orders.is_over():
        return
    runner = Fork(image, config, emitter, orders=orders, private=[stdout, *held])
    runner.run()
    emitter.emit(**Event(Kind.END, rc=runner.rc).write())
    processes.end_children(GRACE)  # ssh's control master outlives the play
    emitter.emit(kind="swept")


def _set_cookie(environment: Mapping[str, str]) -> str | None:
    """Set the cookie of this fork; return why a play cannot be started with it, or None."""
    try:
        processes.set_cookie(environment[processes.COOKIE])
    except processes.CookieNotSet:
        return "a fork cannot show the cookie of its play"
    return None


def _serve(image: Image, control: socket.socket) -> None:
    """Fork a play for each message; return when the socket is closed."""
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
            _run_fork(image, control, message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _run_fork(image: Image, control: socket.socket, message: bytes, descriptors: list[int]) -> NoReturn:
    code = 1
    try:
        control.close()
        _run_play(image, json.loads(message), descriptors)
        code = 0
    except BaseException:  # noqa: BLE001 - as in _run_ansible
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def main() -> None:
    """Load Ansible, then serve the socket on stdin."""
    control = socket.socket(fileno=os.dup(0))
    posix.move(os.open(os.devnull, os.O_RDWR), 0)
    image = Image(Path(sys.argv[1]))
    # The kernel reaps plays that have ended, and the orphans of killed ones.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    posix.adopt_orphans()
    gc.collect()
    gc.freeze()  # otherwise the first garbage collection in each fork would copy every page
    try:
        control.send(b"\n")
    except BrokenPipeError:  # the server has stopped in the meantime
        return
    _serve(image, control)


if __name__ == "__main__":
    main()
