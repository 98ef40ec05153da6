"""The documents in GraphiQL's tabs, run from left to right as their first lines say."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.explorer import Explorer
from tests.support.client import service
from tests.support.docker import Docker

RUN_TIMEOUT = 60_000  # milliseconds


@dataclass(frozen=True)
class Gate:
    """A project that is not well until somebody opens."""

    directory: Path

    @property
    def compose_file(self) -> str:
        check = {"test": ["CMD", "test", "-e", "/gate/open"], "interval": "0.2s", "retries": 1000}
        web = service("sleep", "1000", volumes=[f"{self.directory}:/gate:ro"], healthcheck=check)
        return json.dumps({"services": {"web": web}})

    def open(self) -> None:
        (self.directory / "open").touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    directory = tmp_path / "gate"
    directory.mkdir()
    return Gate(directory)


async def test_a_tab_that_is_chosen_at_once_shows_its_own_document(explorer: Explorer) -> None:
    await explorer.open(explorer.link)
    await explorer.choose("FollowLog")


async def test_a_document_that_is_not_filled_in_says_what_is_missing(explorer: Explorer) -> None:
    await explorer.open(explorer.link)
    await explorer.choose("CreateDeployment")
    await explorer.press_run()
    await expect(explorer.answer).to_contain_text("Host 'HOST-ID' was not found; the query hosts lists the ids.")


async def test_the_documents_lead_to_a_deployment_that_is_watched_to_its_success(
    explorer: Explorer, docker: Docker, project_name: str, gate: Gate
) -> None:
    await explorer.open(explorer.link)
    deployment_id = await _make_deployment(explorer, project_name, gate)
    watched = await explorer.run("Watch", {"id": deployment_id})
    assert watched["deploymentStatus"]["status"] == "PENDING"
    await explorer.run("Run", {"input": {"deploymentId": deployment_id, "action": "UP"}})

    await explorer.choose("Watch")
    await explorer.press_run()
    await expect(explorer.answer).to_contain_text('"status": "RUNNING"')
    gate.open()
    await expect(explorer.answer).to_contain_text('"progress": 1,', timeout=RUN_TIMEOUT)
    watched = (await explorer.data())["deploymentStatus"]
    assert (watched["status"], watched["run"]["status"]) == ("SUCCESS", "SUCCESS")
    assert len(docker.containers(project_name)) == 1


async def test_a_log_is_shown_from_its_start_and_its_end_stays_in_view_while_it_grows(
    explorer: Explorer, project_name: str, gate: Gate
) -> None:
    await explorer.open(explorer.link)
    deployment_id = await _make_deployment(explorer, project_name, gate)
    started = await explorer.run("Run", {"input": {"deploymentId": deployment_id, "action": "UP"}})
    await explorer.choose("FollowLog")
    await explorer.fill_in({"runId": started["runDeployment"]["run"]["id"]})
    await explorer.press_run()
    await expect(explorer.answer).to_contain_text('"phase": "VERIFY"', timeout=RUN_TIMEOUT)
    gate.open()
    await expect(explorer.run_button).to_be_visible(timeout=RUN_TIMEOUT)  # the subscription has ended
    await expect(explorer.answer).to_contain_text("The project is up: 1 service.")

    await explorer.answer.click()
    await explorer.page.keyboard.press("ControlOrMeta+Home")
    await expect(explorer.answer).to_contain_text('"complete": true')
    await expect(explorer.answer).to_contain_text('"sequence": 1,')


async def _make_deployment(explorer: Explorer, project_name: str, gate: Gate) -> str:
    """Go through the tabs from CreateHost to CreateDeployment, and give the deployment's id."""
    host = await explorer.run("CreateHost", {"input": {"name": project_name, "transport": "LOCAL"}})
    package = await explorer.run(
        "CreatePackage", {"input": {"name": project_name, "version": "1", "composeFile": gate.compose_file}}
    )
    ids = {"hostId": host["createHost"]["host"]["id"], "packageId": package["createPackage"]["package"]["id"]}
    created = await explorer.run("CreateDeployment", {"input": {**ids, "projectName": project_name, "variables": []}})
    deployment = created["createDeployment"]["deployment"]
    assert (deployment["projectName"], deployment["status"]) == (project_name, "PENDING")
    return str(deployment["id"])
