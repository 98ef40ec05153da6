"""A client of the API: GraphQL over HTTP, and graphql-transport-ws over a websocket."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from db.phase import Phase
from tests.support.docker import Docker
from tests.support.server import Server
from tests.support.sshd import SshServer

Json = dict[str, Any]

FINAL = {"SUCCESS", "FAILED", "CANCELED"}
POLL_INTERVAL = 0.05  # seconds
PATIENCE = 120.0  # seconds, for machines that have much else to do
RUN = """
    id number action status reason message progress queuedAt startedAt finishedAt
    warnings containers { name service image state health exitCode restarts startedAt ports }
    deployment { id status updatedAt }
"""


class Refused(Exception):
    """The answer has errors; these are they, as the server sent them."""

    def __init__(self, errors: list[Json], data: Json | None = None) -> None:
        super().__init__(json.dumps(errors))
        self.errors = errors
        self.data = data

    @property
    def error(self) -> Json:
        """The one error."""
        [error] = self.errors
        return error

    @property
    def code(self) -> str:
        return str(self.error["extensions"]["code"])


class Client:
    """A client with the admin's token."""

    def __init__(self, server: Server) -> None:
        self.server = server
        # Many run at once, and the server may be started again on another port.
        self._http = httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None))

    async def close(self) -> None:
        await self._http.aclose()

    async def post(
        self, document: str, variables: Mapping[str, object] | None = None, *, token: str | None = None
    ) -> httpx.Response:
        """The bare answer to a request; an empty token sends none."""
        token = self.server.token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = {"query": document, "variables": dict(variables or {})}
        return await self._http.post(f"{self.server.url}/graphql", json=body, headers=headers)

    async def ask(self, document: str, **variables: object) -> Json:
        """The data of the answer.  Raises: Refused."""
        answer: Json = (await self.post(document, variables)).json()
        if answer.get("errors"):
            raise Refused(answer["errors"], answer.get("data"))
        data: Json = answer["data"]
        return data

    async def change(self, field: str, fields: str, **values: object) -> Json:
        """Call the mutation `field` and give its payload.  Raises: Refused."""
        kind = field[0].upper() + field[1:]
        document = f"mutation($input: {kind}Input!) {{ {field}(input: $input) {{ {fields} }} }}"
        answer: Json = (await self.ask(document, input=values))[field]
        return answer

    async def local_host(self) -> str:
        """A host that is this machine."""
        payload = await self.change("createHost", "host { id }", name=_name(), transport="LOCAL")
        return str(payload["host"]["id"])

    async def ssh_host(self, sshd: SshServer, **values: object) -> str:
        """A host behind `sshd`; `values` are put over what reaches it."""
        usual = {"address": sshd.address, "port": sshd.port, "user": sshd.user, "sshKeyPath": str(sshd.key_path)}
        payload = await self.change("createHost", "host { id }", **{"name": _name(), **usual, **values})
        return str(payload["host"]["id"])

    async def ssh_key(self, **values: object) -> Json:
        """A key that the server keeps: `values` are its input but for the name."""
        payload = await self.change("createSshKey", "sshKey { id publicKey fingerprint }", name=_name(), **values)
        key: Json = payload["sshKey"]
        return key

    async def package(
        self,
        compose: Mapping[str, Any] | str,
        files: Mapping[str, str] | None = None,
        logins: Sequence[Mapping[str, str]] = (),
    ) -> str:
        """A package of these services, or of the text of a compose file.  Its version is 1."""
        text = compose if isinstance(compose, str) else json.dumps({"services": compose})
        further = [{"path": path, "content": content} for path, content in (files or {}).items()]
        values = {"name": _name(), "version": "1", "composeFile": text, "files": further, "registryLogins": logins}
        payload = await self.change("createPackage", "package { id }", **values)
        return str(payload["package"]["id"])

    async def deployment(
        self, host_id: str, package_id: str, project: str, variables: Sequence[Mapping[str, object]] = ()
    ) -> str:
        payload = await self.change(
            "createDeployment",
            "deployment { id status }",
            hostId=host_id,
            packageId=package_id,
            projectName=project,
            variables=variables,
        )
        assert payload["deployment"]["status"] == "PENDING"
        return str(payload["deployment"]["id"])

    async def start(self, deployment_id: str, action: str = "UP") -> str:
        """Start a run and give its id.  Raises: Refused."""
        payload = await self.change(
            "runDeployment", "run { id } deployment { status }", deploymentId=deployment_id, action=action
        )
        assert payload["deployment"]["status"] == "RUNNING"
        return str(payload["run"]["id"])

    async def play(self, deployment_id: str, action: str = "UP", seconds: float = PATIENCE) -> Json:
        """Start a run and give it when it has ended."""
        return await self.end_of(await self.start(deployment_id, action), seconds)

    async def cancel(self, run_id: str) -> Json:
        payload = await self.change("cancelRun", f"run {{ {RUN} }}", runId=run_id)
        run: Json = payload["run"]
        return run

    async def run(self, run_id: str) -> Json:
        run: Json = (await self.ask(f"query($id: ID!) {{ run(id: $id) {{ {RUN} }} }}", id=run_id))["run"]
        return run

    async def status(self, deployment_id: str) -> str:
        """The deployment's status."""
        data = await self.ask("query($id: ID!) { deployment(id: $id) { status } }", id=deployment_id)
        return str(data["deployment"]["status"])

    async def end_of(self, run_id: str, seconds: float = PATIENCE) -> Json:
        """The run when it has ended.  Raises: AssertionError with its log."""
        deadline = time.monotonic() + seconds
        while True:
            run = await self.run(run_id)
            if run["status"] in FINAL:
                return run
            assert time.monotonic() < deadline, f"{run}\n{await self.log(run_id)}\n{self.server.log}"
            await asyncio.sleep(POLL_INTERVAL)

    async def phase(self, run_id: str, phase: Phase, seconds: float = PATIENCE) -> None:
        """Return when the run has begun `phase`.  Raises: AssertionError."""
        deadline = time.monotonic() + seconds
        while not any(entry["phase"] == phase for entry in await self.log(run_id)):
            run = await self.run(run_id)
            assert run["status"] not in FINAL, run
            assert time.monotonic() < deadline, f"{run} has not come to {phase.label}"
            await asyncio.sleep(POLL_INTERVAL)

    async def log(self, run_id: str) -> list[Json]:
        """All entries of the run's log."""
        document = """query($id: ID!, $after: String) { run(id: $id) { log(first: 100, after: $after) {
            nodes { sequence at level phase message } pageInfo { hasNextPage endCursor } } } }"""
        entries: list[Json] = []
        after = None
        while True:
            page = (await self.ask(document, id=run_id, after=after))["run"]["log"]
            entries += page["nodes"]
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                return entries

    async def words(self, run_id: str, level: str | None = None) -> str:
        """The log's messages, one below the other; only those of `level` where one is given."""
        entries = await self.log(run_id)
        return "\n".join(entry["message"] for entry in entries if level in {None, entry["level"]})

    @asynccontextmanager
    async def subscribe(self, document: str, **variables: object) -> AsyncIterator[AsyncIterator[Json]]:
        """The events of a subscription.  They are read one at a time: a slow reader holds the server up."""
        async with self.connected() as socket:
            body = {"query": document, "variables": variables}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": body}))
            yield _events(socket)

    @asynccontextmanager
    async def connected(self, payload: Mapping[str, object] | None = None) -> AsyncIterator[ClientConnection]:
        """A websocket whose connection_init, with the admin's token unless `payload` is given, was acknowledged."""
        url = f"{self.server.url.replace('http', 'ws', 1)}/graphql"
        protocol = Subprotocol("graphql-transport-ws")
        payload = {"authorization": f"Bearer {self.server.token}"} if payload is None else payload
        # A reader that hangs does not read the answer to its goodbye either.
        async with connect(url, subprotocols=[protocol], max_queue=1, close_timeout=1) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            acknowledged = json.loads(await socket.recv())
            assert acknowledged["type"] == "connection_ack"
            yield socket


async def _events(socket: ClientConnection) -> AsyncIterator[Json]:
    async for text in socket:
        message = json.loads(text)
        match message["type"]:
            case "next":
                if message["payload"].get("errors"):
                    raise Refused(message["payload"]["errors"])
                yield message["payload"]["data"]
            case "error":
                raise Refused(message["payload"])
            case "complete":
                return
            case "ping":
                await socket.send(json.dumps({"type": "pong"}))


def service(*command: str, **more: Any) -> Json:
    """A service of the tests' image that needs no network and stops at once."""
    usual = {"image": "demo:1", "init": True, "network_mode": "none", "stop_grace_period": "1s"}
    return {**usual, "command": list(command), **more}


SLEEPER = service("sleep", "1000")
ONCE = service("true")
# Neither well nor ill before the test says so.
UNDECIDED = service(
    "sh",
    "-c",
    "until [ -e /ill ]; do sleep 0.2; done; echo last words; exit 3",
    healthcheck={"test": ["CMD", "test", "-e", "/well"], "interval": "0.5s", "retries": 10_000},
)
WAITING = {**SLEEPER, "depends_on": {"slow": {"condition": "service_healthy"}}}
NEVER_UP = {"slow": UNDECIDED, "web": WAITING}


def make_well(docker: Docker, project: str) -> None:
    """Let the project's UNDECIDED containers become healthy."""
    _touch(docker, project, "/well")


def make_ill(docker: Docker, project: str) -> None:
    """Let the project's UNDECIDED containers exit with code 3."""
    _touch(docker, project, "/ill")


def _touch(docker: Docker, project: str, path: str) -> None:
    for container in docker.containers(project):
        docker.run("exec", container, "sh", "-c", f": >{path}")


def _name() -> str:
    return f"e2e {secrets.token_hex(4)}"
