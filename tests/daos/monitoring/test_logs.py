"""The server's log: lines that user text cannot forge."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from daos.monitoring import logs

FORGED = "x\r\n2026-01-31 12:00:00,000 INFO    daos: all is well\x1b[2K\u2028\u202e\x00"


@contextmanager
def logging_to(formatter: logging.Formatter) -> Iterator[io.StringIO]:
    """Collects what a logger writes in this format."""
    handler = logging.StreamHandler(written := io.StringIO())
    handler.setFormatter(formatter)
    logger = logging.getLogger("tests.logs")
    logger.addHandler(handler)
    token = logs.request_id.set("request-7")
    try:
        yield written
    finally:
        logs.request_id.reset(token)
        logger.removeHandler(handler)


def fail(words: str) -> logging.LogRecord:
    """Log an exception that quotes a user."""
    try:
        raise ValueError(words)
    except ValueError:
        return logging.getLogger("tests.logs").makeRecord(
            "tests.logs", logging.ERROR, "", 0, "it failed", (), sys.exc_info()
        )


def test_a_line_has_its_fields_and_its_request() -> None:
    fields = {"operation": None, "codes": ["A", "B"], "none": [], "principal": "two words", "ms": 1.5}
    with logging_to(logs.Text()) as written:
        logging.getLogger("tests.logs").error("operation", extra={"fields": fields})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR   tests.logs: operation request=request-7 operation=- codes=A,B "
        r'none=- principal="two words" ms=1.5\n',
        written.getvalue(),
    )


def test_user_text_cannot_forge_a_line() -> None:
    with logging_to(logs.Text()) as written:
        logging.getLogger("tests.logs").error("%s", FORGED, extra={"fields": {"name": FORGED}})
    [line] = written.getvalue().splitlines()
    assert line.isprintable()
    assert "\\r\\n2026" in line


def test_an_exceptions_text_cannot_forge_a_line() -> None:
    first, *others = logs.Text().format(fail(FORGED)).splitlines()
    assert first.endswith("ERROR   tests.logs: it failed")
    assert others
    assert all(line.startswith("    ") for line in others)
    assert any("all is well" in line for line in others)


def test_json_lines_are_objects() -> None:
    with logging_to(logs.JSON()) as written:
        logging.getLogger("tests.logs").error("%s", FORGED, extra={"fields": {"codes": ["A"]}})
    [line] = written.getvalue().splitlines()
    assert line.isascii()
    record = json.loads(line)
    assert datetime.fromisoformat(record.pop("time")).tzinfo is not None
    assert record == {
        "level": "ERROR",
        "logger": "tests.logs",
        "message": FORGED,
        "request": "request-7",
        "codes": ["A"],
    }


def test_json_has_the_traceback() -> None:
    record = json.loads(logs.JSON().format(fail(FORGED)))
    assert record["traceback"].startswith("Traceback")
    assert "all is well" in record["traceback"]


@pytest.mark.parametrize("given", ["7", "a-b_c.d", "0af7651916cd43dd8448eb211c80319c", "x" * 64])
def test_a_plain_request_id_is_kept(given: str) -> None:
    assert logs.request_id_of(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a\nb", "ä", '"'])
def test_another_request_id_is_made(given: str | None) -> None:
    made = logs.request_id_of(given)
    assert made != logs.request_id_of(given)
    assert re.fullmatch("[0-9a-f]{16}", made)
