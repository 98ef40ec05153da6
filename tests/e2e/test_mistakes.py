"""Typical mistakes of a new user: each answer says what is wrong, where, and what to do.

The server, docker and sshd are real, and one server has all the mistakes: the runs are played side by side.
"""

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from db.phase import Phase
from runner.host import compose_words
from tests.e2e.conftest import NewProject, projects
from tests.support import sshd as sshd_support
from tests.support.client import SLEEPER, UNDECIDED, Client, Json, Refused, service
from tests.support.docker import Docker
from tests.support.port import free_port
from tests.support.programs import link_programs
from tests.support.registry import Registry, serve_registry
from tests.support.requirement import require
from tests.support.server import Server
from tests.support.sshd import SshServer

KEPT = " The previous containers keep running."

# What the user did, and the whole answer.  Braces stand for what is only known when it has happened.
INPUT = {
    "the id of nothing": "Deployment 'nope' was not found; the query deployments lists the ids.",
    "the id of a host for a deployment": "Deployment '{host}' was not found; the query deployments lists the ids.",
    "YAML with a wrong indentation": "composeFile is not valid YAML at line 4, column 4: did not find expected key; "
    "check the indentation there.",
    "YAML with a tab": "composeFile is not valid YAML at line 2, column 1: there is a tab; indent with spaces.",
    "an empty compose file": "composeFile is empty; it must be a mapping with services or include, for example "
    "{{services: {{web: {{image: 'caddy:2'}}}}}}.",
    "no services": "composeFile must have services, as a mapping with at least one, or include.",
    "user and address in one": "address must be only a DNS name or an IP address: user and port are arguments of "
    "their own.",
    "address and port in one": "address must be only a DNS name or an IP address: user and port are arguments of "
    "their own.",
    "an address with a scheme": "address must be only a DNS name or an IP address: user and port are arguments of "
    "their own.",
    "the path of a key with a tilde": "sshKeyPath must be an absolute path on the server without '..', of at most 1024 "
    "printable characters; '~' is not expanded.",
    "the name of another host": "Host 'here' exists already; choose another name.",
    "the name and version of another package": "Package 'hello 1' exists already; choose another name or version.",
    "the project of another deployment": "Project 'hello' exists already on host 'here'; choose another projectName.",
    "a compose file that is too large": "composeFile must have at most 1048576 bytes, and has 1048577.",
    "a document that is too long": "The document has more than 262144 characters; move files and other long text to "
    "variables.",
    "a deployment that is running": "Deployment '{deployment}' has a run in progress; wait until run '{run}' has "
    "ended, or cancel it with cancelRun.",
    "a field that is mistyped": "Cannot query field 'deploymnts' on type 'Query'. See the schema in the documentation "
    "of GraphiQL, or print it with `daos schema`.",
    "an enum value that is mistyped": "Value 'BROKEN' does not exist in 'DeploymentStatus' enum. See the schema in the "
    "documentation of GraphiQL, or print it with `daos schema`.",
    "a number for a text": "Variable '$input' has invalid value at .variables[0].value: String cannot represent a non "
    "string value.",
    "an object for the list of variables": " ".join(
        f"Variable '$input' has invalid value at .variables: Expected value of type 'VariableInput' {words}. "
        "Variables are a list of objects: {{name, value}}."
        for words in (
            "to include required field 'name'",
            "to include required field 'value'",
            "not to include unknown field 'PORT'",
        )
    ),
}
REQUESTS = {
    "no token": "A valid access token is needed: send the header 'Authorization: Bearer TOKEN'.",
    "a token without Bearer": "A valid access token is needed: send the header 'Authorization: Bearer TOKEN'.",
    "a wrong token": "The access token in the header 'Authorization' is unknown to this server; send one that was "
    "created on it.",
    "an expired token": "The access token 'brief' expired on {expired} UTC; create a new one with createToken.",
    "a revoked token": "The access token 'gone' was revoked on {revoked} UTC; create a new one with createToken.",
    "the role of a viewer": "createHost needs the role ADMIN, and the access token 'watcher' has the role VIEWER; use "
    "one with ADMIN.",
    "a body that is too large": "The request body has more than 8388608 bytes; send less, or raise DAOS_MAX_BODY.",
    "curl without Content-Type": "The body must be uncompressed JSON in UTF-8; send the header 'Content-Type: "
    "application/json'.",
    "the name of a proxy": "The server does not accept the name in the header 'Host'; use another one, or add it to "
    "DAOS_ALLOWED_HOSTS.",
}
HOSTS = {
    "a user that may not log in": "Host '{name}' refuses the login of 'nobody' with key {key}; add the public key to "
    "the authorized_keys of 'nobody' on the host, or change the host's user or key.",
    "a key file that is missing": "The SSH key file '/nowhere/key' does not exist on the server; put it there, or "
    "change sshKeyPath.",
    "a key file that others can read": "The SSH key file '{open_key}' is open to other users, and ssh refuses it; run: "
    "chmod 600 {open_key}.",
    "a public key": "The SSH key file '{public_key}' is a public key; set sshKeyPath to the private key, most often "
    "the same path without .pub.",
    "a host name that is mistyped": "Host '{name}' cannot be found: the name web1.exmaple.invalid is unknown; correct "
    "its address with updateHost.",
    "a port where nobody listens": "Host '{name}' refuses the connection to {address} port {port}; see that sshd "
    "listens there, and the host's address and port.",
    "a host without docker": "Docker cannot be used on the host: The program docker was not found on the host; install "
    "Docker with its Compose plugin, at least 2.26.",
}
RUNS = {
    "a key of Compose that is mistyped": "Docker Compose refuses the files of the package: validating "
    "{home}/.daos/trees/{project}/compose.yaml: services.web Additional property imgae is not allowed. Correct them "
    "in a new version of the package.",
    "an image that is not there": "Image {registry}/team/web:1 of service 'web' could not be pulled: registry "
    "{registry} does not have it; see that its name and tag are right." + KEPT,
    "a private image without a login": "Image {registry}/team/web:1 of service 'web' could not be pulled: registry "
    "{registry} denied access. If the image is private, give the package a login with createPackage(registryLogins: "
    "…); a registry may also deny an image that does not exist." + KEPT,
    "a registry that is down": "Image {down}/web:1 of service 'web' could not be pulled: registry {down} refuses the "
    "connection; see that it runs, and that the address is right." + KEPT,
    "a build without a Dockerfile": "The image of service 'web' could not be built: failed to read dockerfile: open "
    "Dockerfile: no such file or directory. Add the Dockerfile to the files of the package, or name another one with "
    "build.dockerfile." + KEPT,
    "a port that is in use": "Port {taken} of address 127.0.0.1 is in use by another program on the host, and "
    "container {project}-web-1 cannot publish it; stop that program, or publish another port.",
    "a container that is unhealthy": "The project is up but not healthy: Service 'web' is unhealthy: its health check "
    "exited with code 1: cannot connect to 127.0.0.1.",
    "a container that crashes": "The project is up but not healthy: Service 'web' exited with code 3: config file "
    "/etc/app.conf missing.",
    "a variable that is missing": 'The "PORT" variable is not set. Defaulting to a blank string. Give it a value in '
    "the variables of the deployment.",
}
DISK = {
    "a disk that is full": (
        "| tar: site/index.html: Cannot write: No space left on device",
        "The disk of the host is full, with 12.3 kB free: tar: site/index.html: Cannot write: No space left on device. "
        "Free space on it, and run the deployment again.",
    ),
    "a disk that becomes full": (
        "tar: site/index.html: Wrote only 6656 of 10240 bytes",
        "The disk of the host is full, with 12.3 kB free: tar: site/index.html: Wrote only 6656 of 10240 bytes. Free "
        "space on it, and run the deployment again.",
    ),
}
COMPOSE = "services: {web: {image: 'demo:1'}}"
SLOW = json.dumps({"services": {"web": UNDECIDED}})
CRASH = "echo config file /etc/app.conf missing; exit 3"
TABLE = {**INPUT, **REQUESTS, **HOSTS, **RUNS}


@pytest.mark.parametrize("mistake", TABLE)
def test_each_mistake_is_answered_with_what_where_and_what_to_do(mistake: str, answers: "Answers") -> None:
    facts = answers.facts | answers.own.get(mistake, {})
    assert answers.messages[mistake] == TABLE[mistake].format_map(facts)


@pytest.mark.parametrize(("words", "sentence"), DISK.values(), ids=DISK)
def test_a_full_disk_is_named(words: str, sentence: str) -> None:
    explanation = compose_words.explain(Phase.PREPARE, [words.removeprefix("| ")], free_bytes=12_345)
    assert explanation == ("DISK_FULL", sentence)


class Answers:
    """What the server has answered to each mistake, and what was only known then."""

    def __init__(self) -> None:
        self.messages: dict[str, str] = {}
        self.facts: dict[str, object] = {}
        self.own: dict[str, dict[str, object]] = {}  # facts of one mistake


@pytest.fixture(scope="module")
def bare_sshd(tmp_path_factory: pytest.TempPathFactory, loopback_addresses: Iterator[str]) -> Iterator[SshServer]:
    """An sshd whose logins find no docker."""
    require("sshd", sshd_support.why_missing())
    folder = link_programs(tmp_path_factory.mktemp("programs") / "bin", without="docker")
    with sshd_support.serve_ssh(tmp_path_factory.mktemp("sshd"), next(loopback_addresses), path=str(folder)) as sshd:
        yield sshd


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, docker: Docker, sshd: SshServer, bare_sshd: SshServer
) -> Iterator[Answers]:
    """All mistakes, made once and side by side."""
    directory = tmp_path_factory.mktemp("server")
    server = Server(directory, {"DAOS_SETTLE_SECONDS": "0.5", "DAOS_MAX_RUNS": "8", "DAOS_MAX_RUNS_PER_HOST": "8"})
    server.start()
    try:
        with projects(docker) as new_project, serve_registry("robot", "pass") as registry:
            yield asyncio.run(_Newcomer(server, new_project, registry).go(sshd, bare_sshd, directory))
    finally:
        server.close()


class _Newcomer:
    """Makes all mistakes."""

    def __init__(self, server: Server, new_project: NewProject, registry: Registry) -> None:
        self._client = Client(server)
        self._url = f"{server.url}/graphql"
        self._token = server.token
        self._new_project = new_project
        self._registry = registry
        self._answers = Answers()

    async def go(self, sshd: SshServer, bare_sshd: SshServer, directory: Path) -> Answers:
        """All that was answered."""
        try:
            host = str((await self._create("Host", "host", name="here", transport="LOCAL"))["id"])
            self._answers.facts["host"] = host
            async with asyncio.TaskGroup() as group:
                group.create_task(self._inputs(host))
                group.create_task(self._requests())
                group.create_task(self._hosts(sshd, bare_sshd, directory))
                group.create_task(self._runs(host))
        finally:
            await self._client.close()
        return self._answers

    async def _create(self, kind: str, field: str, **values: object) -> Json:
        found: Json = (await self._client.change(f"create{kind}", f"{field} {{ id }}", **values))[field]
        return found

    async def _refused(self, mistake: str, field: str, **values: object) -> None:
        with pytest.raises(Refused) as refused:
            await self._client.change(field, "__typename", **values)
        self._answers.messages[mistake] = " ".join(error["message"] for error in refused.value.errors)

    async def _inputs(self, host: str) -> None:
        await self._refused("the id of nothing", "runDeployment", deploymentId="nope")
        await self._refused("the id of a host for a deployment", "runDeployment", deploymentId=host)
        package = str((await self._create("Package", "package", name="hello", version="1", composeFile=COMPOSE))["id"])
        hello = {"hostId": host, "packageId": package, "projectName": "hello"}
        await self._create("Deployment", "deployment", **hello)
        for mistake, text in (
            ("YAML with a wrong indentation", "services:\n  web:\n    image: x\n   ports: []\n"),
            ("YAML with a tab", "services:\n\tweb: {image: x}\n"),
            ("an empty compose file", "# nothing yet\n"),
            ("no services", "services: {}\n"),
            ("a compose file that is too large", COMPOSE + "#" * (1024 * 1024 + 1 - len(COMPOSE))),
        ):
            await self._refused(mistake, "createPackage", name="x", version="1", composeFile=text)
        for mistake, address in (
            ("user and address in one", "root@web1"),
            ("address and port in one", "web1:22"),
            ("an address with a scheme", "https://web1"),
        ):
            await self._refused(mistake, "createHost", name="x", address=address)
        key = {"address": "web1", "sshKeyPath": "~/.ssh/id_ed25519"}
        await self._refused("the path of a key with a tilde", "createHost", name="x", **key)
        await self._refused("the name of another host", "createHost", name="here", transport="LOCAL")
        again = {"name": "hello", "version": "1", "composeFile": COMPOSE}
        await self._refused("the name and version of another package", "createPackage", **again)
        await self._refused("the project of another deployment", "createDeployment", **hello)
        for name, value in (
            ("a number for a text", [{"name": "PORT", "value": 80}]),
            ("an object for the list of variables", {"PORT": "80"}),
        ):
            await self._refused(name, "createDeployment", hostId=host, packageId=package, variables=value)
        for mistake, document in (
            ("a document that is too long", f"{{ __typename }} # {'x' * 262_144}"),
            ("a field that is mistyped", "{ deploymnts { totalCount } }"),
            ("an enum value that is mistyped", "{ deployments(filter: {statusIn: [BROKEN]}) { totalCount } }"),
        ):
            self._answers.messages[mistake] = _message(await self._client.post(document))
        slow = str((await self._create("Package", "package", name="slow", version="1", composeFile=SLOW))["id"])
        deployment = await self._client.deployment(host, slow, self._new_project())
        self._answers.facts |= {"deployment": deployment, "run": await self._client.start(deployment)}
        await self._refused("a deployment that is running", "runDeployment", deploymentId=deployment)
        await self._client.cancel(str(self._answers.facts["run"]))

    async def _requests(self) -> None:
        document, tokens = 'mutation { createHost(input: {name: "x", transport: LOCAL}) { __typename } }', {}
        soon = datetime.now(UTC) + timedelta(seconds=2)
        for name, values in (("watcher", {}), ("gone", {}), ("brief", {"expiresAt": soon.isoformat()})):
            made = await self._client.change("createToken", "secret token { id }", name=name, role="VIEWER", **values)
            tokens[name] = made["secret"]
            if name == "gone":
                revoked = await self._client.change("revokeToken", "token { revokedAt }", tokenId=made["token"]["id"])
                moment = datetime.fromisoformat(revoked["token"]["revokedAt"])
                self._answers.facts["revoked"] = f"{moment:%Y-%m-%d at %H:%M}"
        self._answers.facts["expired"] = f"{soon:%Y-%m-%d at %H:%M}"
        await asyncio.sleep((soon - datetime.now(UTC)).total_seconds())
        asked = json.dumps({"query": document}).encode()
        usual = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(timeout=60) as http:
            for mistake, headers, content in (
                ("no token", {"Authorization": ""}, asked),
                ("a token without Bearer", {"Authorization": self._token}, asked),
                ("a wrong token", {"Authorization": "Bearer daos_wrong"}, asked),
                ("an expired token", {"Authorization": f"Bearer {tokens['brief']}"}, asked),
                ("a revoked token", {"Authorization": f"Bearer {tokens['gone']}"}, asked),
                ("the role of a viewer", {"Authorization": f"Bearer {tokens['watcher']}"}, asked),
                ("a body that is too large", {}, b" " * (8 * 1024 * 1024 + 1)),
                ("curl without Content-Type", {"Content-Type": "application/x-www-form-urlencoded"}, asked),
                ("the name of a proxy", {"Host": "daos.example.org"}, asked),
            ):
                answer = await http.post(self._url, content=content, headers={**usual, **headers})
                self._answers.messages[mistake] = _message(answer)

    async def _hosts(self, sshd: SshServer, bare_sshd: SshServer, directory: Path) -> None:
        key, port = sshd.key_path, free_port(sshd.address)
        open_key, public_key = directory / "open", directory / "key.pub"
        open_key.write_bytes(key.read_bytes())
        public_key.write_bytes(key.with_suffix(".pub").read_bytes())
        for path in (open_key, public_key):
            path.chmod(0o644)
        self._answers.facts |= {"key": key, "open_key": open_key, "public_key": public_key}
        self._answers.facts |= {"address": sshd.address, "port": port}
        package = await self._client.package({"web": SLEEPER})
        async with asyncio.TaskGroup() as group:
            for mistake, server, values in (
                ("a user that may not log in", sshd, {"user": "nobody"}),
                ("a key file that is missing", sshd, {"sshKeyPath": "/nowhere/key"}),
                ("a key file that others can read", sshd, {"sshKeyPath": str(open_key)}),
                ("a public key", sshd, {"sshKeyPath": str(public_key)}),
                ("a host name that is mistyped", sshd, {"address": "web1.exmaple.invalid"}),
                ("a port where nobody listens", sshd, {"port": port}),
                ("a host without docker", bare_sshd, {}),
            ):
                host = await self._client.ssh_host(server, **{"name": mistake, **values})
                group.create_task(self._play(mistake, host, package, {"name": mistake}))

    async def _runs(self, host: str) -> None:
        registry, down = self._registry.address, f"127.0.0.1:{free_port('127.0.0.1')}"
        private = {"image": f"{registry}/team/web:1"}
        login = {"registry": registry, "username": "robot", "password": "pass"}
        sick = {"test": ["CMD-SHELL", "echo cannot connect to 127.0.0.1; exit 1"], "interval": "0.2s", "retries": 2}
        self._answers.facts |= {"registry": registry, "down": down, "home": Path.home()}
        with socket.create_server(("127.0.0.1", 0)) as listener:
            taken = listener.getsockname()[1]
            self._answers.facts["taken"] = taken
            web = {"image": "demo:1", "command": ["sleep", "1000"], "init": True, "ports": [f"127.0.0.1:{taken}:80"]}
            async with asyncio.TaskGroup() as group:
                for mistake, described, logins in (
                    ("a key of Compose that is mistyped", {"image": "demo:1", "imgae": "x"}, []),
                    ("an image that is not there", private, [login]),
                    ("a private image without a login", private, []),
                    ("a registry that is down", {"image": f"{down}/web:1"}, []),
                    ("a build without a Dockerfile", {"build": "."}, []),
                    ("a port that is in use", web, []),
                    ("a container that is unhealthy", service("sleep", "1000", healthcheck=sick), []),
                    ("a container that crashes", service("sh", "-c", CRASH), []),
                    ("a variable that is missing", {**SLEEPER, "environment": {"PORT": "${PORT}"}}, []),
                ):
                    package = await self._client.package({"web": described}, logins=logins)
                    group.create_task(self._play(mistake, host, package, {}))

    async def _play(self, mistake: str, host: str, package: str, facts: dict[str, object]) -> None:
        project = self._new_project()
        self._answers.own[mistake] = {"project": project, **facts}
        run = await self._client.play(await self._client.deployment(host, package, project))
        self._answers.messages[mistake] = run["warnings"][0] if run["status"] == "SUCCESS" else run["message"]


def _message(answer: httpx.Response) -> str:
    """The message of the one error."""
    [error] = answer.json()["errors"]
    return str(error["message"])
