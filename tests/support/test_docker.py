"""The Docker of the tests: a project comes up from the image alone and leaves nothing."""

from pathlib import Path

from tests.support.docker import Docker

COMPOSE_FILE = """
services:
  web:
    image: {image}
    command: httpd -f -p 8080
    init: true
    volumes: [kept:/srv]
volumes:
  kept:
"""


def test_a_project_starts_without_a_registry_and_is_removed(docker: Docker, project_name: str, tmp_path: Path) -> None:
    compose_file = tmp_path / "compose.yaml"
    compose_file.write_text(COMPOSE_FILE.format(image=docker.image))
    docker.run("compose", "--project-name", project_name, "--file", str(compose_file), "up", "--detach", "--wait")
    [container] = docker.containers(project_name)
    docker.remove_project(project_name)
    assert container not in docker.run("container", "ls", "--all", "--quiet")
    assert project_name not in docker.run("network", "ls")
    assert project_name not in docker.run("volume", "ls")


def test_what_a_project_built_is_removed(docker: Docker, project_name: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {docker.image}\n")
    (tmp_path / "compose.yaml").write_text("services: {web: {build: .}}")
    docker.run("compose", "--project-name", project_name, "--project-directory", str(tmp_path), "build", "--quiet")
    assert project_name in docker.run("image", "ls")
    docker.remove_project(project_name)
    assert project_name not in docker.run("image", "ls")
