"""The server's log: one line an event, on stderr, whatever a user has written into it."""

import logging
import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class OneLine(logging.Formatter):
    """Shows control characters in messages as escapes, so that user text cannot forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = CONTROL.sub(lambda found: ascii(found.group())[1:-1], record.message)
        return super().formatMessage(record)


def configure(level: str) -> None:
    """Send everything to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("{asctime} {levelname:7} {name}: {message}", style="{"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("aiosqlite", "alembic", "websockets", "uvicorn.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
