"""That a bench without docker goes all the way of a run."""

from tests.support import sshd
from tests.support.bench import COMPOSE_FILE, opened
from tests.support.client import Client
from tests.support.docker import Docker
from tests.support.requirement import require
from tests.support.server import Server


async def test_a_site_without_docker_deploys(docker: Docker) -> None:
    require("sshd", sshd.why_missing())
    with opened(no_docker=True) as site:
        [project] = site.projects("daos", 1)
        server = Server(site.directory / "server", {"DAOS_WARM": "false"})
        server.start()
        client = Client(server)
        try:
            host, package = await client.ssh_host(site.sshd), await client.package(COMPOSE_FILE)
            deployment = await client.deployment(host, package, project, [{"name": "VALUE", "value": "1"}])
            run = await client.play(deployment)
            assert run["status"] == "SUCCESS", await client.words(run["id"])
            assert [found["service"] for found in run["containers"]] == ["web"]
            assert docker.containers(project) == []
        finally:
            await client.close()
            server.close()
            site.docker.remove_project(project)
