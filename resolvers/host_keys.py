"""Keys of hosts: what a host shows now, and which key it is believed by."""

from sqlalchemy.ext.asyncio import AsyncSession

from db.database import Database
from db.models import Host, HostTransport, now
from resolvers import hosts
from resolvers.errors import HostUnreachable, InvalidInput, NotFound, Problem
from resolvers.rules import Check
from runner.ssh import known_hosts
from runner.ssh.known_hosts import HostKey
from runner.ssh.scan import NoAnswer, scan


async def show(db: Database, host_id: str) -> tuple[Host, list[HostKey]]:
    """The host, and the keys that it shows now.  Raises: NotFound, InvalidInput, HostUnreachable."""
    host = await hosts.get(db, host_id)
    shown = await _ask(host)
    async with db.write():  # nothing is changed; the audit writes down that the host was asked
        return host, shown


async def trust(db: Database, host_id: str, fingerprint: str) -> Host:
    """Pin the key with this fingerprint, which the host shows now, in place of those that were pinned.

    Authorities stay.  Raises: InvalidInput, NotFound, HostUnreachable.
    """
    check = Check()
    check.fingerprint("fingerprint", fingerprint)
    check.done()
    asked = await hosts.get(db, host_id)
    shown = await _ask(asked)
    key = next((key for key in shown if key.fingerprint == fingerprint), None)
    if key is None:
        found = ", ".join(f"{each.fingerprint} ({each.type})" for each in shown)
        raise _refused(
            "fingerprint", "NOT_SHOWN", f"fingerprint is of no key that the host shows now: it shows {found}."
        )
    async with db.write() as session:
        host = await _still_there(session, asked)
        authorities = [each for each in known_hosts.stored(host.known_hosts) if each.is_authority]
        for name, value in known_hosts.columns([key, *authorities]).items():
            setattr(host, name, value)
        host.updated_at = now()
    return host


async def _ask(host: Host) -> list[HostKey]:
    if host.transport is HostTransport.LOCAL or host.address is None:
        raise _refused("host_id", "LOCAL", "host_id is of the server's own machine, which is not reached by SSH.")
    try:
        return await scan(host.address, host.port)
    except NoAnswer as error:
        raise HostUnreachable(id=host.id, why=error) from error


async def _still_there(session: AsyncSession, asked: Host) -> Host:
    """The host as it is now, locked; its key is not that of another place where it was meanwhile moved to."""
    host = await session.get(Host, asked.id, with_for_update=True)
    if host is None:
        raise NotFound(kind="Host", id=asked.id)
    if (host.address, host.port) != (asked.address, asked.port):
        raise _refused("host_id", "MOVED", "host_id is of a host that was moved while it was asked; ask again.")
    return host


def _refused(argument: str, code: str, message: str) -> InvalidInput:
    return InvalidInput([Problem((argument,), code, message)])
