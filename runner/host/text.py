"""Makes text from hosts safe to display.  Pure.

The output of Docker, Compose, and containers can contain anything: escape sequences, control characters, or a megabyte
in one line.
"""

import re

MAX_LINE = 2000  # characters of a line in a log; the script has the same limit

# Escape sequences as a whole, then every control character except the tab, and two separators that some viewers obey.
_UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)
_BREAKS = re.compile(r"[\r\n\u2028\u2029]+")


def printable(text: str) -> str:
    """Return the text of one line without control characters and escape sequences."""
    return _UNPRINTABLE.sub("", text)


def clipped(text: str, *, is_cut: bool = False) -> str:
    """Return at most `MAX_LINE` characters of the text; "…" marks a missing end, which `runner.mask` depends on.

    `is_cut`: the end is already missing.
    """
    return text[: MAX_LINE - 1] + "…" if is_cut or len(text) > MAX_LINE else text


def one_line(text: str, limit: int = 200) -> str:
    """Return the text as one printable line of at most `limit` characters.

    The end of a longer text is kept, because programs print last why they failed.
    """
    most = 20 * limit
    lines = (" ".join(printable(line).split()) for line in _BREAKS.split(text[-most:]))
    line = " ".join(filter(None, lines))
    return line if len(line) <= limit and len(text) <= most else "…" + line[1 - limit :]


def human_size(size: float) -> str:
    """Format a number of bytes as Docker does, in powers of 1000: "45.2 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"
