"""One line in the server's log for each operation: what it was, who asked, how it ended.  Never what it said."""

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
    """Logs an operation at its end; of a subscription that is when it completes or the client leaves."""

    def on_operation(self) -> Iterator[None]:
        start = time.perf_counter()
        raised: BaseException | None = None
        try:
            yield
        except BaseException as error:
            raised = error
            raise
        finally:
            # HTTP takes this kind of operation in another way, or refuses it and says so.
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
        except RuntimeError:  # there is no such operation
            return None


def _plain(name: str | None) -> str | None:
    """The operation's name, where it is one: a request can put anything there."""
    return name if name is not None and NAME.fullmatch(name) else None
