"""What is kept on the host, and read back."""

import pytest

from runner.host.comparison import compare
from runner.host.notes import Notes, Sight
from tests.runner.host.packages import MANY, MANY_FILES, PLACES, package, running


def test_notes_are_read_as_they_were_written() -> None:
    notes = compare(package({"PASSWORD": "p"}, **MANY_FILES), MANY, PLACES, Sight(containers=[running()])).notes
    assert Notes.read(notes.write()) == notes
    assert "\n" not in notes.write()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"contents": []}',
        '{"contents": {"web": 1}}',
        '{"contents": {"web": {"file a": 1}}}',
        '{"before": {"web-1": []}}',
        '{"files": {"a": []}}',
        '{"files": {"a": ["x"]}}',
        '{"files": {"a": ["x", "y"]}}',
    ],
)
def test_notes_of_another_shape_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"object|Expecting|digests|checksum"):
        Notes.read(text)
