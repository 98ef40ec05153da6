"""Images from a registry that wants a login."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.canaries import holding, leaking, watching
from tests.support.client import Client, service
from tests.support.registry import Registry, serve_registry
from tests.support.server import Server, wait_until

PASSWORD = f"x{secrets.token_hex(8)}"


@pytest.fixture
def guarded() -> Iterator[Registry]:
    with serve_registry("robot$ci", PASSWORD) as registry:
        yield registry


async def package_at(client: Client, registry: Registry, password: str) -> str:
    image = f"{registry.address}/team/web:{secrets.token_hex(4)}"
    payload = await client.change(
        "createPackage",
        "package { id registryLogins { registry username } }",
        name=f"e2e {secrets.token_hex(4)}",
        version="1",
        composeFile=f"services: {{web: {{image: '{image}'}}}}",
        registryLogins=[{"registry": registry.address, "username": "robot$ci", "password": password}],
    )
    assert payload["package"]["registryLogins"] == [{"registry": registry.address, "username": "robot$ci"}]
    return str(payload["package"]["id"])


async def test_an_image_is_asked_for_with_the_packages_login_which_nobody_sees(
    server: Server, client: Client, host: str, project: str, guarded: Registry
) -> None:
    package = await package_at(client, guarded, PASSWORD)
    with watching(PASSWORD) as watched:
        run = await client.play(await client.deployment(host, package, project))
    assert guarded.pulled_by == {f"robot$ci:{PASSWORD}"}
    words = await client.words(run["id"])
    assert (run["status"], run["reason"]) == ("FAILED", "IMAGE_PULL_FAILED"), words  # it has no images
    assert watched == set()
    assert holding(f"{words}{run}{server.log}".encode(), [PASSWORD]) == set()
    assert leaking(server.data_dir.rglob("*"), [PASSWORD]) == {}


async def test_a_login_that_is_refused_says_where(client: Client, host: str, project: str, guarded: Registry) -> None:
    package = await package_at(client, guarded, f"not {PASSWORD}")
    run = await client.play(await client.deployment(host, package, project))
    assert (run["status"], run["reason"]) == ("FAILED", "IMAGE_PULL_FAILED"), await client.words(run["id"])
    assert f"The login at registry {guarded.address} failed: " in run["message"]
    assert "401 Unauthorized" in run["message"]


async def test_a_canceled_run_leaves_no_login(client: Client, host: str, project: str, guarded: Registry) -> None:
    guarded.hold()
    package = await package_at(client, guarded, PASSWORD)
    run_id = await client.start(await client.deployment(host, package, project))
    await asyncio.to_thread(wait_until, lambda: guarded.pulled_by, "the image is asked for", 60)
    assert [path.stat().st_mode & 0o777 for path in logins_of(project)] == [0o700]
    await client.cancel(run_id)
    assert (await client.end_of(run_id))["status"] == "CANCELED"
    assert logins_of(project) == []


def logins_of(project: str) -> list[Path]:
    """Configurations of docker with logins of the project's runs, on this machine."""
    return list(Path("/dev/shm").glob(f"daos.{project}.*"))


async def test_a_login_for_elsewhere_changes_nothing(
    client: Client, host: str, project: str, guarded: Registry
) -> None:
    payload = await client.change(
        "createPackage",
        "package { id }",
        name=f"e2e {secrets.token_hex(4)}",
        version="1",
        composeFile=str({"services": {"web": service("sleep", "1000")}}).replace("True", "true"),
        registryLogins=[{"registry": guarded.address, "username": "x", "password": "y"}],
    )
    run = await client.play(await client.deployment(host, str(payload["package"]["id"]), project))
    assert run["status"] == "SUCCESS", await client.words(run["id"])
    assert guarded.asked == []
