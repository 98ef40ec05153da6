"""A usable Docker daemon with compose, and an image that needs no registry."""

import fcntl
import io
import os
import pwd
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.requirement import find_program

IMAGE = "demo:1"
HELLO = "hello:1"
EXAMPLES = Path(__file__).parents[2] / "examples"
PROJECT_LABEL = "com.docker.compose.project"


@dataclass(frozen=True)
class Docker:
    """The machine's Docker daemon.  `image` has busybox's applets (sh, httpd, sleep, wget, nc, …) and no command."""

    image: str = IMAGE

    def run(self, *arguments: str) -> str:
        """What `docker ARGUMENTS` prints.  Raises: RuntimeError with docker's own words."""
        ended = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: {ended.stderr}")
        return ended.stdout

    def containers(self, project: str) -> list[str]:
        """Ids of a compose project's containers, stopped ones included, newest first."""
        return self._labelled("container", project, "--all")

    def remove_project(self, project: str) -> None:
        """Remove a project's containers, networks, volumes and built images, by label, and daos' directories of it."""
        for container in self.containers(project):
            self.run("container", "rm", "--force", "--volumes", container)
        for kind in ("network", "volume"):
            for thing in self._labelled(kind, project):
                self.run(kind, "rm", thing)
        for image in set(self._labelled("image", project)):
            self.run("image", "rm", "--force", image)
        daos = Path(pwd.getpwuid(os.getuid()).pw_dir, ".daos")
        for directory in ("projects", "trees", "state"):
            shutil.rmtree(daos / directory / project, ignore_errors=True)

    def _labelled(self, kind: str, project: str, *options: str) -> list[str]:
        return self.run(kind, "ls", "--quiet", "--filter", f"label={PROJECT_LABEL}={project}", *options).split()


def why_missing() -> str | None:
    """Why Docker cannot be used here, None when it can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for command, need in (
        (["docker", "info"], "no Docker daemon answers"),
        (["docker", "compose", "version"], "docker has no compose plugin"),
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return need
    if find_program("busybox") is None and not _has_image():
        return f"there is no busybox to make {IMAGE} from (Debian: busybox-static)"
    return None


def make_docker() -> Docker:
    """The daemon with its image, which is made of busybox where it is not there yet."""
    docker = Docker()
    if not _has_image():
        subprocess.run(["docker", "import", "-", IMAGE], input=_root_file_system(), check=True, capture_output=True)
        docker.run("run", "--rm", "--network", "none", IMAGE, "true")  # fails at once with a busybox that is not static
    return docker


def make_hello() -> None:
    """Make the image hello:1 as examples/README.md says, where it is not there yet."""
    # One process at a time: a second import would give the name to another image, and what runs to `up` a reason.
    with Path(tempfile.gettempdir(), "daos-test-hello.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _has_image(HELLO):
            packed = subprocess.run([EXAMPLES / "hello" / "image"], check=True, capture_output=True).stdout
            subprocess.run(["docker", "import", "-", HELLO], input=packed, check=True, capture_output=True)


def _has_image(name: str = IMAGE) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0


def _root_file_system() -> bytes:
    busybox = find_program("busybox")
    assert busybox is not None
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("srv", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        tar.add(busybox.resolve(), "bin/busybox")
        for applet in set(applets) - {"busybox"}:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    return archive.getvalue()
