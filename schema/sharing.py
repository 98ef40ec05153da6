"""Builds an event once for all subscribers of a stream: a thousand subscribers of a run mostly select the same fields.

A `Shareable` event contains only what it holds: no data of one subscriber, and nothing that is read on demand.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from schema.answer import Answer, Encoder


class Shareable:
    """An event for several subscribers; `made` caches what was built from it for one of them."""

    made: dict[object, Any]


class SharedData(Answer):
    """The `data` of an event for several subscribers; it must not be changed."""

    def __init__(self, data: Mapping[str, Any], size: int) -> None:
        super().__init__(data, size)
        self._text: str | None = None
        self._encoding = asyncio.Lock()

    async def text(self, encoder: Encoder) -> str:
        """Return it as JSON, encoded once.  Raises: AnswerTooLarge."""
        if self._text is None and not self.is_large:
            self._text = json.dumps(self, separators=(",", ":"))
        if self._text is None:
            async with self._encoding:  # the others wait for the first
                self._text = self._text or await encoder.encode(self)
        return self._text
