"""What an operation answers: how large it may be, and its JSON, which is encoded piece by piece."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from graphql import GraphQLError, Node
from graphql.pyutils import Path

from resolvers.errors import ErrorCode
from schema.pace import Pace

MAX_ANSWER = 32 * 1024 * 1024  # bytes
AT_ONCE = 4  # answers of the largest size that are made for one token, or on their way to it
LARGE = 64 * 1024  # bytes; what is smaller is encoded at once
VALUE = 32  # bytes of a number, a truth value or a null, with its place
OBJECT = 240  # bytes of a dictionary with some members
ERROR = 1024  # bytes of an error with its path and what is said of it

ENCODER = json.JSONEncoder(separators=(",", ":"))


class AnswerTooLarge(GraphQLError):
    """An answer, or an event's, has more bytes than it may."""

    what = "The answer has more than {most} bytes{where}."
    advice = (
        "Select less of it at once: smaller pages, and the content of files, Compose files, variables and logs only "
        "where it is needed."
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
        """The same error at the field that was too much."""
        return type(self)(self.most, nodes, path)


class TooManyAnswers(AnswerTooLarge):
    """The large answers that are made for a token, or on their way to it, have more bytes than they may together."""

    what = "The answers that this token has asked for and not yet received have more than {most} bytes together{where}."
    advice = "Receive them first, or ask for less at once."
    limit = "answers"
    status = 429


class Outstanding:
    """The bytes of the large answers that are made for each token, or on their way to it."""

    def __init__(self, most: int) -> None:
        self.most = most  # of one token
        self._bytes: Counter[str] = Counter()

    def share(self, key: str) -> "Share":
        """What one more answer has of it: nothing yet."""
        return Share(self, key)

    def add(self, key: str, size: int) -> None:
        """Raises: TooManyAnswers."""
        if self._bytes[key] + size > self.most:
            raise TooManyAnswers(self.most)
        self._bytes[key] += size

    def remove(self, key: str, size: int) -> None:
        self._bytes[key] -= size
        if not self._bytes[key]:
            del self._bytes[key]


class Share:
    """What one answer, or one event, has of its token's outstanding bytes, until it is released."""

    def __init__(self, outstanding: Outstanding, key: str) -> None:
        self._outstanding = outstanding
        self._key = key
        self._size = 0

    def grow(self, size: int) -> None:
        """Have `size` bytes from now on.  Raises: TooManyAnswers."""
        self._outstanding.add(self._key, size - self._size)
        self._size = size

    def release(self) -> None:
        """The answer was sent, or is not going to be."""
        size, self._size = self._size, 0
        if size:
            self._outstanding.remove(self._key, size)

    def __del__(self) -> None:
        self.release()  # nobody has sent it: its operation was canceled, or its client is gone


class Budget:
    """The bytes that one answer, or one event, may still have; a large one has them of its token's `share` too."""

    def __init__(self, most: int, share: Share | None = None) -> None:
        self.most = most
        self.share = share
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
        if self.share is not None and self.spent > LARGE:
            self.share.grow(self.spent)

    def check(self) -> None:
        """Raises: AnswerTooLarge."""
        if self.is_spent:
            raise AnswerTooLarge(self.most)


def size_of(value: object) -> int:
    """The bytes of a leaf in memory; several times those of its characters where they are not ASCII, as in JSON."""
    return value.__sizeof__() if isinstance(value, str) else VALUE


class Answer(dict[str, Any]):
    """The `data` of an answer; `size` is about how many bytes it has, `share` is to be released when it was sent."""

    def __init__(self, data: Mapping[str, Any], size: int, share: Share | None = None) -> None:
        super().__init__(data)
        self.size = size
        self.share = share

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
