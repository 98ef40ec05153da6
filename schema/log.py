"""Logs one line per operation: its name and type, its principal, and how it ended, but never its content."""

import logging
import re
import time
from collections.abc import Iterator

from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import InvalidOperationTypeError

from schema.errors import code_of

logger = logging.getLogger(__name__)

NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,63}")


class OperationLog(SchemaExtension):
    """Logs an operation when it ends; a subscription ends when it completes or the client disconnects."""

    def on_operation(self) -> Iterator[None]:
        start = time.perf_counter()
        raised: BaseException | None = None
        try:
            yield
        except BaseException as error:
            raised = error
            raise
        finally:
            # The HTTP endpoint retries this type of operation in another way, or logs its refusal.
            if not isinstance(raised, InvalidOperationTypeError):
                self._log(time.perf_counter() - start, code_of(raised) if isinstance(raised, Exception) else None)

    def _log(self, seconds: float, raised: str | None) -> None:
        context = self.execution_context
        codes = {error.extensions.get("code") for error in context.pre_execution_errors or () if error.extensions}
        principal = getattr(context.context, "principal", None)
        fields = {
            "operation": _plain(context.operation_name),
            "type": self._type(),
            "principal": getattr(principal, "name", None),
            "token_id": getattr(principal, "token_id", None),
            "codes": sorted(str(code) for code in {*codes, raised} if code),
            "duration_ms": round(seconds * 1000, 1),
        }
        logger.info("operation", extra={"fields": fields})

    def _type(self) -> str | None:
        try:
            return self.execution_context.operation_type.value
        except RuntimeError:  # the document has no such operation
            return None


def _plain(name: str | None) -> str | None:
    """Return the operation's name if it is valid, otherwise None: a request can contain any text there."""
    return name if name is not None and NAME.fullmatch(name) else None
