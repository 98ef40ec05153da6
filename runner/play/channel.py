"""The server's side of a play process that the warm process forks; the other side is `runner.play.forkserver`."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from runner.play.play import LINE_LIMIT, read_message, read_text, spec
from runner.play.request import PlayRequest

BEGIN_TIMEOUT = 5.0  # seconds until a fork reports that it has begun


class Refused(Exception):
    """The warm process cannot fork this play; the text says why."""


class NoAnswer(Refused):
    """The warm process does not respond."""


class Pipes:
    """The server's ends of the three pipes of a play process."""

    stdin: asyncio.WriteTransport

    def __init__(self) -> None:
        self.stdout = asyncio.StreamReader(LINE_LIMIT)
        self.stderr = asyncio.StreamReader(LINE_LIMIT)
        self._transports: list[asyncio.BaseTransport] = []

    async def connect(self, stdin: int, stdout: int, stderr: int) -> None:
        loop = asyncio.get_running_loop()
        self.stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(stdin, "wb", 0))
        self._transports.append(self.stdin)
        for reader, descriptor in ((self.stdout, stdout), (self.stderr, stderr)):
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb", 0))  # noqa: B023
            self._transports.append(transport)

    async def read(self) -> dict[str, Any] | None:
        return await read_message(self.stdout)

    def close(self) -> None:
        for transport in self._transports:
            transport.close()


class Forked:
    """The channel to a play process that was forked, see `runner.play.play.Channel`."""

    def __init__(self, pipes: Pipes, pid: int) -> None:
        self.pid = pid
        self._pipes = pipes
        self._swept = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The play is not a child of this process.  But it waits for the order to begin, so the pid is still its own.
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._end)

    @classmethod
    async def start(cls, control: socket.socket, request: PlayRequest) -> "Forked":
        """Have the warm process behind `control` fork a play.  Raises: Refused."""
        # The fork receives the held descriptors beside its pipes, under different numbers.
        message = {"environment": dict(request.environment), "spec": spec(request, held=())}
        pipes = await _send_request(control, message, request.kept_open)
        try:
            async with asyncio.timeout(BEGIN_TIMEOUT):
                answer = await pipes.read()
            if answer is None:
                raise Refused("the warm process has ended")
            if answer["kind"] != "begun":
                raise Refused(answer["message"])
            play = cls(pipes, answer["pid"])
        except TimeoutError as error:
            pipes.close()  # a fork that begins after all finds its stdin closed, and does not play
            raise NoAnswer("the warm process does not answer") from error
        except BaseException:
            pipes.close()
            raise
        play.send({"begin": True})
        return play

    def send(self, message: object) -> None:
        if not self._pipes.stdin.is_closing():
            self._pipes.stdin.write(json.dumps(message).encode() + b"\n")

    async def read(self) -> dict[str, Any] | None:
        read = await self._pipes.read()
        if read is not None and read["kind"] == "swept":
            self._swept = True
            return await self.read()
        return read

    async def read_stderr(self) -> str | None:
        return await read_text(self._pipes.stderr)

    async def wait(self) -> bool:
        await asyncio.shield(self._ended)
        return self._swept

    def kill(self) -> None:
        if not self._ended.done():
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._pipes.stdin.close()
        self._ended.set_result(None)


async def _send_request(control: socket.socket, request: Mapping[str, Any], held: Sequence[int]) -> Pipes:
    """Request a play from the warm process, and return the pipes to the play.  Raises: Refused."""
    its_stdin, stdin = os.pipe()
    stdout, its_stdout = os.pipe()
    stderr, its_stderr = os.pipe()
    theirs = [its_stdin, its_stdout, its_stderr]
    pipes = Pipes()
    await pipes.connect(stdin, stdout, stderr)
    try:
        socket.send_fds(control, [json.dumps(request).encode()], [*theirs, *held])
    except OSError as error:
        pipes.close()
        raise Refused(f"the warm process cannot be reached: {error}") from error
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return pipes
