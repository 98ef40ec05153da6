"""Sessions: what they may see, and what they have made.

A session can be limited to hosts that bear certain labels.  The limit is in every statement, whoever wrote it: what is
on other hosts is not there.  Packages are nobody's in particular, and seen by all.
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

LABELS = "labels"  # in a session's info: a frozenset, or None where it sees everything
MADE = "made"  # there too: the ids of the objects that it has added, in their order
UNLIMITED = {"daos_unlimited": True}  # execution options of a statement that has to see everything

OBJECTS = (Host, Package, Deployment, Run, SshKey, Token)  # that have ids which clients see


class OurSession(Session):
    """A session with what is described above."""


@event.listens_for(OurSession, "after_flush")
def _note(session: Session, _context: UOWTransaction) -> None:
    made = [each.id for each in session.new if isinstance(each, OBJECTS)]
    session.info.setdefault(MADE, []).extend(made)


@event.listens_for(OurSession, "do_orm_execute")
def _limit(state: ORMExecuteState) -> None:
    labels = state.session.info.get(LABELS)
    if labels is not None and not state.execution_options.get("daos_unlimited"):
        state.statement = state.statement.options(*_criteria(labels))


def _criteria(labels: frozenset[str]) -> Iterator[ExecutableOption]:
    # By tables: the criteria of an entity hold for its mentions in other criteria too, and there would be no end.
    deployments: Any = Deployment.__table__
    runs: Any = Run.__table__
    hosts = select(HostLabel.host_id).where(HostLabel.label.in_(sorted(labels)))
    on_them = select(deployments.c.id).where(deployments.c.host_id.in_(hosts))
    of_them = select(runs.c.id).where(runs.c.deployment_id.in_(on_them))
    yield with_loader_criteria(Host, Host.id.in_(hosts), include_aliases=True)
    for placed in (Deployment, DeletedDeployment):
        yield with_loader_criteria(placed, placed.host_id.in_(hosts), include_aliases=True)
    for entity in (Variable, Run, StatusEvent):
        yield with_loader_criteria(entity, entity.deployment_id.in_(on_them), include_aliases=True)
    for part in (LogEntry, RunEvent, RunPhase):
        yield with_loader_criteria(part, part.run_id.in_(of_them), include_aliases=True)
