"""compose.yaml as docker compose understands it, and what it names: the image, the proxy, the secrets."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from daos.auth.tokens import admin_token
from daos.settings import Settings
from db.encryption import Keyring
from tests.deploy.units import AFTER_GRACE
from tests.support.docker import why_missing
from tests.support.requirement import find_program, require

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
NODES = {"api-1": "serve", "api-2": "serve", "worker-1": "worker", "worker-2": "worker"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def project() -> Json:
    """compose.yaml as docker compose understands it."""
    require("docker", why_missing())
    command = ["docker", "compose", "--file", str(ROOT / "compose.yaml"), "config", "--format", "json"]
    understood = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert (understood.returncode, understood.stderr) == (0, "")
    parsed: Json = json.loads(understood.stdout)
    return parsed


@pytest.fixture(scope="module")
def services(project: Json) -> Json:
    found: Json = project["services"]
    return found


def seconds(duration: str) -> int:
    """Of compose's `1m30s`."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def test_two_nodes_serve_and_two_work(services: Json) -> None:
    assert {name: services[name]["command"][0] for name in NODES} == NODES
    assert {name for name in services if services[name]["image"] == "daos"} == {*NODES, "migrate"}


def test_no_container_can_do_more_than_it_needs(services: Json) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name


def test_only_the_proxy_is_reached_from_outside_and_the_database_by_nobody(services: Json, project: Json) -> None:
    assert [name for name, service in services.items() if service.get("ports")] == ["proxy"]
    assert {port["host_ip"] for port in services["proxy"]["ports"]} == {"127.0.0.1"}
    assert list(services["postgres"]["networks"]) == ["database"]
    assert project["networks"]["database"]["internal"]


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_asked_whether_it_is_ready(services: Json, name: str) -> None:
    assert "/readyz" in services[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", NODES)
def test_a_stopped_node_has_time_to_end_its_runs(services: Json, name: str) -> None:
    assert seconds(services[name]["stop_grace_period"]) > Settings().shutdown_grace + AFTER_GRACE


def test_all_nodes_have_the_same_database_and_keys(services: Json) -> None:
    shared = ("DAOS_DATABASE_URL", "PGPASSFILE", "DAOS_SECRET_KEY_FILE")
    environments = {tuple(services[name]["environment"][key] for key in shared) for name in (*NODES, "migrate")}
    assert len(environments) == 1
    assert len({json.dumps([services[name]["secrets"], services[name]["volumes"]]) for name in NODES}) == 1


def test_no_secret_is_in_an_environment(services: Json) -> None:
    named = [key for service in services.values() for key in service.get("environment", {})]
    assert [key for key in named if re.search("PASSWORD|TOKEN", key) and not key.endswith("_FILE")] == []
    urls = {services[name]["environment"]["DAOS_DATABASE_URL"] for name in (*NODES, "migrate")}
    assert urls == {"postgresql://daos@postgres/daos"}


def test_nodes_wait_for_the_migration_and_that_for_the_database(services: Json) -> None:
    for name in NODES:
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["migrate"]["command"] == ["migrate"]


def test_no_image_names_a_registry(services: Json) -> None:
    built_from = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    images = [*built_from, *(service["image"] for service in services.values())]
    assert [image for image in images if "/" in image] == []


def test_the_image_has_a_user_of_its_own() -> None:
    last = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    [user] = re.findall(r"^USER (\d+):\d+$", last, re.MULTILINE)
    assert f"uid={user},gid={user}" in (ROOT / "compose.yaml").read_text()
    assert re.search(rf"^daos={user}\b", (COMPOSE / "secrets.sh").read_text(), re.MULTILINE)


def test_what_the_image_is_made_of_is_there_and_not_ignored() -> None:
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    copied = {source for line in lines for source in line.split()}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert {"daos", "schema", "resolvers", "runner", "db", "ansible"} <= copied


def test_the_proxys_configuration_is_valid() -> None:
    haproxy = find_program("haproxy")
    require("haproxy", None if haproxy else "there is no haproxy (Debian: haproxy)")
    assert haproxy is not None
    checked = subprocess.run(
        [haproxy, "-c", "-f", COMPOSE / "haproxy.cfg"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_the_proxy_knows_the_api_nodes() -> None:
    known = re.findall(r"^ +server (\S+) (\S+)$", (COMPOSE / "haproxy.cfg").read_text(), re.MULTILINE)
    assert known == [(name, f"{name}:8000") for name, command in NODES.items() if command == "serve"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What deploy/compose/secrets.sh makes."""
    require("root", None if os.geteuid() == 0 else "only root can make files of other users")
    script = shutil.copy(COMPOSE / "secrets.sh", tmp_path)
    subprocess.run([script], check=True)
    return tmp_path


def test_the_secrets_are_what_daos_and_postgresql_read(made: Path) -> None:
    secrets = made / "secrets"
    Keyring.read(secrets / "secret-key")
    assert admin_token(secrets / "admin-token").reveal().startswith("daos_")
    password = (secrets / "postgres-password").read_text().strip()
    assert len(password) > 40
    assert (secrets / "pgpass").read_text() == f"postgres:*:daos:daos:{password}\n"


def test_the_secrets_are_all_that_compose_hands_out_and_each_has_one_reader(made: Path, project: Json) -> None:
    files = {path.name: (path.stat().st_uid, path.stat().st_mode & 0o777) for path in (made / "secrets").iterdir()}
    assert files == {name: (999 if name == "postgres-password" else 10001, 0o400) for name in project["secrets"]}
    assert (made / "secrets").stat().st_mode & 0o777 == 0o700
    assert {Path(secret["file"]).parent for secret in project["secrets"].values()} == {COMPOSE / "secrets"}


def test_secrets_that_are_there_are_kept(made: Path) -> None:
    def contents() -> list[bytes]:
        return [path.read_bytes() for path in sorted((made / "secrets").iterdir())]

    before = contents()
    subprocess.run([made / "secrets.sh"], check=True)
    assert contents() == before
