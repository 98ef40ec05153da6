"""Scans the keys of a host, without a login."""

import asyncio
import contextlib
import socket

from runner.play.play import SYSTEM_PATH
from runner.ssh import known_hosts
from runner.ssh.known_hosts import HostKey

TIMEOUT = 8  # seconds to connect, and again to receive the keys: together less than the time limit of an operation
GRACE = 3  # additional seconds after which ssh-keyscan is killed; it resolves names without a time limit
TYPES = "ed25519,ecdsa,rsa"  # one connection for each


class NoAnswer(Exception):
    """The host shows no key; the text says why."""


async def scan(address: str, port: int) -> list[HostKey]:
    """Return the keys that the host shows now, in the order of preference.  Raises: NoAnswer."""
    await _connect(address, port)  # because ssh-keyscan does not report why it has found nothing
    shown = known_hosts.stored(await _keyscan(address, port))
    if not shown:
        raise NoAnswer(f"what answers at {address} port {port} shows no host key")
    kinds = list(known_hosts.TYPES)
    return sorted((key for key in shown if key.type in kinds), key=lambda key: kinds.index(key.type))


async def _connect(address: str, port: int) -> None:
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError as error:
        raise NoAnswer(f"it does not answer at {address} port {port}") from error
    except ConnectionRefusedError as error:
        raise NoAnswer(f"it refuses the connection to {address} port {port}") from error
    except socket.gaierror as error:
        raise NoAnswer(f"the name {address} is unknown") from error
    except OSError as error:
        raise NoAnswer(f"{address} port {port} cannot be reached: {error.strerror or error}") from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _keyscan(address: str, port: int) -> str:
    """Return the output of ssh-keyscan: lines of known_hosts."""
    try:
        process = await asyncio.create_subprocess_exec(
            "ssh-keyscan",
            *("-T", str(TIMEOUT), "-t", TYPES, "-p", str(port), "--", address),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise NoAnswer("the server has no ssh-keyscan to ask it with") from error
    try:
        async with asyncio.timeout(TIMEOUT + GRACE):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise NoAnswer(f"it does not answer at {address} port {port}") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode(errors="replace")
