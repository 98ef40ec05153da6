"""DateTime: RFC 3339 with an offset in, UTC with three digits and `Z` out."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from schema.scalars import _parse, _serialize


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (datetime(2026, 1, 31, 12, 0, tzinfo=UTC), "2026-01-31T12:00:00.000Z"),
        (datetime(2026, 1, 31, 12, 0, 0, 123999, tzinfo=UTC), "2026-01-31T12:00:00.123Z"),
        (datetime(2026, 1, 31, 12, 0, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-01-31T06:30:00.000Z"),
    ],
)
def test_a_time_is_shown_in_utc_with_three_digits(moment: datetime, shown: str) -> None:
    assert _serialize(moment) == shown


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00.000+01:00", "2026-01-31T06:30:00-05:30"])
def test_a_time_is_read_with_its_offset(text: str) -> None:
    assert _parse(text) == datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"])
def test_a_time_outside_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="DateTime must be in the years 1 to 9999"):
        _parse(text)


@pytest.mark.parametrize(
    "value", ["2026-01-31T12:00:00", "2026-01-31", "12:00:00Z", "yesterday", "", 0, 1.5, None, True, ["2026"]]
)
def test_what_names_no_moment_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="DateTime must"):
        _parse(value)
