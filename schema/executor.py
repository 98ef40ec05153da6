"""Executes operations within the limits on bytes and time, in slices of the event loop's time.

Every value of an answer passes through here, whatever its type, so that no field can escape the limits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from graphql import ExecutionResult, OperationType, is_leaf_type, is_non_null_type
from graphql.pyutils import gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from schema.answer import ERROR, OBJECT, Answer, AnswerTooLarge, Budget, size_of
from schema.context import Context
from schema.limits import Limits, too_complex
from schema.pace import Pace
from schema.sharing import Shareable, SharedData


@dataclass
class _Completed:
    """The values of a list; those at the indexes in `unfinished` are still awaitable."""

    values: list[Any]
    unfinished: list[int]

    async def finished(self) -> list[Any]:
        values = await gather_with_cancel(*(self.values[index] for index in self.unfinished))
        for index, value in zip(self.unfinished, values, strict=True):
            self.values[index] = value
        return self.values


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Strawberry's executor with these limits; a `Shareable` event is executed once for all its subscribers."""

    limits = Limits()
    pace = Pace()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget = self._new_budget()

    def build_per_event_executor(self, payload: Any) -> Any:
        executor: Any = super().build_per_event_executor(payload)
        executor.budget = self._new_budget()
        return executor

    def _new_budget(self) -> Budget:
        context = self.context_value
        share = context.share if isinstance(context, Context) else None
        return Budget(self.limits.answer, None if share is None else share())

    def execute_operation(self, serially: bool | None = None) -> Any:
        if self.operation.operation is not OperationType.SUBSCRIPTION:
            return self._answered(super().execute_operation(serially))
        if self.pace.is_over:  # other subscriptions were woken by the same notification
            return self._execute_event_later(serially)
        result = self._execute_event(serially)
        return self._in_time(result) if self.is_awaitable(result) else result

    async def _execute_event_later(self, serially: bool | None) -> Any:
        await self.pace.turn()
        result = self._execute_event(serially)
        return await self._in_time(result) if self.is_awaitable(result) else result

    def _execute_event(self, serially: bool | None) -> Any:
        if not isinstance(self.root_value, Shareable):
            return self._answered(super().execute_operation(serially))
        # Cached documents are the same object, see `schema.documents`.
        key = id(self.operation), repr(sorted(self.variable_values.coerced.items()))
        found = self.root_value.made.get(key)
        if found is not None:
            return found[0]
        result: Any = self._answered(super().execute_operation(serially))
        if isinstance(result, ExecutionResult) and result.data is not None and not result.errors:
            result = ExecutionResult(SharedData(result.data, self.budget.spent))
            self.root_value.made[key] = result, self.operation  # the reference keeps the operation's `id` unique
        return result

    def _answered(self, result: Any) -> Any:
        """Return the result with an answer that knows its size, or with only the error that refuses it."""
        if self.is_awaitable(result):
            return self._answered_later(result)
        if isinstance(result, ExecutionResult) and self.budget.is_spent:
            if self.budget.share is not None:
                self.budget.share.release()
            return ExecutionResult(None, [self.budget.refusal or AnswerTooLarge(self.budget.most)])
        if isinstance(result, ExecutionResult) and result.data is not None:
            return ExecutionResult(Answer(result.data, self.budget.spent, self.budget.share), result.errors)
        return result

    async def _answered_later(self, result: Awaitable[Any]) -> Any:
        return self._answered(await result)

    async def _in_time(self, result: Awaitable[Any]) -> Any:
        """Await the result of an event; a timeout ends its subscription.  Raises: GraphQLError."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await result
        except TimeoutError as error:
            advice = "Select fewer fields, or smaller pages."
            what = f"An event of the subscription took more than {self.limits.seconds:g} seconds.  {advice}"
            raise too_complex("seconds", self.limits.seconds, what) from error

    def execute_field(self, *args: Any) -> Any:
        self.budget.check()  # an answer that is already too large reads nothing more
        return super().execute_field(*args)

    def complete_leaf_value(self, return_type: Any, result: Any) -> Any:  # type: ignore[override] # static in the base class
        value = super().complete_leaf_value(return_type, result)
        self.budget.charge(size_of(value))
        return value

    def complete_object_value(self, *args: Any) -> Any:
        self.budget.charge(OBJECT)
        return super().complete_object_value(*args)

    async def complete_awaitable_value(  # noqa: PLR0917 - graphql-core's signature
        self, return_type: Any, details: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        paced = self._paced(result)
        return await super().complete_awaitable_value(return_type, details, info, path, paced, position_context)

    def complete_iterable_value(  # noqa: PLR0917 - graphql-core's signature
        self, item_type: Any, details: Any, info: Any, path: Any, items: Any, position_context: Any
    ) -> Any:
        """Complete a list like graphql-core; if the slice ends in the middle, the rest is completed later."""
        if is_leaf_type(item_type.of_type if is_non_null_type(item_type) else item_type):
            return super().complete_iterable_value(item_type, details, info, path, items, position_context)
        completed = _Completed([], [])
        pending = enumerate(items)

        def complete(index: int, item: object) -> None:
            where = path.add_key(index, None)
            if self.complete_list_item_value(item, completed.values, item_type, details, info, where, position_context):
                completed.unfinished.append(index)

        try:
            for index, item in pending:
                complete(index, item)
                if self.pace.is_over:
                    return self._complete_rest(completed, pending, complete)
        except Exception:
            self._discard(completed)
            raise
        return completed.finished() if completed.unfinished else completed.values

    async def _complete_rest(
        self, completed: "_Completed", pending: Iterator[tuple[int, object]], complete: Callable[[int, object], None]
    ) -> list[Any]:
        try:
            for index, item in pending:
                await self.pace.turn()
                self.budget.check()
                complete(index, item)
        except BaseException as error:
            if not isinstance(error, Exception):
                self.budget.spend_all()  # canceled: fields in progress stop at their next field
            self._discard(completed)
            raise
        return await completed.finished()

    def _discard(self, completed: "_Completed") -> None:
        """Await the unfinished values in the background and discard them, as graphql-core does."""
        if completed.unfinished:
            self.settle_in_background([completed.values[index] for index in completed.unfinished])

    async def _paced(self, awaitable: Awaitable[Any]) -> Any:
        if self.budget.is_spent and isinstance(awaitable, Coroutine):
            awaitable.close()  # it would read what is never sent
        self.budget.check()
        value = await awaitable
        await self.pace.turn()
        return value

    def handle_field_error(self, raw_error: Exception, return_type: Any, details: Any, path: Any) -> None:
        if isinstance(raw_error, AnswerTooLarge):
            # The whole answer is refused, not one field: the error propagates through all nullable fields.
            if self.budget.refusal is None:  # later ones come from fields that are no longer read
                self.budget.refusal = raw_error.at([each.node for each in details], path)
                self.budget.spend_all()  # also if a loader has refused to read
            raise raw_error
        super().handle_field_error(raw_error, return_type, details, path)
        self.budget.spent += ERROR


def executor_of(limits: Limits, pace: Pace) -> type[Executor]:
    """Return an executor class with `limits` and `pace`: graphql-core takes a class and creates the instances."""
    return type("Executor", (Executor,), {"limits": limits, "pace": pace})
