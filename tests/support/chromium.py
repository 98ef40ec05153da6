"""Chromium, headless, without a sandbox, and without network requests of its own."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.requirement import find_program

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Chromium:
    """The browser at `path`."""

    path: Path

    def command(self, profile: Path, *arguments: str) -> list[str]:
        """The command that starts it with an empty directory for its profile."""
        return [
            str(self.path),
            "--headless",
            "--no-sandbox",  # it refuses to run as root with one
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={profile}",
            *arguments,
        ]


def why_missing() -> str | None:
    """Why there is no browser here, None when there is one."""
    return None if find_program(*NAMES) else "there is no Chromium (Debian: chromium)"


def make_chromium() -> Chromium:
    path = find_program(*NAMES)
    assert path is not None
    return Chromium(path)
