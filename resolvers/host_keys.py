"""Keys of hosts: reading the keys that a host shows, and pinning the key that it has to show."""

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
    """Return the host, and the keys that it shows now.  Raises: NotFound, InvalidInput, HostUnreachable."""
    host = await hosts.get(db, host_id)
    shown = await _scan(host)
    async with db.write():  # changes nothing; it adds the scan to the audit log
        return host, shown


async def trust(db: Database, host_id: str, fingerprint: str) -> Host:
    """Pin the key that the host shows now and that has this fingerprint, and unpin its other keys.

    Certificate authorities are kept.  Raises: InvalidInput, NotFound, HostUnreachable.
    """
    check = Check()
    check.fingerprint("fingerprint", fingerprint)
    check.done()
    scanned = await hosts.get(db, host_id)
    shown = await _scan(scanned)
    key = next((key for key in shown if key.fingerprint == fingerprint), None)
    if key is None:
        found = ", ".join(f"{each.fingerprint} ({each.type})" for each in shown)
        raise _refused(
            "fingerprint", "NOT_SHOWN", f"fingerprint matches no key that the host shows now: it shows {found}."
        )
    async with db.write() as session:
        host = await _get_unmoved(session, scanned)
        authorities = [each for each in known_hosts.stored(host.known_hosts) if each.is_authority]
        for name, value in known_hosts.columns([key, *authorities]).items():
            setattr(host, name, value)
        host.updated_at = now()
    return host


async def _scan(host: Host) -> list[HostKey]:
    if host.transport is HostTransport.LOCAL or host.address is None:
        raise _refused("host_id", "LOCAL", "host_id is the server's own machine, which is not reached over SSH.")
    try:
        return await scan(host.address, host.port)
    except NoAnswer as error:
        raise HostUnreachable(id=host.id, why=error) from error


async def _get_unmoved(session: AsyncSession, scanned: Host) -> Host:
    """Return the host, locked, if its address and port are still those that were scanned.

    Raises: NotFound, InvalidInput.
    """
    host = await session.get(Host, scanned.id, with_for_update=True)
    if host is None:
        raise NotFound(kind="Host", id=scanned.id)
    if (host.address, host.port) != (scanned.address, scanned.port):
        raise _refused("host_id", "MOVED", "host_id is a host that moved during the scan; try again.")
    return host


def _refused(argument: str, code: str, message: str) -> InvalidInput:
    return InvalidInput([Problem((argument,), code, message)])
