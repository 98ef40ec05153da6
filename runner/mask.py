"""Masks known secrets in the output of a run, in each form in which they may appear.  Pure.

The text may have been cut before, by the script on the host, by Docker, by the action plugin, or by `runner.host.text`.
Where a mark shows that, the beginning or the end of a secret is masked too.  What a container itself derives from a
secret, such as base64, is not known and not masked.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, quote_plus

from db.containers import Container
from db.encryption import Secret
from db.status import End
from runner.host.text import printable

MASK = "********"
SHORTEST_MASKED = 4  # characters; masking the letter "a" would make the log unreadable and reveal the secret
SHORTEST_CUT = 500  # bytes; the script cuts the last line of a program to this length, and leaves no mark
MAX_WARNING = 2000  # characters
MAX_SENTENCE = 4000  # characters of a run's message, which every list of runs contains

_CUT = re.compile(r"…|\.{3,}")  # ours, and Docker's


@dataclass
class Mask:
    """Masks known secrets in text."""

    values: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, secrets: Iterable[Secret]) -> "Mask":
        """Return a mask for `secrets`, and for each line of secrets with several, in all their forms."""
        values = {form for secret in secrets for form in _forms(secret.reveal())}
        long_enough = (value for value in values if len(value) >= SHORTEST_MASKED)
        return cls(sorted(long_enough, key=len, reverse=True))  # a secret inside another one must come later

    def __call__(self, text: str) -> str:
        for value in self.values:
            text = text.replace(value, MASK)
        return self._hide_parts(text)

    def _hide_parts(self, text: str) -> str:
        """Return `text` without the beginning of a secret before a cut, and without the end of one after a cut."""
        marks = [(mark.start(), mark.end()) for mark in _CUT.finditer(text)]
        if len(text.encode(errors="replace")) >= SHORTEST_CUT:
            marks.append((len(text), len(text)))
        if not marks:
            return text
        begun = [value for value in self.values if value[:SHORTEST_MASKED] in text]
        ended = [value for value in self.values if value[-SHORTEST_MASKED:] in text]
        hidden = [(_begin(text, mark, begun), mark) for mark, _ in marks]
        hidden += [(mark, _end(text, mark, ended)) for _, mark in marks]
        shown, rest = [], 0
        for first, last in sorted(hidden):
            if first >= last:
                continue
            shown += [text[rest:first], MASK] if first >= rest else []
            rest = max(rest, last)
        return "".join([*shown, text[rest:]])

    def hide(self, end: End) -> End:
        """Return `end` with its texts masked and shortened for lists."""
        warnings = (self(warning)[:MAX_WARNING] for warning in end.warnings)
        return replace(
            end,
            message=self(end.message)[:MAX_SENTENCE],
            containers=[self._hide_container(container) for container in end.containers],
            warnings=list(dict.fromkeys(warnings)),
        )

    def _hide_container(self, container: Container) -> Container:
        return replace(
            container,
            name=self(container.name),
            service=self(container.service),
            image=self(container.image),
            ports=tuple(map(self, container.ports)),
        )


def _forms(value: str) -> Iterator[str]:
    """Yield the forms of the secret and of its lines: unchanged, without unprintable characters, and quoted."""
    for part in (value, *value.split("\n"), *value.splitlines()):
        shown = printable(part)
        in_json = json.dumps(part, ensure_ascii=False)[1:-1]
        yield part
        yield shown
        yield " ".join(shown.split())  # see `runner.host.text.one_line`
        yield in_json
        yield json.dumps(part)[1:-1]
        yield re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", in_json)  # as Go writes JSON
        yield repr(part)[1:-1]  # as Go quotes in messages
        yield part.replace("$", "$$")  # as Compose prints its configuration
        for in_url in (quote(part), quote(part, safe=""), quote_plus(part)):  # as programs print URLs
            yield in_url
            yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), in_url)


def _begin(text: str, stop: int, secrets: Sequence[str]) -> int:
    """Return where the longest prefix of a secret that ends at `stop` begins; `stop` if there is none."""
    found = stop
    for secret in secrets:
        first = text.find(secret[:SHORTEST_MASKED], max(0, stop - len(secret)), stop)
        while 0 <= first < found:
            if secret.startswith(text[first:stop]):
                found = first
                break
            first = text.find(secret[:SHORTEST_MASKED], first + 1, stop)
    return found


def _end(text: str, start: int, secrets: Sequence[str]) -> int:
    """Return where the longest suffix of a secret that begins at `start` ends; `start` if there is none."""
    found = start
    for secret in secrets:
        last = text.rfind(secret[-SHORTEST_MASKED:], start, start + len(secret))
        while last >= start:
            stop = last + SHORTEST_MASKED
            if stop > found and secret.endswith(text[start:stop]):
                found = stop
                break
            last = text.rfind(secret[-SHORTEST_MASKED:], start, stop - 1)
    return found
