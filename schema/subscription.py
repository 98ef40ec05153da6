"""The subscriptions: each emits the changes that one resolver reads from the database."""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import strawberry
from strawberry import UNSET

from db import models
from db.models import Role
from resolvers import deployment_changes, run_changes
from resolvers.errors import NotFound
from schema import filters
from schema.context import Info
from schema.enums import DeploymentStatus
from schema.permission import Event, subscription
from schema.query import Id
from schema.sharing import Shareable
from schema.types import Deployment, LogEntry, Run, WhichDeployments

logger = logging.getLogger(__name__)

Model = TypeVar("Model")
Built = TypeVar("Built")

VIEWER = Role.VIEWER
Resume = Annotated[str | None, strawberry.argument(description="Resume after this cursor of an earlier event.")]


@strawberry.type(description="A deployment's status changed, or it was deleted.")
class DeploymentEvent(Event):
    deployment_id: strawberry.ID = strawberry.field(
        description="The id of the deployment, even if it has been deleted."
    )
    status: DeploymentStatus = strawberry.field(
        description="The status after this change; for a deletion, the last status."
    )
    run: Run | None = strawberry.field(
        description="The run that caused the change; null for a new deployment and for a deletion."
    )
    at: datetime = strawberry.field(description="When the change happened.")
    cursor: str = strawberry.field(description="The position of this change, to resume after it following a reconnect.")

    key: strawberry.Private[UUID]
    is_deletion: strawberry.Private[bool]

    @property
    def subject(self) -> tuple[type[models.Deployment] | type[models.DeletedDeployment], UUID]:
        return (models.DeletedDeployment if self.is_deletion else models.Deployment), self.key

    @strawberry.field(description="The deployment as of when the event is sent; null if it has been deleted.")
    async def deployment(self, info: Info) -> Deployment | None:
        try:
            return Deployment.from_model(await info.context.loaders.deployment.load(self.key))
        except NotFound:  # the deployment was deleted before this slow subscriber read it
            return None


@strawberry.type(description="A run's status or phase changed.")
class RunEvent(Event):
    run: Run = strawberry.field(description="The run as of when the event is sent.")
    at: datetime = strawberry.field(description="When the change happened.")
    cursor: str = strawberry.field(description="The position of this change, to resume after it following a reconnect.")

    @property
    def subject(self) -> tuple[type[models.Run], UUID]:
        return models.Run, self.run.key


@strawberry.type(description="Further entries of a run's log.")
class RunLogEvent(Event, Shareable):
    entries: list[LogEntry] = strawberry.field(description="At most 100, oldest first.")
    end_cursor: str | None = strawberry.field(description="The position of the last entry so far, to resume after it.")
    complete: bool = strawberry.field(description="Whether the run has ended and its log is complete.")
    run_key: strawberry.Private[UUID]
    made: strawberry.Private[dict[object, Any]]

    @property
    def subject(self) -> tuple[type[models.Run], UUID]:
        return models.Run, self.run_key

    @classmethod
    def of(cls, batch: run_changes.LogBatch) -> "RunLogEvent":
        """Return the event for the batch, the same object for all its subscribers."""
        event: RunLogEvent | None = batch.made.get(cls)
        if event is None:
            entries = list(built(LogEntry.from_model, batch.entries))
            event = cls(
                entries=entries,
                end_cursor=batch.end_cursor,
                complete=batch.complete,
                run_key=batch.run_id,
                made=batch.made,
            )
            batch.made[cls] = event
        return event


@strawberry.type(description="The subscriptions.")
class Subscription:
    @subscription(
        VIEWER,
        "The current status, then every change in order, none skipped; ends when the deployment is deleted.  "
        "Errors: NOT_FOUND.",
        of_one=True,
    )
    async def deployment_status(
        self,
        info: Info,
        id: Id,  # noqa: A002 - the API's name
        after: Resume = UNSET,
    ) -> AsyncIterator[DeploymentEvent]:
        context = info.context
        async with aclosing(deployment_changes.watch(context.db, context.broadcast, id, after or None)) as changes:
            async for change in changes:
                for event in built(_event, [change]):
                    yield event

    @subscription(
        VIEWER,
        "Every change of any deployment from now on, including its deletion, in order, none skipped; with a filter, "
        "changes of deployments that matched it before or after the change.",
        of_one=False,
    )
    async def deployments_changed(
        self,
        info: Info,
        after: Resume = UNSET,
        filter: WhichDeployments = UNSET,  # noqa: A002 - the API's name
    ) -> AsyncIterator[DeploymentEvent]:
        context, narrowed = info.context, filters.of_deployments(filter)
        async with aclosing(
            deployment_changes.watch_all(context.db, context.broadcast, after or None, narrowed)
        ) as changes:
            async for change in changes:
                for event in built(_event, [change]):
                    yield event

    @subscription(
        VIEWER,
        "The current run, then every change of its status and phase in order, none skipped; completes with the run.  "
        "Errors: NOT_FOUND.",
        of_one=True,
    )
    async def run_changed(
        self,
        info: Info,
        id: Id,  # noqa: A002 - the API's name
        after: Resume = UNSET,
    ) -> AsyncIterator[RunEvent]:
        context = info.context
        async with aclosing(run_changes.watch(context.db, context.broadcast, id, after or None)) as changes:
            async for change in changes:
                for event in built(_run_event, [change]):
                    yield event

    @subscription(
        VIEWER,
        "The log of a run from the cursor (null: from the start), then live; completes with the run.  "
        "Errors: NOT_FOUND.",
        of_one=True,
    )
    async def run_log(
        self,
        info: Info,
        run_id: Id,
        after: Resume = UNSET,
    ) -> AsyncIterator[RunLogEvent]:
        context = info.context
        async with aclosing(run_changes.watch_log(context.db, context.broadcast, run_id, after or None)) as batches:
            async for batch in batches:
                yield RunLogEvent.of(batch)


def built(make: Callable[[Model], Built], models: Iterable[Model]) -> Iterator[Built]:
    """Yield `make(model)` for each model.  A model for which it fails is logged and skipped; the stream goes on."""
    for model in models:
        try:
            made = make(model)
        except Exception:
            logger.exception("%s cannot be converted for its subscribers and is skipped", type(model).__name__)
        else:
            yield made


def _run_event(change: run_changes.RunChange) -> RunEvent:
    return RunEvent(run=Run.from_model(change.run), at=change.at, cursor=change.cursor)


def _event(change: deployment_changes.Change) -> DeploymentEvent:
    return DeploymentEvent(
        deployment_id=strawberry.ID(str(change.event.deployment_id)),
        status=change.event.status,
        run=None if change.run is None else Run.from_model(change.run),
        at=change.event.at,
        cursor=change.cursor,
        key=change.event.deployment_id,
        is_deletion=change.is_deletion,
    )
