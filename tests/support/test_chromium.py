"""The browser of the tests: it renders a page."""

import subprocess
from pathlib import Path

from tests.support.chromium import Chromium


def test_a_script_on_a_page_runs(chromium: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>before</p><script>document.querySelector('p').textContent = 'af' + 'ter'</script>")
    command = chromium.command(tmp_path / "profile", "--dump-dom", page.as_uri())
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "<p>after</p>" in shown.stdout
