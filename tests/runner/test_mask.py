"""Secrets are hidden in each form in which a run may show them, also where its words were cut."""

import json
import re
import subprocess
from urllib.parse import quote, quote_plus

import pytest

from db.encryption import Secret
from db.models import RunStatus
from db.phase import Phase
from db.status import End
from runner.host import script
from runner.host.answers import Answers
from runner.host.inspection import LastCheck
from runner.host.text import one_line, printable
from runner.mask import MAX_SENTENCE, MAX_WARNING, Mask
from runner.play.event import Event
from runner.play.listener import Listener
from tests import factories
from tests.support.machine import SCRIPT

SECRET = "hunter2-swordfish-0123456789"
STRANGE = 'sec\x07ret\x1b[31m\tpass\u2028word <&> "quo\'ted" \\back $dollar é\U0001f4a3'


def mask(*secrets: str) -> Mask:
    return Mask.of(Secret(secret) for secret in secrets)


def test_a_secret_inside_another_one_does_not_leave_its_rest() -> None:
    assert mask("abcd", "abcdefgh")("abcdefgh") == "********"


def test_what_is_too_short_is_shown() -> None:
    assert mask("abc")("abc…") == "abc…"


@pytest.mark.parametrize(
    "shown",
    [
        STRANGE,
        printable(STRANGE),
        one_line(STRANGE),
        json.dumps(STRANGE)[1:-1],
        json.dumps(STRANGE, ensure_ascii=False)[1:-1],
        repr(STRANGE)[1:-1],
        STRANGE.replace("$", "$$"),
        quote(STRANGE),
        quote(STRANGE, safe=""),
        quote_plus(STRANGE),
    ],
)
def test_a_secret_is_hidden_in_each_form(shown: str) -> None:
    hidden = mask(STRANGE)(f"it is {shown}!")
    assert hidden.replace("******** ********", "********") == "it is ********!"  # some are hidden line by line


def test_a_secret_in_a_url_with_small_digits_is_hidden() -> None:
    assert mask("pass/Word!")("postgres://user:pass%2fWord%21@db/x") == "postgres://user:********@db/x"


def test_a_secret_that_go_writes_as_json_is_hidden() -> None:
    assert mask("<abc&def>")("it is \\u003cabc\\u0026def\\u003e!") == "it is ********!"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_each_line_of_a_secret_is_hidden(end: str) -> None:
    lines = ["first line", "second \x07line", "3rd"]
    hide = mask(end.join(lines))
    assert [hide(printable(line)) for line in lines] == ["********", "********", "3rd"]


@pytest.mark.parametrize("length", range(1, len(SECRET)))
@pytest.mark.parametrize("mark", ["…", "...", "....."])
def test_a_part_of_a_secret_at_a_cut_is_hidden(length: int, mark: str) -> None:
    part = SECRET[:length] if length < 4 else "********"
    assert mask(SECRET)(f"is {SECRET[:length]}{mark} What ran") == f"is {part}{mark} What ran"
    part = SECRET[-length:] if length < 4 else "********"
    assert mask(SECRET)(f"{mark}{SECRET[-length:]} is it") == f"{mark}{part} is it"


def test_a_beginning_of_a_secret_that_is_not_cut_is_shown() -> None:
    assert mask("password1")("enter password") == "enter password"
    assert mask("password1")("enter password… word1") == "enter ********… word1"


def test_a_long_text_without_a_mark_may_be_cut_at_its_end() -> None:
    text = "x" * 490 + SECRET[:10]
    assert mask(SECRET)(text) == "x" * 490 + "********"
    assert mask(SECRET)(text[1:]) == text[1:]


def test_parts_of_several_secrets_around_cuts_are_hidden() -> None:
    hide = mask("aaaa-bbbb-cccc", "bbbb-cccc-dddd", "aaaaaaaaaa")
    assert hide("…cccc aaaa-bbbb… x") == "…******** ********… x"
    assert hide("…bbbb-cccc…") == "…********…"
    assert hide("aaaaaa…aaaaaa") == "********…********"


def test_an_ends_sentence_is_bounded() -> None:
    end = Mask().hide(End(RunStatus.FAILED, None, "x" * (MAX_SENTENCE + 1)))
    assert len(end.message) == MAX_SENTENCE


def test_an_end_is_masked_in_all_its_texts() -> None:
    text = "registry.example/private"
    container = factories.container(service=text, name=text, image=f"{text}:1", ports=(text,))
    warnings = [f"{text} is old", "******** is old", f"{'x' * MAX_WARNING}{text}"]
    end = mask(text).hide(End(RunStatus.FAILED, None, f"{text} is gone", [container], warnings))
    assert text not in repr(end)
    assert (end.message, end.containers[0].image) == ("******** is gone", "********:1")
    assert end.warnings == ["******** is old", "x" * MAX_WARNING]


def leaked(text: str) -> bool:
    """Whether the text shows four characters of the secret that follow each other."""
    return any(SECRET[first : first + 4] in text for first in range(len(SECRET) - 3))


def told(*lines: str) -> list[str]:
    """What the listener emits for lines of a host."""
    events: list[Event] = []
    listener = Listener([Phase.UP], Answers("shop"), events.extend)
    listener.receive(b"= phase up\n" + "".join(f"{line}\n" for line in lines).encode())
    return [*(line for event in events for line in event.lines), *(event.message for event in listener.ends)]


@pytest.mark.parametrize("shift", range(0, len(SECRET) + 4, 3))
@pytest.mark.parametrize("filler", ["x", "é", "\U0001f4a3"])
@pytest.mark.parametrize("line", ["| {}", "| WARN[0000] {}", "= detail {}\n= result failed", "| shop-web-1 | {}"])
def test_no_cut_of_ours_shows_a_part_of_a_secret(line: str, filler: str, shift: int) -> None:
    for limit in (500, 1000, 2000):  # the script's by bytes, as dash and busybox count, and by characters, as bash does
        for size in (1, len(filler.encode())):
            text = filler * (limit // size - shift) + SECRET
            for sent in (text, text.encode()[:limit].decode(errors="replace"), text[:limit]):
                assert not any(leaked(mask(SECRET)(shown)) for shown in told(line.format(sent)))


@pytest.mark.parametrize("before", [0, 180, 480, 490, 3980, 3990, 5000])
@pytest.mark.parametrize("after", [0, 100, 180, 190, 490, 3980, 3990])
def test_no_part_of_a_secret_in_the_words_of_a_health_check_is_shown(before: int, after: int) -> None:
    words = ("x" * before + SECRET + "y" * after)[:500]
    check = LastCheck.read({"status": "unhealthy", "checkedAt": "now", "exitCode": 1, "output": words})
    assert check is not None
    assert not leaked(mask(SECRET)(f"Service 'web' is unhealthy: its health check {check.words}."))
    assert not leaked(mask(SECRET)(f"It failed: {one_line('x' * before + SECRET + ' ' * after)}"))


def test_the_script_cuts_as_it_is_thought_to() -> None:
    """What is shorter than this and cut leaves no sign."""
    limits = {int(limit) for limit in re.findall(r"%\.(\d+)s", "".join(script.read(SCRIPT).values()))}
    assert limits == {500, 2000}
    shown = subprocess.run(["sh", "-c", "printf '%.2000s' \"$1\"", "sh", "é" * 1500], capture_output=True, check=True)
    assert len(shown.stdout) in {2000, 3000}
