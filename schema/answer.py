"""The response to an operation: the limit on its size, and its JSON, which is encoded incrementally."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from graphql import GraphQLError, Node
from graphql.pyutils import Path

from resolvers.errors import ErrorCode
from schema.pace import Pace

MAX_ANSWER = 32 * 1024 * 1024  # bytes
AT_ONCE = 4  # answers of the largest size that may be produced for, or in transit to, one token
LARGE = 64 * 1024  # bytes; smaller answers are encoded in one go
VALUE = 32  # bytes of a number, a boolean, or a null, with its slot
OBJECT = 240  # bytes of a dictionary with some members
ERROR = 1024  # bytes of an error with its path and extensions

ENCODER = json.JSONEncoder(separators=(",", ":"))


class AnswerTooLarge(GraphQLError):
    """An answer, or that of an event, exceeds the limit on its bytes."""

    what = "The answer has more than {most} bytes{where}."
    advice = (
        "Select less at once: smaller pages, and the content of files, Compose files, variables and logs only "
        "where needed."
    )
    limit = "answer"
    status = 400

    def __init__(self, most: int, nodes: list[Node] | None = None, path: Path | None = None) -> None:
        where = "" if path is None else f" at '{'.'.join(str(key) for key in path.as_list() if isinstance(key, str))}'"
        message = f"{self.what.format(most=most, where=where)}  {self.advice}"
        code = ErrorCode.OPERATION_TOO_COMPLEX.value
        extensions = {"code": code, "status": self.status, "limit": self.limit, "max": most}
        super().__init__(message, nodes, path=None if path is None else path.as_list(), extensions=extensions)
        self.most = most

    def at(self, nodes: list[Node], path: Path) -> "AnswerTooLarge":
        """Return the same error at the field that exceeded the limit."""
        return type(self)(self.most, nodes, path)


class TooManyAnswers(AnswerTooLarge):
    """The large answers that are produced for, or in transit to, a token together exceed the limit on their bytes."""

    what = "The answers that this token has requested and not yet received exceed {most} bytes together{where}."
    advice = "Receive them first, or request less at once."
    limit = "answers"
    status = 429


class Outstanding:
    """Counts, for each token, the bytes of the large answers that are produced for it or in transit to it."""

    def __init__(self, most: int) -> None:
        self.most = most  # of one token
        self._bytes: Counter[str] = Counter()

    def share(self, key: str) -> "Share":
        """Return the share of one more answer, empty at first."""
        return Share(self, key)

    def add(self, key: str, size: int) -> None:
        """Count `size` more bytes for the token.  Raises: TooManyAnswers."""
        if self._bytes[key] + size > self.most:
            raise TooManyAnswers(self.most)
        self._bytes[key] += size

    def remove(self, key: str, size: int) -> None:
        self._bytes[key] -= size
        if not self._bytes[key]:
            del self._bytes[key]


class Share:
    """The part of a token's outstanding bytes that one answer or event holds until it is released."""

    def __init__(self, outstanding: Outstanding, key: str) -> None:
        self._outstanding = outstanding
        self._key = key
        self._size = 0

    def grow(self, size: int) -> None:
        """Hold `size` bytes in total from now on.  Raises: TooManyAnswers."""
        self._outstanding.add(self._key, size - self._size)
        self._size = size

    def release(self) -> None:
        """Give the bytes back: the answer was sent, or will not be."""
        size, self._size = self._size, 0
        if size:
            self._outstanding.remove(self._key, size)

    def __del__(self) -> None:
        self.release()  # it was never sent: the operation was canceled, or the client has disconnected


class Budget:
    """Counts the bytes of one answer or event against its limit; those of a large one count in `share` too."""

    def __init__(self, most: int, share: Share | None = None) -> None:
        self.most = most
        self.share = share
        self.spent = 0
        self.refusal: AnswerTooLarge | None = None  # at the field that exceeded the limit

    @property
    def is_spent(self) -> bool:
        return self.spent > self.most

    def spend_all(self) -> None:
        """Refuse everything from now on."""
        self.spent = max(self.spent, self.most + 1)

    def charge(self, size: int) -> None:
        """Count what is added to the answer.  Raises: AnswerTooLarge, also for every later call."""
        self.spent += size
        self.check()
        if self.share is not None and self.spent > LARGE:
            self.share.grow(self.spent)

    def check(self) -> None:
        """Raises: AnswerTooLarge."""
        if self.is_spent:
            raise AnswerTooLarge(self.most)


def size_of(value: object) -> int:
    """Return the bytes of a leaf value in memory; non-ASCII text counts several times its length, as in JSON."""
    return value.__sizeof__() if isinstance(value, str) else VALUE


class Answer(dict[str, Any]):
    """The `data` of an answer; `size` is its approximate bytes, `share` is released when it has been sent."""

    def __init__(self, data: Mapping[str, Any], size: int, share: Share | None = None) -> None:
        super().__init__(data)
        self.size = size
        self.share = share

    @property
    def is_large(self) -> bool:
        return self.size > LARGE


class Encoder:
    """Encodes answers as JSON, yielding to the event loop meanwhile."""

    def __init__(self, pace: Pace, most: int) -> None:
        self._pace = pace
        self._most = most  # bytes of one answer

    async def encode(self, value: object) -> str:
        """Return the value as JSON.  Raises: AnswerTooLarge."""
        pieces = []
        size = 0
        for piece in ENCODER.iterencode(value):
            pieces.append(piece)
            size += len(piece)  # the encoder emits only ASCII
            if size > self._most:
                raise AnswerTooLarge(self._most)
            if self._pace.is_over:
                await self._pace.turn()
        return "".join(pieces)
