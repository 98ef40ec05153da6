"""Ids as clients write them."""

from uuid import UUID

import pytest

from resolvers import ids
from tests.support.attacks import LONG, PATHS, TEMPLATES, UNPRINTABLE, short

ID = "01900000-0000-7000-8000-0123456789ab"


@pytest.mark.parametrize("text", [ID, ID.upper()])
def test_an_id_is_read_in_either_case(text: str) -> None:
    assert ids.parse(text) == UUID(ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        ID.replace("-", ""),
        f"{{{ID}}}",
        f"urn:uuid:{ID}",
        f" {ID}",
        f"{ID}\n",
        ID.replace("1", "\uff11"),
        ID.replace("a", "g"),
        LONG,
        *TEMPLATES,
        *PATHS,
        *UNPRINTABLE,
    ],
    ids=short,
)
def test_anything_else_is_an_id_that_nothing_has(text: str) -> None:
    assert ids.parse(text) is None
