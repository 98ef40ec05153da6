"""Sessions: which rows they can see, and which objects they have created.

A session can be limited to hosts that have certain labels.  The limit is added to every ORM statement: rows of other
hosts, and of what is on them, are invisible.  Packages belong to no host and are always visible.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from db.models import (
    DeletedDeployment,
    Deployment,
    Host,
    HostLabel,
    LogEntry,
    Package,
    Run,
    RunEvent,
    RunPhase,
    SshKey,
    StatusEvent,
    Token,
    Variable,
)

LABELS = "labels"  # key in a session's info: a frozenset, or None for a session that sees everything
MADE = "made"  # key in a session's info: the ids of the objects that it has created, in order
UNLIMITED = {"daos_unlimited": True}  # execution options of a statement that has to see everything

OBJECTS = (Host, Package, Deployment, Run, SshKey, Token)  # with ids that clients see


class OurSession(Session):
    """A session with the limit and the record described above."""


@event.listens_for(OurSession, "after_flush")
def _record(session: Session, _context: UOWTransaction) -> None:
    made = [each.id for each in session.new if isinstance(each, OBJECTS)]
    session.info.setdefault(MADE, []).extend(made)


@event.listens_for(OurSession, "do_orm_execute")
def _limit(state: ORMExecuteState) -> None:
    labels = state.session.info.get(LABELS)
    if labels is not None and not state.execution_options.get("daos_unlimited"):
        state.statement = state.statement.options(*_criteria(labels))


def _criteria(labels: frozenset[str]) -> Iterator[ExecutableOption]:
    # Tables, not entities: the criteria of an entity also apply where other criteria mention it, without end.
    deployments: Any = Deployment.__table__
    runs: Any = Run.__table__
    hosts = select(HostLabel.host_id).where(HostLabel.label.in_(sorted(labels)))
    on_hosts = select(deployments.c.id).where(deployments.c.host_id.in_(hosts))
    of_deployments = select(runs.c.id).where(runs.c.deployment_id.in_(on_hosts))
    yield with_loader_criteria(Host, Host.id.in_(hosts), include_aliases=True)
    for placed in (Deployment, DeletedDeployment):
        yield with_loader_criteria(placed, placed.host_id.in_(hosts), include_aliases=True)
    for entity in (Variable, Run, StatusEvent):
        yield with_loader_criteria(entity, entity.deployment_id.in_(on_hosts), include_aliases=True)
    for part in (LogEntry, RunEvent, RunPhase):
        yield with_loader_criteria(part, part.run_id.in_(of_deployments), include_aliases=True)
