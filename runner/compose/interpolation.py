"""Finds the variables that Compose interpolates in a text or an env file.  Pure; YAML is read elsewhere.

The syntax is that of compose-go's packages `template` and `dotenv`, from Compose 2.26 on.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

PROVIDED = frozenset({"PWD", "HOME", "PATH", "COMPOSE_PROJECT_NAME"})  # always have a value
MAX_NESTING = 8  # levels of variables in defaults; deeper ones are not read
MAX_NAME = 128  # characters; a deployment cannot have a variable with a longer name

VARIABLE = re.compile(
    r"\$(?:\$|(?P<named>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?P<operator>:?[-+?])?)"
)
BRACE = re.compile(r"\{.?|\}")  # Compose skips the character after an opening brace
KEY = re.compile(r"(?:export[^\S\n]+)?([\w.\[\]-]*)[^\S\n]*([=:\n])")
QUOTED = {quote: re.compile(rf"{quote}([^{quote}\\]*(?:\\.[^{quote}\\]*)*){quote}", re.DOTALL) for quote in ("'", '"')}
ESCAPE = re.compile(r"\\(?:[abcfnrtv$\"\\]|0\d{0,3})")
BLANKS = re.compile(r"[^\S\n]*")
STATEMENT = re.compile(r"(?:\s+|#[^\n]*)*")


@dataclass(frozen=True)
class Requirement:
    """A variable that needs a value; without one, Compose uses a blank string, or fails.

    It counts only if none of `unless` and all of `when` have values: `${A:-${B}}` needs B unless A has a value, and
    `${A:+${B}}` needs B when A has a value.
    """

    name: str
    unless: tuple[str, ...] = ()
    when: tuple[str, ...] = ()

    def is_missing(self, given: Collection[str]) -> bool:
        """Whether the variable is needed and not among the names `given`."""
        return (
            self.name not in given
            and not any(name in given for name in self.unless)
            and all(name in given for name in self.when)
        )

    def knowing(self, names: Collection[str]) -> Self | None:
        """Return what remains of the requirement if `names` always have values; None if nothing does."""
        if self.name in names or any(name in names for name in self.unless):
            return None
        return type(self)(self.name, self.unless, tuple(name for name in self.when if name not in names))

    def as_json(self) -> dict[str, Any]:
        """Return the requirement in the form in which it is stored."""
        return {"name": self.name, "unless": list(self.unless), "when": list(self.when)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the requirement in the output of `as_json`."""
        return cls(stored["name"], tuple(stored["unless"]), tuple(stored["when"]))


def missing(requirements: Iterable[Requirement], given: Collection[str]) -> list[str]:
    """Return the names that are required and not given, sorted.  A name with an empty value is given."""
    return sorted({requirement.name for requirement in requirements if requirement.is_missing(given)})


def requirements_of(text: str) -> Iterator[Requirement]:
    """Yield what the variables in `text` require.  Text that Compose refuses as an invalid template is ignored."""
    return _in_text(text, Requirement(""), 0)


def _in_text(text: str, scope: Requirement, depth: int) -> Iterator[Requirement]:
    if "$" in text and depth <= MAX_NESTING:
        for line in text.split("\n"):  # no variable extends over the end of a line
            yield from _in_line(line, scope, depth)


def _in_line(line: str, scope: Requirement, depth: int) -> Iterator[Requirement]:
    last = line.rfind("}")
    position = 0
    while found := VARIABLE.search(line, position):
        position = found.end()
        name, operator = found["named"] or found["braced"], found["operator"]
        if operator is not None:
            end = _closing_brace(line, found.start() + 1, last)
            if end is None:
                return  # this and the rest of the line are invalid
            yield from _with_operator(name, operator, line[position:end], scope, depth)
            position = end + 1
        elif found["named"] or (found["braced"] and line.startswith("}", position)):
            yield from _one(name, scope)


def _one(name: str, scope: Requirement) -> Iterator[Requirement]:
    if len(name) <= MAX_NAME:
        yield Requirement(name, scope.unless, scope.when)


def _with_operator(name: str, operator: str, rest: str, scope: Requirement, depth: int) -> Iterator[Requirement]:
    if operator.endswith("?"):
        yield from _one(name, scope)
    elif operator.endswith("-"):
        yield from _in_text(rest, Requirement("", (*scope.unless, name), scope.when), depth + 1)
    else:
        yield from _in_text(rest, Requirement("", scope.unless, (*scope.when, name)), depth + 1)


def _closing_brace(line: str, opening: int, last: int) -> int | None:
    """Return where the variable whose brace opens at `opening` ends; if braces do not match, Compose uses the last."""
    if last < opening:
        return None
    depth = 0
    for brace in BRACE.finditer(line, opening, last + 1):
        depth += 1 if brace[0].startswith("{") else -1
        if depth == 0:
            return brace.start()
    return last


def read_env_file(data: bytes, known: set[str]) -> list[Requirement]:
    """Return what an env file requires, except what `known` and its own earlier lines provide.

    The names that it sets are added to `known`.  An invalid env file requires nothing, and sets nothing.
    """
    required: dict[Requirement, None] = {}
    names = set(known)
    for name, value in _assignments(data.decode(errors="replace").removeprefix("\ufeff")):
        if name is None:
            return []
        needed = (requirement.knowing(names) for requirement in requirements_of(value))
        required |= {requirement: None for requirement in needed if requirement is not None}
        names.add(name)
    known |= names
    return list(required)


def _assignments(text: str) -> Iterator[tuple[str | None, str]]:
    """Yield each variable with the template of its value; the name is None if the file is invalid."""
    position = 0
    while (position := _end(STATEMENT, text, position)) < len(text):
        key = KEY.match(text, position)
        if key is None:
            # Either a name without a value at the end of the file, which is valid, or not a name.
            if not re.fullmatch(r"[\w.\[\]-]+", text[position:]):
                yield None, ""
            return
        position = key.end()
        if key[2] == "\n":
            continue  # its value comes from the environment; without one there, it is not set
        position = _end(BLANKS, text, position)
        if text[position : position + 1] in QUOTED:
            quoted = QUOTED[text[position]].match(text, position)
            if quoted is None:
                yield None, ""
                return
            value = "" if quoted[0].startswith("'") else ESCAPE.sub(_unescaped, quoted[1])
            position = quoted.end()
        else:
            line = text[position : _line_end(text, position)]
            position += len(line)
            value = line.partition(" #")[0]
        yield key[1].strip(), value


def _unescaped(escape: re.Match[str]) -> str:
    return {r"\$": "$$", r"\n": "\n"}.get(escape[0], " ")


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position
