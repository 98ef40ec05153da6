"""Runs the program that connects to the script on a host: passes on its output while it runs, and sends the answers.

The program is ssh, or a shell if the host is this machine.  Ansible's process imports this module, so it uses the
standard library only.
"""

import os
import selectors
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

CHUNK = 64 * 1024  # bytes
TICK = 1.0  # seconds between two checks of the time
MAX_STDERR = 64 * 1024  # bytes; the last ones are kept, because they contain the reason
MAX_UNSENT = 16 * 1024 * 1024  # bytes of answers that the host has not read
KILL_AFTER = 5.0  # seconds between SIGTERM and SIGKILL


class Receiver(Protocol):
    """The consumer of the program's output, see `runner.play.listener`."""

    @property
    def is_complete(self) -> bool:
        """Whether all results have arrived."""
        ...

    @property
    def is_aborted(self) -> bool:
        """Whether the program must be ended, because it will not end properly by itself."""
        ...

    def receive(self, chunk: bytes) -> bytes:
        """Process output, and return what to send to the program."""
        ...

    def check_time(self) -> None:
        """Abort if a time limit has passed."""
        ...

    def abort(self, detail: str) -> None:
        """Fail with this sentence."""
        ...


def stream(
    argv: Sequence[str | bytes | Path], stdin: bytes, receiver: Receiver, cwd: bytes | str | None = None
) -> tuple[int, bytes]:
    """Run a program, pass on its stdout as it arrives, send the answers, and return its exit status and stderr."""
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stderr = b""
    with process.stdin, process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        for pipe in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        channel = Channel(process.stdin, selector, stdin)
        # Do not wait for the end of stderr as well: a control master that ssh leaves behind may keep it open.
        while process.stdout in {key.fileobj for key in selector.get_map().values()}:
            for key, _ in selector.select(TICK):
                if key.fileobj is process.stdin:
                    channel.send()
                elif not (chunk := os.read(key.fd, CHUNK)):
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    channel.add(receiver.receive(chunk))
                else:
                    stderr = (stderr + chunk)[-MAX_STDERR:]
            receiver.check_time()
            if receiver.is_complete:
                channel.close()  # there will be no more questions
            elif channel.unsent > MAX_UNSENT:
                receiver.abort("The host asks questions but does not read the answers; the play was ended.")
            if receiver.is_aborted:
                _end(process)  # any further output is ignored
                break
        status = process.wait()
        return status, (stderr + (process.stderr.read(MAX_STDERR) or b""))[-MAX_STDERR:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that may ignore SIGTERM."""
    process.terminate()
    try:
        process.wait(KILL_AFTER)
    except subprocess.TimeoutExpired:
        process.kill()


class Channel:
    """A buffer in front of a program's stdin: accepts any amount of data, and writes it when the pipe has room."""

    def __init__(self, pipe: IO[bytes], selector: selectors.BaseSelector, data: bytes) -> None:
        self._pipe = pipe
        self._selector = selector
        self._unsent = b""
        self._is_registered = False
        self.add(data)

    @property
    def unsent(self) -> int:
        """The number of bytes that have not been written yet."""
        return len(self._unsent)

    def add(self, data: bytes) -> None:
        """Send `data` as soon as there is room for it."""
        if self._pipe.closed or not data:
            return
        self._unsent += data
        if not self._is_registered:
            self._is_registered = True
            self._selector.register(self._pipe, selectors.EVENT_WRITE)

    def send(self) -> None:
        """Write as much as the pipe has room for; if its reader is gone, all data counts as written."""
        try:
            sent = self._pipe.write(self._unsent[:CHUNK]) or 0
        except BrokenPipeError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._unregister()

    def close(self) -> None:
        """Close the program's stdin; nothing happens if it is already closed."""
        if not self._pipe.closed:
            self._unregister()
            self._pipe.close()

    def _unregister(self) -> None:
        if self._is_registered:
            self._is_registered = False
            self._selector.unregister(self._pipe)
