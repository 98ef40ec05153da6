"""The server's log: one line per event, on stderr, with user text escaped."""

import json
import logging
import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)
REQUEST_ID = re.compile(r"[\w.+/=-]{1,64}", re.ASCII)

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)  # of the current request


def request_id_of(given: str | None) -> str:
    """Return the client's or proxy's request id if it is short and plain, otherwise a new id."""
    return given if given is not None and REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


class Text(logging.Formatter):
    """Formats a line for people.  Control characters are escaped, so that user text cannot forge a line."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname:7} {name}: {message}", style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        pairs = [f"{name}={_shown(value)}" for name, value in _fields(record).items()]
        record.message = _escaped(" ".join([record.message, *pairs]))
        return super().formatMessage(record)

    def formatException(self, ei: "logging._SysExcInfoType") -> str:  # noqa: N802 - logging's name
        # Indented: the text of an exception may have several lines.
        return "\n".join(f"    {_escaped(line)}" for line in super().formatException(ei).splitlines())


class JSON(logging.Formatter):
    """Formats a line as a JSON object, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str, form: str = "text") -> None:
    """Log to stderr at `level`, as `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSON() if form == "json" else Text())
    handler.addFilter(_renamed)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("aiosqlite", "alembic", "websockets", "uvicorn.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _renamed(record: logging.LogRecord) -> bool:
    """Rename uvicorn's usual logger, `uvicorn.error`, which makes every line look like an error."""
    if record.name == "uvicorn.error":
        record.name = "uvicorn"
    return True


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    """Return the fields of a record: `extra={"fields": …}`, and the id of its request."""
    request = request_id.get()
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields if request is None else {"request": request, **fields}


def _shown(value: object) -> str:
    if value is None or value == []:
        return "-"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if PLAIN.fullmatch(text) or isinstance(value, list) else json.dumps(text)


def _escaped(text: str) -> str:
    return CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)
