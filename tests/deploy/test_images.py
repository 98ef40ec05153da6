"""What daos is built from: every image can be given by digest, and every package is pinned by its hash."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.support.docker import why_missing
from tests.support.requirement import require

ROOT = Path(__file__).parents[2]
DIGEST = "@sha256:" + "0123456789abcdef" * 4
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ARGUMENTS = dict(re.findall(r"^ARG (\w+)=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))


def configured(**environment: str) -> dict[str, Any]:
    """The services of compose.yaml with these variables."""
    require("docker", why_missing())
    compose = ["docker", "compose", "--profile", "*", "--file", str(ROOT / "compose.yaml")]
    understood = subprocess.run(
        [*compose, "config", "--format", "json"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    services: dict[str, Any] = json.loads(understood.stdout)["services"]
    return services


def test_every_stage_begins_with_an_image_that_can_be_given() -> None:
    begins = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert len(begins) == 3
    assert {name.removeprefix("${").removesuffix("}") for name in begins} == set(ARGUMENTS)


def test_compose_builds_from_and_runs_the_images_that_are_given() -> None:
    given = {name: f"{name.lower()}{DIGEST}" for name in (*ARGUMENTS, "HAPROXY_IMAGE", "POSTGRES_IMAGE")}
    services = configured(**given)
    built = [service for service in services.values() if "build" in service]
    assert built
    for service in built:
        assert service["build"]["args"] == {name: given[name] for name in ARGUMENTS}
    others = {service["image"] for service in services.values() if "build" not in service}
    assert others == {given["HAPROXY_IMAGE"], given["POSTGRES_IMAGE"]}


def test_without_them_the_images_are_those_whose_digests_the_manual_asks_for() -> None:
    services = configured()
    for service in services.values():
        assert set(service.get("build", {}).get("args", {}).values()) <= {None}
    used = {service["image"] for service in services.values() if "build" not in service} | set(ARGUMENTS.values())
    [asked] = re.findall(r"^for image in (.*); do$", OPERATIONS, re.MULTILINE)
    assert set(asked.split()) == used
    assert set(re.findall(r"^(\w+_IMAGE)=", OPERATIONS, re.MULTILINE)) == {
        *ARGUMENTS,
        "HAPROXY_IMAGE",
        "POSTGRES_IMAGE",
    }


def test_every_package_is_pinned_by_its_hash() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        pins = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
        assert len(pins) > 20
        assert [pin for pin in pins if not pin.startswith("#") and "--hash=sha256:" not in pin] == []
    packages = json.loads((ROOT / "explorer" / "package-lock.json").read_text())["packages"]
    fetched = [package for name, package in packages.items() if name]
    assert len(fetched) > 20
    assert [package for package in fetched if not package.get("integrity", "").startswith("sha512-")] == []
