"""Interprets the output of Docker and Compose: a reason, and a sentence for people.  Pure, standard library only.

The exit status of Compose is not used, because it differs between releases.  The messages are those of Docker 20.10 and
later with Compose 2.26 to 5.6; the classic builder, BuildKit, and Docker's containerd image store differ in theirs.
"""

# Longer than 300 lines: a table of what Docker and Compose print.

import re
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from types import MappingProxyType
from typing import NamedTuple

from db.phase import Phase
from runner.host.text import human_size, one_line, printable


class Explanation(NamedTuple):
    """Why a command of Compose failed."""

    reason: str  # the name of a FailureReason
    sentence: str


def explain(
    phase: Phase | None,
    words: Sequence[str],
    images: Mapping[str, str] = MappingProxyType({}),
    *,
    built: Sequence[str] = (),
    free_bytes: int | None = None,
) -> Explanation | None:
    """Return why a Compose command failed, based on its output; None if the output names no known cause.

    `phase` is Prepare, Pull, Build, or Up.  `words` are the lines that this one command printed, without those of
    containers.  `images` has the images that were to be pulled, by service; `built` has the services whose images were
    to be built; `free_bytes` is the free space on the host's disk.  A pull or a build that failed always has an
    explanation, unless Docker itself was unavailable.
    """
    lines = [text for line in words if (text := printable(line).rstrip())]
    if any(_NO_DAEMON.search(line) for line in lines):
        return None
    explanation = _disk_full(lines, free_bytes)
    if explanation is None and phase is Phase.UP:
        explanation = _port_in_use(lines)
    if explanation is None and phase is Phase.BUILD:
        return Explanation("IMAGE_BUILD_FAILED", _build_sentence(lines, built))
    return explanation or _pull_failed(lines, images, was_pull=phase is Phase.PULL)


# Only at the beginning of a line: Compose 2.26 also prints this for a pull that it canceled after another had failed.
_NO_DAEMON = re.compile(
    r"(?i)^(?:cannot|failed to|permission denied while trying to) connect to the docker (?:daemon|api)"
    r"|^error during connect"
)


_DISK_FULL = re.compile(r"(?i)no space left on device|disk quota exceeded")
_CUT_OFF = re.compile(r"^tar: .*: Wrote only \d+ of \d+ bytes")  # tar's only message if a little space was left


def _disk_full(lines: Sequence[str], free_bytes: int | None) -> Explanation | None:
    line = next((line for pattern in (_DISK_FULL, _CUT_OFF) for line in lines if pattern.search(line)), None)
    if line is None:
        return None
    free = "" if free_bytes is None else f", with {human_size(free_bytes)} free"
    words = one_line(line).rstrip(".")
    return Explanation(
        "DISK_FULL",
        f"The disk of the host is full{free}: {words}. Free space on it, and run the deployment again.",
    )


_ADDRESS = r"(?P<address>\S*?):(?P<port>\d{1,5})"
_ALLOCATED = re.compile(rf"Bind for {_ADDRESS} failed: port is already allocated")
_BOUND = (
    re.compile(rf"listen (?:tcp|udp)[46]? {_ADDRESS}: bind: address already in use"),
    re.compile(rf"failed to bind host port (?:for )?{_ADDRESS}(?::\S+)?/(?:tcp|udp|sctp): address already in use"),
    re.compile(rf"Ports are not available: exposing port (?:TCP|UDP) {_ADDRESS} -> .*(?:in use|Only one usage)"),
)
_ENDPOINT = re.compile(r"external connectivity on endpoint (\S+)")
_EVERYWHERE = {"", "0.0.0.0", "::", "[::]"}  # noqa: S104 - an address in Docker's output


def _port_in_use(lines: Sequence[str]) -> Explanation | None:
    for line in lines:
        allocated = _ALLOCATED.search(line)
        found = allocated or next((match for pattern in _BOUND if (match := pattern.search(line))), None)
        if found is None:
            continue
        address = "" if found["address"] in _EVERYWHERE else f" of address {found['address']}"
        holder = "another container" if allocated else "another program"
        endpoint = _ENDPOINT.search(line)
        wanted = f", and container {endpoint[1]} cannot publish it" if endpoint else ""
        todo = "stop that container" if allocated else "stop that program"
        sentence = (
            f"Port {found['port']}{address} is in use by {holder} on the host{wanted}; {todo}, or publish another port."
        )
        return Explanation("PORT_IN_USE", sentence)
    return None


_SUBJECT = re.compile(r"^ (?:Image )?(?P<subject>\S+) +Error(?: +(?P<words>.+))?$")
_FOLLOWS = re.compile(
    r"(?i)context canceled|interrupted|connect to the docker (?:daemon|api)"
)  # another pull had failed before
_DAEMON = re.compile(r"^(?:Error response from daemon|Error): (?P<words>.+)$")
_SURELY_A_PULL = re.compile(
    r"(?i)pull access denied|manifest unknown|manifest for .+ not found|toomanyrequests|failed to resolve reference"
    r"|no matching manifest|/v2/"
)
_CAUSES = (  # the first that matches is the cause
    (r"toomanyrequests|429 Too Many Requests|rate limit", "rate"),
    (r"denied|unauthorized|authentication required|no basic auth credentials|403 Forbidden", "denied"),
    (
        r"no matching manifest",
        "{registry} has no image for the platform of the host; name an image that is built for it",
    ),
    (
        r"no such host|server misbehaving",
        "the name of {registry} cannot be resolved; see that it is right, and the DNS of the host",
    ),
    (r"connection refused", "{registry} refuses the connection; see that it runs, and that the address is right"),
    (
        r"x509:|tls: |certificate",
        "the TLS connection to {registry} failed ({words}); the host must trust its certificate",
    ),
    (
        r"gave HTTP response to HTTPS client",
        "{registry} does not speak TLS; add it to insecure-registries of Docker on the host, or give it a certificate",
    ),
    (
        r"i/o timeout|handshake timeout|Client\.Timeout|deadline exceeded",
        "{registry} does not answer; see that the host reaches it",
    ),
    (
        r"network is unreachable|no route to host|connection reset|unexpected EOF|: EOF$",
        "{registry} cannot be reached; see the network of the host",
    ),
    (
        r"manifest unknown|name unknown|not found|no such image",
        "{registry} does not have it; see that its name and tag are right",
    ),
)


def _pull_failed(lines: Sequence[str], images: Mapping[str, str], *, was_pull: bool) -> Explanation | None:
    failed = _failed_pull(lines, images)
    if failed is None:
        if not was_pull:
            return None
        failed = _unnamed_pull(lines, images)
    image, words = failed
    return Explanation("IMAGE_PULL_FAILED", _pull_sentence(image, words, images))


def _failed_pull(lines: Sequence[str], images: Mapping[str, str]) -> tuple[str | None, str] | None:
    """Return the image whose pull failed first, and the error; None if no line is certainly about a pull."""
    for line in lines:
        found = _SUBJECT.match(line)
        if found is None or _FOLLOWS.search(found["words"] or ""):
            continue
        # Compose 2 prints the service, Compose 5 the image.
        image = images.get(found["subject"], found["subject"])
        if image in images.values() or line.startswith(" Image "):
            return image, found["words"] or _daemon_words(lines)
    surely = next((line for line in lines if _DAEMON.match(line) and _SURELY_A_PULL.search(line)), None)
    return None if surely is None else _unnamed_pull([surely], images)


def _unnamed_pull(lines: Sequence[str], images: Mapping[str, str]) -> tuple[str | None, str]:
    words = _daemon_words(lines)
    named = sorted((image for image in images.values() if image in words), key=len)
    only = set(images.values())
    return (named[-1] if named else only.pop() if len(only) == 1 else None), words


def _daemon_words(lines: Sequence[str]) -> str:
    """Return the Docker daemon's error message, or the last line."""
    found = [match["words"] for line in lines if (match := _DAEMON.match(line))]
    return found[0] if found else lines[-1] if lines else "Compose printed nothing"


def _pull_sentence(image: str | None, words: str, images: Mapping[str, str]) -> str:
    services = [f"'{service}'" for service, wanted in images.items() if wanted == image]
    users = f" of service {services[0]}" if len(services) == 1 else f" of services {' and '.join(services)}"
    what = f"Image {image}{users if services else ''}" if image else "An image"
    registry = "the registry" if image is None else f"registry {registry_of(image)}"
    cause = next((text for pattern, text in _CAUSES if re.search(f"(?i){pattern}", words)), "{words}")
    return f"{what} could not be pulled: {_pull_cause(cause, registry, one_line(words))}"


def _pull_cause(cause: str, registry: str, words: str) -> str:
    if cause == "denied":
        return (
            f"{registry} denied access. If the image is private, give the package a login with "
            "createPackage(registryLogins: …); a registry may also deny an image that does not exist."
        )
    if cause == "rate":
        return (
            f"{registry} limits how many images are pulled, and the limit is reached. A login may raise it: "
            "createPackage(registryLogins: …)."
        )
    text = cause.replace("{registry}", registry).replace("{words}", words)
    return text if text.endswith(".") else f"{text}."


def registry_of(image: str) -> str:
    """Return the registry of an image's name, by Docker's rule: docker.io if the name has none."""
    first, slash, _ = image.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else "docker.io"


_SOLVE = re.compile(r"^(?:target (?P<target>\S+): )?failed to solve: (?P<words>.+)$")
_BUILDKIT_WRAPPING = re.compile(
    r"^(?:rpc error: code = \w+ desc = |failed to solve with frontend \S+: |failed to create LLB definition: "
    r"|failed to solve: |failed to compute cache key: |failed to calculate checksum of ref \S+: )+"
)
_BUILDKIT_MOUNT = re.compile(r"/\S*/buildkit-mount\d+/")  # where BuildKit has the files of the package
_STEP = re.compile(r"^ > \[(?:(?P<service>[A-Za-z0-9._-]+) )?(?:[a-z-]+ )?(?:\d+/\d+|internal)\]")
_COMMAND_FAILED = re.compile(r"(?:executor failed running|process .* did not complete|returned a non-zero code)")
_STEP_OUTPUT = re.compile(r"^(?:#\d+ )?\d+\.\d+ (?P<words>.*\S)")
_RULE = re.compile(r"^-{5,}$")
_BUILD_NOISE = re.compile(r"^(?:-{5,}$| > \[|View build details|\s*\d+ \|)")


def _build_sentence(lines: Sequence[str], built: Sequence[str]) -> str:
    solved = [match for line in lines if (match := _SOLVE.match(line))]
    meaningful = [line for line in lines if not _BUILD_NOISE.match(line)]
    words = solved[-1]["words"] if solved else meaningful[-1] if meaningful else "the build printed nothing"
    words = _BUILDKIT_MOUNT.sub("", _BUILDKIT_WRAPPING.sub("", words))
    step = next((index for index, line in enumerate(lines) if _STEP.match(line)), None)
    service = solved[-1]["target"] if solved else None
    if step is not None and service is None:
        service = _STEP.match(lines[step])["service"]  # type: ignore[index]  # it has just matched
    output = _step_output(lines, step) if _COMMAND_FAILED.search(words) else ""
    names = [service] if service else built
    quoted = " and ".join(f"'{name}'" for name in names)
    what = (
        f"The image of service {quoted}"
        if len(names) == 1
        else f"An image of services {quoted}"
        if names
        else "An image"
    )
    todo = ""
    if re.search(r"(?i)failed to read dockerfile|open \S*Dockerfile\S*: no such file", words):
        todo = " Add the Dockerfile to the files of the package, or name another one with build.dockerfile."
    elif re.search(
        r"(?i)pull access denied|unauthorized|no basic auth|authorization failed|failed to authorize", words
    ):
        todo = " If its base image is private, give the package a login with createPackage(registryLogins: …)."
    return f"{what} could not be built: {one_line(words)}{f'; its last output: {output}' if output else ''}.{todo}"


def _step_output(lines: Sequence[str], step: int | None) -> str:
    """Return the last line that the failed command printed."""
    if step is None:  # the classic builder prints it just before the error
        before = [line for line in lines if not _BUILD_NOISE.match(line)][:-1]
        output = before[-1:]
    else:
        output = list(takewhile(lambda line: not _RULE.match(line), lines[step + 1 :]))[-1:]
    last = output[0] if output and not output[0].startswith(" ---> ") else ""
    found = _STEP_OUTPUT.match(last)
    return one_line(found["words"] if found else last).rstrip(".")


_BLAMED = re.compile(r"dependency failed to start: container (\S+) (?:is unhealthy|exited \(\d+\)|has no healthcheck)")


def blamed(words: Sequence[str]) -> frozenset[str]:
    """Return the names of the containers that Compose reports as the reason why others were not started."""
    return frozenset(match[1] for line in words if (match := _BLAMED.search(printable(line))))


_LOGFMT = re.compile(r'^time="[^"]*" level=warning msg=(?P<text>"(?:[^"\\]|\\.)*"|\S+)')
_TERMINAL = re.compile(r"^WARN\[\d+\] (?P<text>.*\S)")
_GO_ESCAPE = re.compile(r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([abfnrtv\\"]))')
_GO_CHARACTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def warning(line: str) -> str | None:
    """Return the text of a warning of Compose, on one line; None if the line is not a warning."""
    text = printable(line)
    if found := _TERMINAL.match(text):
        return _with_remedy(one_line(found["text"], 1000))
    if found := _LOGFMT.match(text):
        return _with_remedy(one_line(_unquoted(found["text"]), 1000))
    return None


_UNSET = re.compile(r"The \"\w+\" variable is not set\. Defaulting to a blank string\.")


def _with_remedy(text: str) -> str:
    """Return Compose's warning, with a remedy if it is about a variable that is not set."""
    return f"{text} Give it a value in the variables of the deployment." if _UNSET.fullmatch(text) else text


def _unquoted(text: str) -> str:
    """Return the value of a string that Go has quoted, or the string itself if it is not quoted."""
    return _GO_ESCAPE.sub(_go_character, text[1:-1]) if text.startswith('"') else text


def _go_character(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits:
        code = int(digits, 16)
        return chr(code) if code <= sys.maxunicode else "\ufffd"
    return _GO_CHARACTERS.get(match[4], match[4])
