"""Condenses the progress output of `docker compose pull` for a log.  Pure, standard library only.

Without a terminal, Compose prints a line for each step of each layer.  Compose 2 prints services, bars, and sizes of
layers (" db Pulling ", " a260d03d79ca Downloading [==>   ]  393.2kB/9.003MB"); Compose 5 prints images, and for a layer
only the bytes that have arrived (" Image db:1 Pulling ", " a260d03d79ca Downloading 393.2kB").
"""

import re
from dataclasses import dataclass

from runner.host.text import human_size, printable

_EVERY = 1.0  # seconds between two lines
_MAX_LAYERS = 10_000  # protects against a host that reports made-up layers
_NAMED = 3  # images that are named in one line
_TYPICAL = 50e6  # bytes; a layer of unknown size counts as half downloaded when so many have arrived
_DOWNLOADED = 0.8  # share of the download in the work on a layer; the rest is its extraction
_COMPLETE = {"Pull complete", "Already exists"}

_LAYER = re.compile(
    r"^ ?(?P<id>[0-9a-f]{12}) (?P<step>Pulling fs layer|Waiting|Downloading|Verifying Checksum|Download complete"
    r"|Extracting|Pull complete|Already exists|Retrying in \d+ seconds?)\b(?P<rest>.*)$"
)
_SIZES = re.compile(r"(?P<got>\d+(?:\.\d+)?[kMGT]?B)(?:/(?P<total>\d+(?:\.\d+)?[kMGT]?B))?\s*$")
_IMAGE = re.compile(r"^ (?:Image )?(?P<name>\S+) (?P<step>Pulling|Pulled|Error|Interrupted|Skipped)\b")
_UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@dataclass
class _Layer:
    got: float = 0.0  # bytes
    total: float | None = None  # bytes, if Compose prints it
    fraction: float = 0.0  # of the work that is done


class PullProgress:
    """Replaces the lines about layers by at most one line a second."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._pulling: dict[str, None] = {}  # names, in the order of their first line
        self._next = 0.0
        self._last = ""
        self._done = 0.0  # the sum of the layers' fractions
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """The progress of the pull, from 0 to 1; it never decreases."""
        return self._fraction

    def feed(self, line: str, now: float) -> str | None:
        """Return the line for the log that replaces a line of Compose, or None; `now` is in monotonic seconds.

        A line that is not about a layer is returned unchanged.
        """
        found = _LAYER.match(printable(line))
        if found is None:
            self._update_image(line)
            return line
        if not self._layers:
            self._next = now + _EVERY  # most pulls are shorter
        self._update_layer(found)
        if now < self._next or (text := self._text()) == self._last:
            return None
        self._next, self._last = now + _EVERY, text
        return text

    def _update_image(self, line: str) -> None:
        found = _IMAGE.match(printable(line))
        if found is None:
            return
        if found["step"] == "Pulling":
            self._pulling[found["name"]] = None
        elif found["name"] in self._pulling:
            del self._pulling[found["name"]]
            if not self._pulling and found["step"] == "Pulled":
                self._fraction = 1.0

    def _update_layer(self, found: re.Match[str]) -> None:
        if found["id"] not in self._layers and len(self._layers) >= _MAX_LAYERS:
            return
        layer = self._layers.setdefault(found["id"], _Layer())
        before = layer.fraction
        step, sizes = found["step"], _SIZES.search(found["rest"])
        if sizes and step in {"Downloading", "Extracting"}:
            layer.got = max(layer.got, _bytes(sizes["got"]))
            layer.total = _bytes(sizes["total"]) if sizes["total"] else layer.total
        share = min(1.0, layer.got / layer.total) if layer.total else layer.got / (layer.got + _TYPICAL)
        if step in _COMPLETE:
            layer.fraction = 1.0
        elif step == "Downloading":
            layer.fraction = max(layer.fraction, _DOWNLOADED * share)
        elif step in {"Verifying Checksum", "Download complete", "Extracting"}:
            layer.fraction = max(layer.fraction, _DOWNLOADED)
            layer.got = layer.total or layer.got
        self._done += layer.fraction - before
        # Layers of another image may still be announced, so this stays below 1.
        self._fraction = max(self._fraction, min(self._done / len(self._layers), 0.99))

    def _text(self) -> str:
        layers = self._layers.values()
        names = list(self._pulling)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        done = sum(layer.fraction == 1.0 for layer in layers)
        text = f"Pulling {', '.join(names[:_NAMED]) or 'images'}{more}: {done} of {len(layers)} layers"
        totals = [layer.total for layer in layers if layer.total is not None]
        # A total is useful only if it does not grow anymore.
        is_known = bool(totals) and all(layer.total is not None or layer.fraction == 1.0 for layer in layers)
        total = f" of {human_size(sum(totals))}" if is_known else ""
        return f"{text}, {human_size(sum(layer.got for layer in layers))}{total}"


def _bytes(text: str) -> float:
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * _UNITS[unit]
