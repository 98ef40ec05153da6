"""What tests of engines share: playbooks that do nothing, runs that play them, and how to wait for these."""

import asyncio
import time
from uuid import UUID

from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import Deployment, Host, HostTransport, Run
from runner import processes
from tests import factories

OK = """
- name: Play
  hosts: all
  gather_facts: false
  tasks:
    - name: Prepare
      ansible.builtin.raw: "true"
"""
SLEEP = OK.replace('"true"', '"sleep 300"')


async def ended(db: Database, broadcast: Broadcast, run_id: UUID) -> Run:
    """The run, when it has ended."""
    async with asyncio.timeout(30):
        with broadcast.listen(Everything.DEPLOYMENTS) as listener:
            while True:
                async with db.read() as session:
                    run = await session.get_one(Run, run_id)
                if run.finished_at is not None:
                    return run
                await listener.wait(1.0)


async def until_playing(cookie: str) -> None:
    """Wait until the Ansible of `cookie` is at work."""
    await asyncio.to_thread(_wait_for_processes, cookie)


def _wait_for_processes(cookie: str) -> None:
    deadline = time.monotonic() + 30
    while len(processes.find(cookie)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def local_host(db: Database) -> Host:
    return await factories.host(db, transport=HostTransport.LOCAL, address=None)


async def queued_run(db: Database, on: Host | None = None) -> Run:
    return await factories.run(db, await factories.deployment(db, on=on or await local_host(db)))


async def deployment_of(db: Database, run: Run) -> Deployment:
    async with db.read() as session:
        return await session.get_one(Deployment, run.deployment_id)
