"""daos as a user installs it: the wheel built from the source distribution, in its own environment."""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class InstalledDaos:
    """The wheel and the command that it gives.  `python` is the environment's interpreter."""

    wheel: Path
    command: Path

    @property
    def python(self) -> Path:
        return self.command.with_name("python")

    @property
    def files(self) -> set[str]:
        """The paths inside the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())


def build_wheel(directory: Path) -> Path:
    """The wheel, built from the source distribution, without a registry."""
    _python(Path(sys.executable), "-m", "build", "--no-isolation", "--outdir", directory, ROOT)
    [wheel] = directory.glob("*.whl")
    return wheel


def install(wheel: Path, directory: Path) -> InstalledDaos:
    """The wheel in a new environment, over the locked dependencies."""
    _python(Path(sys.executable), "-m", "venv", directory)
    python = directory / "bin" / "python"
    pip = ("-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check")
    _python(python, *pip, "--require-hashes", "--requirement", ROOT / "requirements.lock")
    _python(python, *pip, "--no-deps", "--no-index", wheel)
    return InstalledDaos(wheel, directory / "bin" / "daos")


def _python(python: Path, *arguments: str | Path) -> None:
    ended = subprocess.run([python, *arguments], cwd="/", capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{arguments}: {ended.stdout}{ended.stderr}")
