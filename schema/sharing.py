"""Lets the subscribers of one stream have their events made once: a thousand who follow a run ask mostly the same.

An event that is `Shareable` shows nothing but what it holds: nobody's own data, and nothing that is read for it.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from schema.answer import Answer, Encoder


class Shareable:
    """An event that several subscribers get; `made` is what was made of it for some, and others can use."""

    made: dict[object, Any]


class SharedData(Answer):
    """The `data` of an event that several subscribers get; nobody changes it."""

    def __init__(self, data: Mapping[str, Any], size: int) -> None:
        super().__init__(data, size)
        self._text: str | None = None
        self._encoding = asyncio.Lock()

    async def text(self, encoder: Encoder) -> str:
        """It as JSON, encoded once.  Raises: AnswerTooLarge."""
        if self._text is None and not self.is_large:
            self._text = json.dumps(self, separators=(",", ":"))
        if self._text is None:
            async with self._encoding:  # others wait for the first
                self._text = self._text or await encoder.encode(self)
        return self._text
