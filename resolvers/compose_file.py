"""The rules for the Compose files of a package.  Everything else is checked by Compose itself, during a run."""

from collections.abc import Iterator

import yaml

from runner.compose.file import Reading, Reference
from runner.compose.yaml_events import MERGE, Unreadable, events

OWN_LEVELS = 2  # above a project's directory: ~/.daos/projects and ~/.daos
NOTHING_TO_DEPLOY = "must have services, as a mapping with at least one, or include"
EMPTY = "is empty; it must be a mapping with services or include, for example {services: {web: {image: 'caddy:2'}}}"
NO_MAPPING = "must have services as a mapping"
NO_LIST = "must have include as a list"


def problem_of(text: str, *, has_override: bool) -> str | None:
    """Return what is wrong with `text` as a Compose file, to be put after its name; None if nothing is.

    `has_override`: the package has an override file, which can define the services.
    """
    documents = depth = 0
    deploys = has_override
    entry = _Entry()
    try:
        for event in events(text):
            documents += isinstance(event, yaml.DocumentStartEvent)
            if isinstance(event, yaml.NodeEvent):
                if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                    return "must be a mapping with services or include"
                if depth == 1:
                    entry.add(event)
                    if entry.problem is not None:
                        return entry.problem
                deploys = deploys or entry.deploys or (depth == 2 and entry.is_open)  # noqa: PLR2004 - inside
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    except Unreadable as error:
        return str(error)
    if documents == 0:
        return EMPTY
    return None if deploys else NOTHING_TO_DEPLOY


class _Entry:
    """The current entry of a document's mapping; keys and values alternate."""

    def __init__(self) -> None:
        self.deploys = False  # an alias or a merge key stands for services, or could
        self.is_open = False  # the nodes inside are services or includes
        self.problem: str | None = None
        self._key: str | None = None
        self._is_value = False

    def add(self, event: yaml.NodeEvent) -> None:
        """Process the next key or value."""
        self.is_open = False
        if self._is_value:
            self._value(event)
        else:
            self._key = event.value if isinstance(event, yaml.ScalarEvent) else None
        self._is_value = not self._is_value

    def _value(self, event: yaml.NodeEvent) -> None:
        if self._key not in ("services", "include", MERGE) or getattr(event, "tag", None) == "!reset":
            return
        if isinstance(event, yaml.AliasEvent) or self._key == MERGE:
            self.deploys = True
        elif self._key == "services":
            self.is_open = isinstance(event, yaml.MappingStartEvent)
            self.problem = None if self.is_open else NO_MAPPING
        else:
            self.is_open = isinstance(event, yaml.SequenceStartEvent)
            is_null = isinstance(event, yaml.ScalarEvent) and event.value in ("", "~", "null")
            self.problem = None if self.is_open or is_null else NO_LIST


def problems_of(reading: Reading) -> Iterator[tuple[str, str]]:
    """Yield the references that can never be valid: the file that contains each one, and what is wrong with it."""
    for reference in reading.references:
        if 1 <= reference.levels_up <= OWN_LEVELS:
            yield reference.file, _leads_into_daos(reference)


def _leads_into_daos(reference: Reference) -> str:
    return (
        f"'{reference.path}' at {reference.key} leads out of the project's directory, into the directories of daos on "
        "the host; put the file into the package, and name it by its path inside the project"
    )
