"""What an operation answers: how large it may be, and its JSON, which is encoded piece by piece."""

import json
from collections.abc import Mapping
from typing import Any

from graphql import GraphQLError, Node
from graphql.pyutils import Path

from resolvers.errors import ErrorCode
from schema.pace import Pace

MAX_ANSWER = 32 * 1024 * 1024  # bytes
LARGE = 64 * 1024  # bytes; what is smaller is encoded at once
VALUE = 32  # bytes of a number, a truth value or a null, with its place
OBJECT = 240  # bytes of a dictionary with some members
ERROR = 1024  # bytes of an error with its path and what is said of it

ENCODER = json.JSONEncoder(separators=(",", ":"))


class AnswerTooLarge(GraphQLError):
    """An answer, or an event's, has more bytes than it may."""

    def __init__(self, most: int, nodes: list[Node] | None = None, path: Path | None = None) -> None:
        where = "" if path is None else f" at '{'.'.join(str(key) for key in path.as_list() if isinstance(key, str))}'"
        message = (
            f"The answer has more than {most} bytes{where}.  Select less of it at once: smaller pages, and the content "
            "of files, Compose files, variables and logs only where it is needed."
        )
        extensions = {"code": ErrorCode.OPERATION_TOO_COMPLEX.value, "status": 400, "limit": "answer", "max": most}
        super().__init__(message, nodes, path=None if path is None else path.as_list(), extensions=extensions)


class Budget:
    """The bytes that one answer, or one event, may still have."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.spent = 0
        self.refusal: AnswerTooLarge | None = None  # at the field that was too much

    @property
    def is_spent(self) -> bool:
        return self.spent > self.most

    def spend_all(self) -> None:
        """Have everything refused from now on."""
        self.spent = max(self.spent, self.most + 1)

    def charge(self, size: int) -> None:
        """Count what is put into the answer.  Raises: AnswerTooLarge, from then on."""
        self.spent += size
        self.check()

    def check(self) -> None:
        """Raises: AnswerTooLarge."""
        if self.is_spent:
            raise AnswerTooLarge(self.most)


def size_of(value: object) -> int:
    """The bytes of a leaf in memory; several times those of its characters where they are not ASCII, as in JSON."""
    return value.__sizeof__() if isinstance(value, str) else VALUE


class Answer(dict[str, Any]):
    """The `data` of an answer; `size` is about how many bytes it has."""

    def __init__(self, data: Mapping[str, Any], size: int) -> None:
        super().__init__(data)
        self.size = size

    @property
    def is_large(self) -> bool:
        return self.size > LARGE


class Encoder:
    """Encodes answers as JSON, while others are served."""

    def __init__(self, pace: Pace, most: int) -> None:
        self._pace = pace
        self._most = most  # bytes of one

    async def encode(self, value: object) -> str:
        """The value as JSON.  Raises: AnswerTooLarge."""
        pieces = []
        size = 0
        for piece in ENCODER.iterencode(value):
            pieces.append(piece)
            size += len(piece)  # all of it is ASCII
            if size > self._most:
                raise AnswerTooLarge(self._most)
            if self._pace.is_over:
                await self._pace.turn()
        return "".join(pieces)
