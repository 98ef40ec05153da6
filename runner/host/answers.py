"""Answers the questions of the script on a host, from the facts that it has reported.

The script observes and acts (ansible/files/compose_project/); this module decides what it does next and whether it
succeeded, with `comparison`, `health`, and `compose_words`.  Ansible's process imports this module, so it uses the
standard library only.  What a host sends is not trusted: anything malformed raises HostAnswer.
"""

# Longer than 300 lines: one conversation with the script; what it answers is computed elsewhere.

import json
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from db.containers import Container
from db.phase import Phase
from runner.host import compose_words
from runner.host import places as reach
from runner.host.comparison import Comparison, compare, is_applied
from runner.host.content import Content
from runner.host.delivery import Delivery, archive
from runner.host.health import Watch
from runner.host.inspection import Inspection
from runner.host.model import Model, Places, model_for_up
from runner.host.notes import Built, Notes, Seen, Sight
from runner.host.pull_progress import PullProgress
from runner.host.verdict import Kind, Verdict

OLDEST_COMPOSE = (2, 26)  # the oldest release that the tests run with
FACTS = {
    "built",
    "compose",
    "directory",
    "docker",
    "exact",
    "fallback",
    "late",
    "model",
    "notes",
    "since",
    "status",
    "time",
    "tree",
}
MAX_FACTS = 5000  # of one kind; a package has at most 1000 files
MAX_SHOWN = 100  # characters of an unknown value in a message
MAX_WARNINGS = 100
MAX_CONTAINERS = 1000  # per project
MAX_OUTPUT = 2000  # lines that are kept to find a reason
MAX_ASKED = 20  # times that a question may be asked
MAX_VALUES = 500_000  # in the JSON of a fact; parsed, each value takes many times its size
MAX_CONTAINER = 1024 * 1024  # characters of one report; 10,000 published ports fit
MAX_SHOWN_OF_CONTAINERS = 256 * 1024  # characters of all containers together, which every list of runs reads
# What reading a malformed report can raise; OverflowError because JSON has 1e999, which is not an integer.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
KIBIBYTES = re.compile(r"[0-9]{1,15}")  # as df prints them
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")  # safe in a command: neither an option nor special to the shell
FAMILIAR = re.compile(r"(?:(?:index\.)?docker\.io/)?(?:library/)?(.+)")


class HostAnswer(ValueError):
    """The host has sent something that is malformed or unexpected."""


@dataclass(frozen=True)
class Limits:
    """Time limits in seconds, see `runner.host.health.Watch`; `recovery` is for the whole phase Recover."""

    settle: float = 2.0
    verify: float = 300.0
    run: float = 3600.0
    recovery: float = 12.0


@dataclass(frozen=True)
class Line:
    """A line for the run's log."""

    text: str
    is_warning: bool = False


class Answers:
    """The state of one run on one host, from the first line of the script's output to the last."""

    def __init__(
        self,
        project: str,
        delivery: Delivery | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Answer for this project; `delivery` is None if nothing is deployed."""
        self._project = project
        self._delivery = delivery
        self._limits = limits or Limits()
        self._clock = clock
        self._facts: dict[str, str] = {}
        self._named: list[str] = []
        self._image_ids: list[str] = []
        self._absent: list[str] = []
        self._paths: dict[str, set[str]] = {"changed": set(), "modified": set(), "missing": set(), "had": set()}
        self._hashes: dict[str, str] = {}
        self._baseline: list[Inspection] = []
        self._containers: list[Inspection] = []
        self._current_list = self._baseline  # the list that containers are added to
        self._has_inspected = False  # since the baseline
        self._up_ended: float | None = None  # when Compose had brought the project up
        self._asked: Counter[str] = Counter()
        self._free: list[int] = []  # bytes, of the disks that Docker and daos use
        self._has_requested_disk = False
        self._comparison: Comparison | None = None
        self._watch: Watch | None = None
        self._verdict: Verdict | None = None
        self._detail = ""
        self._last_lines: dict[str, str] = {}
        self._pull = PullProgress()
        self._lines: list[Line] = []
        self.warnings: list[str] = []
        self.begin(None)

    def begin(self, phase: Phase | None) -> None:
        """Begin a phase; None before the first."""
        self._phase = phase
        self._began = self._clock()
        self._output: deque[str] = deque(maxlen=MAX_OUTPUT)

    def has_work(self, phase: Phase) -> bool:
        """Whether Build or Pull has something to do; False before the plan is made."""
        found = self._comparison
        return found is not None and bool(found.build if phase is Phase.BUILD else found.pull)

    @property
    def fraction(self) -> float | None:
        """The progress of the phase, from 0 to 1; None if it is not known."""
        return self._pull.fraction if self._phase is Phase.PULL else None

    @property
    def containers(self) -> list[Container]:
        """The project's containers as last inspected, by name; a warning counts those that are left out."""
        inspections = self._containers if self._has_inspected else self._baseline
        last_seen = [inspection.container for inspection in inspections]
        shown: list[Container] = []
        room = MAX_SHOWN_OF_CONTAINERS
        for container in sorted(last_seen, key=lambda one: one.name):
            room -= len(json.dumps(container.write()))
            if room < 0:
                many = f"{len(last_seen) - len(shown)} of {len(last_seen)} containers"
                self._warn(f"{many} are not shown: what the host reports of them is too long.")
                break
            shown.append(container)
        return shown

    @property
    def has_changed(self) -> bool:
        """Whether containers have been created, removed, or started since the baseline."""
        return self._has_inspected and _starts(self._baseline) != _starts(self._containers)

    def take_lines(self) -> list[Line]:
        """Return the lines for the log that have accumulated since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def receive_output(self, text: str) -> None:
        """Process one line of output of Docker, Compose, or a container."""
        name, separator, rest = text.partition(" | ")
        if separator and self._verdict is not None and name in self._verdict.troubled.values():
            self._last_lines[name] = rest if rest.strip() else self._last_lines.get(name, "")
            self._lines.append(Line(text))
            return
        self._output.append(text)
        warning = compose_words.warning(text)
        if warning is not None:
            self._warn(warning)
            return
        shown = self._pull.feed(text, self._clock()) if self._phase is Phase.PULL else text
        if shown is not None:
            self._lines.append(Line(shown))

    def set_fact(self, key: str, value: str) -> None:
        """Store a fact that the host has reported.  Raises: HostAnswer."""
        match key:
            case "containers" | "baseline":
                self._begin_list(key)
            case "container":
                self._add_container(value)
            case "names" | "image" | "absent":
                self._add_image(key, value)
            case "changed" | "modified" | "missing" | "had":
                self._paths[key].add(value.removeprefix("./"))
                self._check_count(self._paths[key], "files")
            case "hash":
                service, _, digest = value.partition(" ")
                self._hashes[service] = digest
                self._check_count(self._hashes, "hashes")
            case "disk":
                free, _, _ = value.partition(" ")
                if KIBIBYTES.fullmatch(free):
                    self._free.append(int(free) * 1024)
            case _ if key in FACTS:
                if sum(map(value.count, "[{,")) > MAX_VALUES:
                    raise HostAnswer(f"{key} has more than {MAX_VALUES} values")
                self._facts[key] = value
            case _:
                raise HostAnswer(f"{key[:MAX_SHOWN]!r} is unknown")

    def _add_image(self, key: str, value: str) -> None:
        if key == "names":
            self._named, self._image_ids, self._absent = value.split(), [], []
            return
        found = self._image_ids if key == "image" else self._absent
        found.append(value)
        self._check_count(found, "images")

    def _check_count(self, found: Sized, what: str) -> None:
        if len(found) > MAX_FACTS:
            raise HostAnswer(f"it has more than {MAX_FACTS} {what}")

    def answer(self, question: str) -> bytes:
        """Return the answer to a question of the script.  Raises: HostAnswer."""
        answers = {
            "archive": self._answer_archive,
            "plan": self._answer_plan,
            "built": self._answer_built,
            "why": self._answer_why,
            "sentence": self._answer_sentence,
            "verdict": self._answer_verdict,
            "recovery": self._answer_recovery,
        }
        if question not in answers:
            raise HostAnswer(f"the host asks {question[:MAX_SHOWN]!r}")
        self._asked[question] += 1
        # While the host waits for its containers, it may ask for the verdict any number of times: that costs little.
        if question != "verdict" and self._asked[question] > (1 if question == "archive" else MAX_ASKED):
            raise HostAnswer(f"the host asks {question!r} too often")
        try:
            return answers[question]()
        except HostAnswer:
            raise
        except MALFORMED as error:
            raise HostAnswer(f"the host's report is malformed: {error}") from error

    def _begin_list(self, key: str) -> None:
        """Begin a list of containers: those that exist now, or those that existed before the run."""
        self._current_list = self._baseline if key == "baseline" else self._containers
        self._current_list.clear()
        self._has_inspected = key == "containers"
        if self._phase is Phase.UP and self._up_ended is None:
            self._up_ended = self._clock()

    def _add_container(self, value: str) -> None:
        if len(value) > MAX_CONTAINER:
            raise HostAnswer(f"a container is described in more than {MAX_CONTAINER} characters")
        try:
            container = Inspection.read(json.loads(value))
        except MALFORMED as error:
            raise HostAnswer(f"the description of a container is malformed: {error}") from error
        if len(self._current_list) >= MAX_CONTAINERS:
            raise HostAnswer(f"the project has more than {MAX_CONTAINERS} containers")
        self._current_list.append(container)

    def _warn(self, text: str) -> None:
        if text not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)
            self._lines.append(Line(text, is_warning=True))

    def _answer_archive(self) -> bytes:
        delivered = self._delivered().archive
        return _reply(size=len(delivered)) + delivered

    def _delivered(self) -> Delivery:
        if self._delivery is None:
            raise HostAnswer("nothing is deployed")
        return self._delivery

    def _compared(self) -> Comparison:
        if self._comparison is None:
            raise HostAnswer("nothing is planned yet")
        return self._comparison

    def _answer_plan(self) -> bytes:
        delivery = self._delivered()
        problem = self._version_problem()
        if problem is not None:
            return _reply(fail="DOCKER_UNAVAILABLE", detail=problem)
        model, places = self._model(), self._places()
        if missing := self._images_to_inspect(model):
            return _reply(inspect=" ".join(missing))
        problem = reach.place_problem(model, places)
        if problem is not None:
            return _reply(fail="COMPOSE_INVALID", detail=problem)
        content = Content(delivery.files, delivery.values)
        sight = self._sight()
        found = self._comparison = compare(content, model, places, sight)
        self._lines.append(Line(f"Docker {self._facts.get('docker', '?')}, Compose {self._facts.get('compose', '?')}."))
        for path in found.overwritten:
            verb = "deleted, as the package no longer has it" if path in found.delete else "replaced by the package's"
            self._warn(f"File {path} was modified on the host, and is {verb}.")
        for profile in self._unknown_profiles(model):
            self._warn(f"No service has the profile '{profile}' that COMPOSE_PROFILES names.")
        packed = self._packed_notes(found, model, places) if _needs_notes(found, sight.notes) else b""
        reply = _reply(
            build=" ".join(found.build),
            pull=" ".join(found.pull),
            recreate=" ".join(found.recreate),
            rest="yes" if set(found.recreate) != set(model.services) else "",
            services=len(model.services),
            unavailable=" ".join(found.unavailable),
            mode=f"{found.env_mode:o}",
            moves="yes" if packed else "",
            size=len(packed) if packed else "",
        )
        return reply + packed

    def _version_problem(self) -> str | None:
        found = re.match(r"v?(\d+)\.(\d+)", self._facts.get("compose", ""))
        if found is None or (int(found[1]), int(found[2])) >= OLDEST_COMPOSE:
            return None
        wanted = ".".join(map(str, OLDEST_COMPOSE))
        return f"Docker Compose {self._facts['compose']} is too old: daos needs {wanted} or newer."

    def _packed_notes(self, found: Comparison, model: Model, places: Places) -> bytes:
        return archive(
            {
                "model.json": _written(model_for_up(model, places)),
                "notes": f"= notes {found.notes.write()}\n".encode(),
                "links": _listed(reach.exchangeable(model, places, found.notes.writable)),
                "move": _listed(found.move),
                "delete": _listed(found.delete),
            }
        )

    def _unknown_profiles(self, model: Model) -> list[str]:
        known = {str(profile) for described in model.services.values() for profile in described.get("profiles") or []}
        return [profile for profile in self._delivered().profiles if profile not in known and profile != "*"]

    def _answer_built(self) -> bytes:
        model, images = self._model(), self._images()
        built = {
            service: [key, images[model.image_of(service)]]
            for service, key in self._compared().keys.items()
            if model.image_of(service) in images
        }
        packed = archive({"built": f"= built {json.dumps(built)}\n".encode()})
        return _reply(size=len(packed)) + packed

    def _model(self) -> Model:
        return Model.read(self._facts.get("model", ""), self._project)

    def _places(self) -> Places:
        return Places(self._facts.get("directory", ""), self._facts.get("tree", ""))

    def _images_to_inspect(self, model: Model) -> list[str]:
        """Return the model's images if the host must inspect them; empty if its last answer was about just these."""
        wanted = [image for image in model.images() if IMAGE.fullmatch(image)]
        return wanted if wanted != self._named else []

    def _images(self) -> dict[str, str]:
        """Return the ids of the images that exist, by name; the host reports them in the order of the names."""
        absent = {part for message in self._absent for part in message.split(": ")}
        present = [name for name in self._named if not absent & {name, _familiar(name)}]
        return dict(zip(present, self._image_ids, strict=True))

    def _sight(self) -> Sight:
        files = self._delivered().files
        paths, notes, built = self._paths, self._facts.get("notes"), self._facts.get("built")
        everything = "*" in paths["changed"]
        seeds = {path for path, file in files.items() if file.only_if_missing}
        return Sight(
            containers=[_seen(container) for container in self._baseline],
            images=self._images(),
            changed=frozenset(files if everything else paths["changed"]),
            missing=frozenset(seeds if everything else paths["missing"]),
            modified=frozenset(paths["modified"]),
            notes=None if notes is None else Notes.read(notes),
            had=frozenset(paths["had"]),
            built={} if built is None else {name: Built(*entry) for name, entry in json.loads(built).items()},
        )

    def _answer_why(self) -> bytes:
        explained = compose_words.explain(
            self._phase,
            self._output,
            self._wanted_images(),
            built=self._comparison.build if self._comparison is not None else (),
            free_bytes=self._free_bytes(),
        )
        if explained is not None and explained.reason == "DISK_FULL" and not self._has_requested_disk:
            self._has_requested_disk = True
            return _reply(disk="yes")
        if self._facts.get("exact") == "yes" and explained is not None and explained.reason != "DISK_FULL":
            explained = None  # the script knows the reason better than the output shows it
        is_late = self._facts.get("late") == "yes"
        reason, _, detail = self._facts.get("fallback", "").partition(" ")
        if self._phase is Phase.UP:
            self._verdict = self._judge(is_late=is_late)
        too_old = self._version_problem() if self._phase is Phase.PREPARE else None
        if too_old is not None:
            reason, detail = "DOCKER_UNAVAILABLE", too_old
        elif self._phase is Phase.PULL and self._comparison is not None and self._comparison.unavailable:
            detail = self._unavailable_sentence(self._comparison.unavailable)
        elif explained is not None and not is_late:
            self._verdict = None
            reason, detail = explained
        elif self._verdict is not None and self._verdict.kind is Kind.FAILED:
            return self._reply_failed(self._verdict, "UNHEALTHY")
        elif is_late:
            reason = ""
        self._detail = detail
        return _reply(reason=reason)

    def _judge(self, *, is_late: bool) -> Verdict:
        """Judge whether containers are the reason why Up failed."""
        verdict = self._new_watch(up_ended=False).judge(
            self._containers, self._clock(), blamed=compose_words.blamed(self._output)
        )
        return replace(verdict.expire(), waited=self._clock() - self._began) if is_late else verdict

    def _wanted_images(self) -> dict[str, str]:
        """Return the images that were to be pulled, by service."""
        if "model" not in self._facts:
            return {}
        model = self._model()
        pulled = self._comparison.pull if self._comparison is not None and self._phase is Phase.PULL else model.services
        wanted = {model.image_of(service) for service in pulled}
        return {service: model.image_of(service) for service in model.services if model.image_of(service) in wanted}

    def _unavailable_sentence(self, services: Iterable[str]) -> str:
        model = self._model()
        sentences = (
            f"Image {model.image_of(service)} of service '{service}' is not on the host, and its pull_policy "
            f"'{model.services[service]['pull_policy']}' forbids to pull it."
            for service in services
        )
        return " ".join(sentences)

    def _free_bytes(self) -> int | None:
        return min(self._free, default=None)

    def _answer_sentence(self) -> bytes:
        detail = self._detail
        if self._verdict is not None and self._verdict.kind is Kind.FAILED:
            troubled = self._verdict.troubled
            detail = self._verdict.message(
                {identity: self._last_lines.get(name, "") for identity, name in troubled.items()}
            )
        return _reply(detail=detail)

    def _answer_verdict(self) -> bytes:
        if self._watch is None:
            self._watch = self._new_watch()
        now = self._clock()
        verdict = self._watch.judge(self._containers, now, host_time=self._facts.get("time", ""))
        if self._phase is Phase.RECOVER and now + verdict.next_in >= self._began + self._limits.recovery:
            verdict = verdict.expire()  # the caller's time is up
        self._verdict = verdict
        if verdict.kind is Kind.OK:
            return _reply(verdict="ok")
        if verdict.kind is Kind.WAIT:
            if verdict.log is not None:
                self._lines.append(Line(f"Waiting for {verdict.log}"))
            return _reply(verdict="wait", wait=f"{verdict.next_in:.2f}")
        return self._reply_failed(verdict, "TIMEOUT" if verdict.late and self._phase is Phase.RECOVER else "UNHEALTHY")

    def _reply_failed(self, verdict: Verdict, reason: str) -> bytes:
        logs = [("log", f"{identity} {name}") for identity, name in verdict.troubled.items()]
        return _reply([("verdict", "failed"), ("reason", reason), *logs])

    def _new_watch(self, *, up_ended: bool = True) -> Watch:
        model = self._model()
        since = self._facts.get("since", "0")
        now = self._clock() if self._up_ended is None else self._up_ended
        return Watch(
            self._baseline,
            settle=self._limits.settle,
            limit=self._limits.verify,
            run_limit=self._limits.run,
            started=now - (int(since) / 100 if since.isdecimal() else 0.0),
            expected=[service for service in model.services if model.count(service)],
            up_ended=up_ended,
        )

    def _answer_recovery(self) -> bytes:
        model = self._model()
        if missing := self._images_to_inspect(model):
            return _reply(inspect=" ".join(missing))
        notes = self._facts.get("notes")
        sight = Sight(
            containers=[_seen(container) for container in self._containers],
            images=self._images(),
            notes=None if notes is None else Notes.read(notes),
        )
        return _reply(matching="yes" if is_applied(model, sight, self._hashes) else "")


def _reply(lines: Sequence[tuple[str, object]] = (), **more: object) -> bytes:
    """Return an answer in the form that the script reads; empty values are left out."""
    answer = [(key, str(value)) for key, value in (*lines, *more.items()) if value not in {"", None}]
    text = "".join(f"{key} {' '.join(value.split())}\n" for key, value in answer)
    return f"{text}\n".encode(errors="replace")


def _familiar(image: str) -> str:
    """Return the image's name as Docker prints it: without the default registry and namespace, and with its tag."""
    found = FAMILIAR.fullmatch(image)
    name = found[1] if found else image
    return name if "@" in name or ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def _written(model: Mapping[str, Any]) -> bytes:
    """Return the model as JSON that is also valid YAML, because Compose reads all its files as YAML.

    YAML has no surrogate pairs, so characters beyond U+FFFF are not escaped; some characters below are line breaks or
    forbidden in YAML unless they are escaped.
    """
    text = json.dumps(model, ensure_ascii=False)
    return re.sub(r"[\x7f-\uffff]", lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _listed(paths: Iterable[str]) -> bytes:
    return "".join(f"./{path}\n" for path in paths).encode()


def _needs_notes(found: Comparison, notes: Notes | None) -> bool:
    """Whether the host must store new notes before Up."""
    if notes is None or found.move or found.delete or found.recreate:
        return True
    new = found.notes
    return (new.contents, new.files, new.model, new.writable) != (
        notes.contents,
        notes.files,
        notes.model,
        notes.writable,
    )


def _seen(inspection: Inspection) -> Seen:
    container = inspection.container
    return Seen(inspection.id, container.service, container.state, inspection.image_id, inspection.hash)


def _starts(inspections: Iterable[Inspection]) -> set[tuple[str, datetime | None]]:
    return {(inspection.id, inspection.container.started_at) for inspection in inspections}
