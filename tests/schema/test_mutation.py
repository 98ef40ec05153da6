"""Every mutation of the contract, and every error that it may lead to."""

import base64
import hashlib
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from db.models import Deployment, Host, LogEntry, Role, Run, RunAction, RunStatus, Variable
from resolvers import private_keys
from resolvers.tokens import Principal
from tests import factories
from tests.factories import COMPOSE_FILE
from tests.support.api import Api
from tests.support.attacks import LONG, TEMPLATES, UNKNOWN, UNPRINTABLE
from tests.support.recording_engine import RecordingEngine

CREATE_HOST = """mutation ($input: CreateHostInput!) { createHost(input: $input) {
    host { id name transport address port user sshKeyPath hostKeyFingerprint }
} }"""
UPDATE_HOST = """mutation ($input: UpdateHostInput!) { updateHost(input: $input) {
    host { id name address port user sshKeyPath hostKeyFingerprint }
} }"""
DELETE_HOST = "mutation ($input: DeleteHostInput!) { deleteHost(input: $input) { deletedHostId } }"
CREATE_PACKAGE = """mutation ($input: CreatePackageInput!) { createPackage(input: $input) {
    package {
        id name version composeFile files { path size sha256 mode onlyIfMissing text base64 }
        registryLogins { registry username }
    }
} }"""
DELETE_PACKAGE = "mutation ($input: DeletePackageInput!) { deletePackage(input: $input) { deletedPackageId } }"
CREATE_DEPLOYMENT = """mutation ($input: CreateDeploymentInput!) { createDeployment(input: $input) {
    deployment {
        id status projectName createdAt host { id } package { id } variables { name value secret } latestRun { id }
        missingVariables
    }
} }"""
DELETE_DEPLOYMENT = """mutation ($input: DeleteDeploymentInput!) { deleteDeployment(input: $input) {
    deletedDeploymentId leftRunning
} }"""
RUN_DEPLOYMENT = """mutation ($input: RunDeploymentInput!) { runDeployment(input: $input) {
    deployment { id status latestRun { id } } run { id number action status progress queuedAt deployment { id status } }
} }"""
RUN_DEPLOYMENTS = """mutation ($input: RunDeploymentsInput!) { runDeployments(input: $input) {
    runs { id action status deployment { id status } }
} }"""
CANCEL_RUN = """mutation ($input: CancelRunInput!) { cancelRun(input: $input) {
    run { id status reason message cancelRequestedAt deployment { status } }
} }"""


async def _parts(api: Api) -> dict[str, str]:
    host, package = await factories.host(api.db), await factories.package(api.db)
    return {"hostId": str(host.id), "packageId": str(package.id)}


def _codes(error: dict[str, Any]) -> list[tuple[str, str]]:
    return [(".".join(map(str, problem["path"])), problem["code"]) for problem in error["extensions"]["problems"]]


async def test_a_host_is_created_with_defaults(api: Api) -> None:
    for given in ({}, {"transport": None, "port": None, "user": None, "sshKeyPath": None}):
        name = f"web {len(given)}"
        host = (await api.ask(CREATE_HOST, input={"name": name, "address": "web.example"} | given))["createHost"][
            "host"
        ]
        host.pop("id")
        assert host == {
            "name": name, "transport": "SSH", "address": "web.example", "port": 22, "user": "root",
            "sshKeyPath": None, "hostKeyFingerprint": None,
        }  # fmt: skip


async def test_a_host_is_created_as_it_is_given(api: Api) -> None:
    given = {"name": "web", "transport": "SSH", "address": "::1", "port": 2222, "user": "me", "sshKeyPath": "/key"}
    host = (await api.ask(CREATE_HOST, input=given))["createHost"]["host"]
    assert host.items() >= given.items()
    local = (await api.ask(CREATE_HOST, input={"name": "here", "transport": "LOCAL"}))["createHost"]["host"]
    assert (local["transport"], local["address"]) == ("LOCAL", None)


async def test_all_problems_of_a_host_are_told_at_once_in_the_apis_names(api: Api) -> None:
    given = {"name": " ", "address": "-x", "port": 0, "user": "A", "sshKeyPath": "key"}
    error = await api.error(CREATE_HOST, input=given)
    assert error["path"] == ["createHost"]
    assert (error["extensions"]["code"], error["extensions"]["status"]) == ("BAD_USER_INPUT", 400)
    assert error["message"] == "The input breaks 5 rules."
    assert _codes(error) == [
        ("input.name", "EMPTY"),
        ("input.address", "ADDRESS"),
        ("input.sshKeyPath", "PATH"),
        ("input.port", "RANGE"),
        ("input.user", "USER"),
    ]
    assert error["extensions"]["problems"][2]["message"].startswith("sshKeyPath must be an absolute path")


async def test_attack_strings_are_kept_as_they_are_or_refused(api: Api) -> None:
    for text in (*TEMPLATES, *UNPRINTABLE, LONG):
        result = await api.execute(CREATE_HOST, input={"name": text, "address": "web.example"})
        if result.errors is None:
            assert result.data is not None
            assert result.data["createHost"]["host"]["name"] == text
        else:
            [error] = result.errors
            assert error.extensions is not None
            assert error.extensions["code"] == "BAD_USER_INPUT"


async def test_a_host_is_updated(api: Api) -> None:
    host = await factories.host(api.db, ssh_key_path="/key", host_key_fingerprint="SHA256:x", known_hosts="x")
    key = str(host.id)
    changed = (await api.ask(UPDATE_HOST, input={"hostId": key, "name": "new", "port": None}))["updateHost"]["host"]
    assert changed == {
        "id": key, "name": "new", "address": host.address, "port": 22, "user": "root", "sshKeyPath": "/key",
        "hostKeyFingerprint": "SHA256:x",
    }  # fmt: skip
    moved = await api.ask(UPDATE_HOST, input={"hostId": key, "address": "new.example", "port": 2222, "user": "me"})
    assert (
        moved["updateHost"]["host"].items()
        >= {"address": "new.example", "port": 2222, "hostKeyFingerprint": None}.items()
    )
    cleared = await api.ask(UPDATE_HOST, input={"hostId": key, "sshKeyPath": None})
    assert cleared["updateHost"]["host"]["sshKeyPath"] is None


async def test_deleting_what_is_up_says_that_it_was_left_running(api: Api) -> None:
    for action, is_up in ((RunAction.UP, True), (RunAction.DOWN, False)):
        deployment = await factories.deployment(api.db)
        await factories.run(api.db, deployment, RunStatus.SUCCESS)
        await factories.run(api.db, deployment, RunStatus.SUCCESS, action=action)
        answer = await api.ask(DELETE_DEPLOYMENT, input={"deploymentId": str(deployment.id)})
        assert answer["deleteDeployment"]["leftRunning"] is is_up


async def test_what_is_created_can_be_deleted(api: Api) -> None:
    parts = await _parts(api)
    deployment = (await api.ask(CREATE_DEPLOYMENT, input=parts))["createDeployment"]["deployment"]
    answer = await api.ask(DELETE_DEPLOYMENT, input={"deploymentId": deployment["id"]})
    assert answer == {"deleteDeployment": {"deletedDeploymentId": deployment["id"], "leftRunning": False}}
    answer = await api.ask(DELETE_HOST, input={"hostId": parts["hostId"]})
    assert answer == {"deleteHost": {"deletedHostId": parts["hostId"]}}
    answer = await api.ask(DELETE_PACKAGE, input={"packageId": parts["packageId"].upper()})
    assert answer == {"deletePackage": {"deletedPackageId": parts["packageId"]}}


async def test_a_package_is_created(api: Api) -> None:
    text, binary = "{{ 1 }}\r\n", bytes(range(256))
    files: list[dict[str, Any]] = [
        {"path": "a/[id] ☃.conf", "content": text},
        {"path": "b", "base64": base64.b64encode(binary).decode(), "mode": "755", "onlyIfMissing": True},
        {"path": "c", "content": None, "base64": "", "mode": None, "onlyIfMissing": None},
    ]
    given = {"name": "web", "version": "1", "composeFile": COMPOSE_FILE}
    package = (await api.ask(CREATE_PACKAGE, input=given | {"files": files}))["createPackage"]["package"]
    assert package.items() >= given.items()
    plain = {"mode": "0644", "onlyIfMissing": False, "base64": None}
    bits = {"mode": "0755", "onlyIfMissing": True, "text": None, "base64": files[1]["base64"]}
    assert package["files"] == [
        {"path": "a/[id] ☃.conf", "size": 9, "sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text} | plain,
        {"path": "b", "size": 256, "sha256": hashlib.sha256(binary).hexdigest()} | bits,
        {"path": "c", "size": 0, "sha256": hashlib.sha256(b"").hexdigest(), "text": ""} | plain,
    ]
    bare = given | {"version": "2", "files": None}
    assert (await api.ask(CREATE_PACKAGE, input=bare))["createPackage"]["package"]["files"] == []


async def test_all_problems_of_a_package_are_told_at_once(api: Api) -> None:
    files = [{"path": "../x", "content": ""}, {"path": "ok", "base64": "?", "mode": "4755"}, {"path": "none"}]
    error = await api.error(
        CREATE_PACKAGE, input={"name": "", "version": "\n", "composeFile": "- a list", "files": files}
    )
    assert _codes(error) == [
        ("input.name", "EMPTY"),
        ("input.version", "EMPTY"),
        ("input.version", "CHARACTER"),
        ("input.composeFile", "COMPOSE"),
        ("input.files.0.path", "PATH"),
        ("input.files.1.base64", "BASE64"),
        ("input.files.1.mode", "MODE"),
        ("input.files.2", "CONTENT"),
    ]


async def test_a_package_has_logins_and_tells_no_password(api: Api) -> None:
    logins = [
        {"registry": "b.example:5000", "username": "robot$ci", "password": "hunter2"},
        {"registry": "10.0.0.1", "username": "me", "password": "two\nlines"},
    ]
    given = {"name": "web", "version": "1", "composeFile": COMPOSE_FILE, "registryLogins": logins}
    keyed = given | {"idempotencyKey": "one"}
    answer = await api.ask(CREATE_PACKAGE, input=keyed)
    assert answer["createPackage"]["package"]["registryLogins"] == [
        {"registry": "10.0.0.1", "username": "me"},
        {"registry": "b.example:5000", "username": "robot$ci"},
    ]
    assert await api.ask(CREATE_PACKAGE, input=keyed) == answer
    for other in ([], logins[:1], [logins[0] | {"password": "other"}, logins[1]]):
        error = await api.error(CREATE_PACKAGE, input=keyed | {"registryLogins": other})
        assert _codes(error) == [("input.idempotencyKey", "IDEMPOTENCY_KEY")]


async def test_a_login_that_breaks_a_rule_is_named_without_its_password(api: Api) -> None:
    logins = [
        {"registry": "https://r.example/", "username": "", "password": ""},
        {"registry": "r.example", "username": "me", "password": "hunter2\0"},
        {"registry": "r.example", "username": "me", "password": "hunter2"},
    ]
    given = {"name": "web", "version": "1", "composeFile": COMPOSE_FILE, "registryLogins": logins}
    error = await api.error(CREATE_PACKAGE, input=given)
    assert _codes(error) == [
        ("input.registryLogins.0.registry", "REGISTRY"),
        ("input.registryLogins.0.username", "USERNAME"),
        ("input.registryLogins.0.password", "EMPTY"),
        ("input.registryLogins.1.password", "CHARACTER"),
        ("input.registryLogins.2.registry", "REGISTRY"),
    ]
    assert "hunter2" not in str(error)


async def test_a_deployment_is_created_and_nothing_is_run(api: Api, engine: RecordingEngine) -> None:
    parts = await _parts(api)
    variables = [{"name": "B", "value": "s3cret", "secret": True}, {"name": "A", "value": "1"}]
    given = parts | {"projectName": "my-project", "variables": variables}
    deployment = (await api.ask(CREATE_DEPLOYMENT, input=given))["createDeployment"]["deployment"]
    assert (deployment["status"], deployment["projectName"]) == ("PENDING", "my-project")
    assert (deployment["host"], deployment["package"]) == ({"id": parts["hostId"]}, {"id": parts["packageId"]})
    assert deployment["variables"] == [
        {"name": "A", "value": "1", "secret": False},
        {"name": "B", "value": None, "secret": True},
    ]
    assert deployment["latestRun"] is None
    assert (engine.enqueued, engine.wakes) == ([], 0)
    async with api.db.read() as session:
        assert "s3cret" not in str([vars(row) for row in await session.scalars(select(Variable))])


async def test_a_new_deployment_lists_the_variables_that_it_misses(api: Api) -> None:
    given = {"name": "web", "version": "1", "composeFile": f"{COMPOSE_FILE}x-a: $A $B ${{C:-c}}"}
    package = (await api.ask(CREATE_PACKAGE, input=given))["createPackage"]["package"]
    variables = [{"name": "B", "value": ""}]
    parts = await _parts(api) | {"packageId": package["id"], "variables": variables}
    deployment = (await api.ask(CREATE_DEPLOYMENT, input=parts))["createDeployment"]["deployment"]
    assert deployment["missingVariables"] == ["A"]


async def test_a_project_name_is_made_where_none_is_given(api: Api) -> None:
    for given in ({}, {"projectName": None, "variables": None}):
        deployment = (await api.ask(CREATE_DEPLOYMENT, input=await _parts(api) | given))["createDeployment"]
        assert deployment["deployment"]["projectName"].startswith("package-")


async def test_all_problems_of_a_deployment_are_told_at_once(api: Api) -> None:
    variables = [{"name": "COMPOSE_FILE", "value": ""}, {"name": "A", "value": "s3cret\0", "secret": True}]
    given = await _parts(api) | {"projectName": "A", "variables": variables}
    error = await api.error(CREATE_DEPLOYMENT, input=given)
    assert _codes(error) == [
        ("input.projectName", "PROJECT_NAME"),
        ("input.variables.0.name", "VARIABLE"),
        ("input.variables.1.value", "CHARACTER"),
    ]
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("last", [None, RunStatus.SUCCESS, RunStatus.FAILED])
async def test_a_deployment_is_run(api: Api, engine: RecordingEngine, last: RunStatus | None) -> None:
    deployment = await factories.deployment(api.db)
    if last is not None:
        await factories.run(api.db, deployment, last)
    payload = (await api.ask(RUN_DEPLOYMENT, input={"deploymentId": str(deployment.id)}))["runDeployment"]
    run = payload["run"]
    assert payload["deployment"] == {"id": str(deployment.id), "status": "RUNNING", "latestRun": {"id": run["id"]}}
    assert (run["number"], run["action"], run["status"], run["progress"]) == (
        1 if last is None else 2,
        "UP",
        "QUEUED",
        0,
    )
    assert run["deployment"] == {"id": str(deployment.id), "status": "RUNNING"}
    assert [str(key) for key in engine.enqueued] == [run["id"]]


async def test_a_deployment_is_taken_down(api: Api) -> None:
    key = str((await factories.deployment(api.db)).id)
    payload = (await api.ask(RUN_DEPLOYMENT, input={"deploymentId": key, "action": "DOWN"}))["runDeployment"]
    assert payload["run"]["action"] == RunAction.DOWN


async def test_a_run_says_who_created_it_and_what_caused_it(api: Api) -> None:
    keys = [str((await factories.deployment(api.db)).id) for _ in range(2)]
    api.context.identify(Principal("oidc:alice", Role.OPERATOR))
    document = """mutation ($one: ID!, $many: [ID!]!) {
        runDeployment(input: {deploymentId: $one}) { run { createdBy trigger } }
        runDeployments(input: {deploymentIds: $many}) { runs { createdBy trigger } }
    }"""
    told = await api.ask(document, one=keys[0], many=keys[1:])
    run = {"createdBy": "oidc:alice", "trigger": "API"}
    assert told == {"runDeployment": {"run": run}, "runDeployments": {"runs": [run]}}


async def test_many_deployments_are_run_in_the_order_of_the_input(api: Api, engine: RecordingEngine) -> None:
    keys = [str((await factories.deployment(api.db)).id) for _ in range(5)][::-1]
    answer = await api.ask(RUN_DEPLOYMENTS, input={"deploymentIds": keys, "action": None})
    runs = answer["runDeployments"]["runs"]
    assert [run["deployment"] for run in runs] == [{"id": key, "status": "RUNNING"} for key in keys]
    assert {run["action"] for run in runs} == {"UP"}
    assert (len(engine.enqueued), engine.wakes) == (5, 1)


async def test_what_is_wrong_with_many_is_told_at_its_place(api: Api) -> None:
    key = str(uuid4())
    assert _codes(await api.error(RUN_DEPLOYMENTS, input={"deploymentIds": []})) == [("input.deploymentIds", "RANGE")]
    twice = await api.error(RUN_DEPLOYMENTS, input={"deploymentIds": [key, key]})
    assert _codes(twice) == [("input.deploymentIds", "TWICE")]
    assert twice["message"] == "deploymentIds must not have an id twice."


async def test_a_queued_run_is_canceled(api: Api) -> None:
    run = await factories.run(api.db)
    canceled = (await api.ask(CANCEL_RUN, input={"runId": str(run.id)}))["cancelRun"]["run"]
    assert (canceled["status"], canceled["reason"]) == ("CANCELED", "CANCELED")
    assert canceled["deployment"] == {"status": "PENDING"}


async def test_a_running_run_is_asked_to_end(api: Api, engine: RecordingEngine) -> None:
    run = await factories.run(api.db, to=RunStatus.RUNNING)
    canceled = (await api.ask(CANCEL_RUN, input={"runId": str(run.id)}))["cancelRun"]["run"]
    assert (canceled["status"], canceled["reason"]) == ("RUNNING", None)
    assert canceled["cancelRequestedAt"] is not None
    assert engine.canceled == [run.id]


async def test_a_deleted_deployment_takes_runs_and_logs_with_it(api: Api) -> None:
    run = await factories.run(api.db, to=RunStatus.SUCCESS)
    await factories.log(api.db, run, 3)
    await api.ask(DELETE_DEPLOYMENT, input={"deploymentId": str(run.deployment_id)})
    async with api.db.read() as session:
        for entity in (Deployment, Run, LogEntry):
            assert (await session.scalars(select(entity))).all() == []


async def test_an_unknown_host_or_package_is_named(api: Api) -> None:
    parts = await _parts(api)
    for unknown in UNKNOWN:
        error = await api.error(CREATE_DEPLOYMENT, input=parts | {"hostId": unknown})
        assert error["extensions"] == {"code": "HOST_NOT_FOUND", "status": 400}
        assert error["message"] == f"Host '{unknown}' was not found; the query hosts lists the ids."
        error = await api.error(CREATE_DEPLOYMENT, input=parts | {"packageId": unknown})
        assert error["extensions"] == {"code": "PACKAGE_NOT_FOUND", "status": 400}
        assert error["message"] == f"Package '{unknown}' was not found; the query packages lists the ids."
        assert error["path"] == ["createDeployment"]


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (UPDATE_HOST, "hostId"),
        (DELETE_HOST, "hostId"),
        (DELETE_PACKAGE, "packageId"),
        (DELETE_DEPLOYMENT, "deploymentId"),
        (RUN_DEPLOYMENT, "deploymentId"),
        (CANCEL_RUN, "runId"),
    ],
)
async def test_any_other_unknown_id_is_not_found(api: Api, document: str, name: str) -> None:
    for unknown in UNKNOWN:
        error = await api.error(document, input={name: unknown})
        assert error["extensions"] == {"code": "NOT_FOUND", "status": 404}


async def test_one_unknown_id_among_many_starts_none(api: Api, engine: RecordingEngine) -> None:
    key = str((await factories.deployment(api.db)).id)
    error = await api.error(RUN_DEPLOYMENTS, input={"deploymentIds": [key, str(uuid4())]})
    assert error["extensions"] == {"code": "NOT_FOUND", "status": 404}
    assert engine.wakes == 0


@pytest.mark.parametrize("active", [RunStatus.QUEUED, RunStatus.RUNNING])
async def test_a_deployment_that_is_running_is_not_run_again_nor_deleted_nor_its_host_changed(
    api: Api, active: RunStatus
) -> None:
    run = await factories.run(api.db, to=active)
    key = str(run.deployment_id)
    host = await api.db_get(Host, (await api.db_get(Deployment, run.deployment_id)).host_id)
    other = str((await factories.deployment(api.db)).id)
    for document, given in (
        (RUN_DEPLOYMENT, {"deploymentId": key}),
        (RUN_DEPLOYMENTS, {"deploymentIds": [other, key]}),
        (DELETE_DEPLOYMENT, {"deploymentId": key}),
        (UPDATE_HOST, {"hostId": str(host.id), "name": "new"}),
    ):
        error = await api.error(document, input=given)
        assert error["extensions"] == {"code": "RUN_ALREADY_IN_PROGRESS", "status": 400, "runId": str(run.id)}
        assert f"run '{run.id}'" in error["message"]


async def test_what_deployments_name_is_in_use(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    for document, given in (
        (DELETE_HOST, {"hostId": str(deployment.host_id)}),
        (DELETE_PACKAGE, {"packageId": str(deployment.package_id)}),
    ):
        error = await api.error(document, input=given)
        used = {"count": 1, "deploymentId": str(deployment.id)}
        assert error["extensions"] == {"code": "IN_USE", "status": 400, **used}


async def test_a_name_is_taken_once(api: Api) -> None:
    host = await factories.host(api.db, name="web")
    other = await factories.host(api.db)
    package = await factories.package(api.db, name="web", version="1")
    await factories.deployment(api.db, on=host, project_name="web")
    given = {"name": "web", "version": "1", "composeFile": COMPOSE_FILE}
    for document, taken in (
        (CREATE_HOST, {"name": "web", "address": "web.example"}),
        (UPDATE_HOST, {"hostId": str(other.id), "name": "web"}),
        (CREATE_PACKAGE, given),
        (CREATE_DEPLOYMENT, {"hostId": str(host.id), "packageId": str(package.id), "projectName": "web"}),
    ):
        error = await api.error(document, input=taken)
        assert error["extensions"] == {"code": "NAME_TAKEN", "status": 400}


async def test_a_mutation_sees_what_the_one_before_it_has_done(api: Api) -> None:
    # They are carried out one after the other, and what the first has loaded is old when the second answers.
    parts = await _parts(api)
    create = f'(input: {{hostId: "{parts["hostId"]}", packageId: "{parts["packageId"]}"}})'
    below = "deployment { host { deployments(first: 1) { totalCount nodes { id } } } id }"
    answer = await api.ask(
        f"mutation {{ a: createDeployment{create} {{ {below} }} b: createDeployment{create} {{ {below} }} }}"
    )
    for name, count in (("a", 1), ("b", 2)):
        deployment = answer[name]["deployment"]
        listed = deployment["host"]["deployments"]
        assert listed == {"totalCount": count, "nodes": [{"id": deployment["id"]}]}


async def test_a_mutation_that_fails_leaves_the_others_of_its_operation(api: Api) -> None:
    key = str((await factories.deployment(api.db)).id)
    run = f'runDeployment(input: {{deploymentId: "{key}"}}) {{ run {{ status }} }}'
    result = await api.execute(f"mutation {{ a: {run} b: {run} }}")
    assert result.data == {"a": {"run": {"status": "QUEUED"}}, "b": None}
    assert result.errors is not None
    assert [error.path for error in result.errors] == [["b"]]


async def test_a_request_that_comes_again_with_its_key_gets_the_same_object(api: Api, engine: RecordingEngine) -> None:
    parts = await _parts(api)
    package = {"name": "web", "version": "1", "composeFile": COMPOSE_FILE}
    deployment = str((await factories.deployment(api.db)).id)
    others = [str((await factories.deployment(api.db)).id) for _ in range(3)]
    for document, given, other in (
        (CREATE_HOST, {"name": "web", "address": "web.example"}, {"port": 2222}),
        (CREATE_PACKAGE, package, {"files": [{"path": "a", "content": "1"}]}),
        (CREATE_DEPLOYMENT, parts | {"projectName": "web"}, {"variables": [{"name": "A", "value": "1"}]}),
        (RUN_DEPLOYMENT, {"deploymentId": deployment}, {"action": "DOWN"}),
        (RUN_DEPLOYMENTS, {"deploymentIds": others}, {"deploymentIds": others[:2]}),
    ):
        keyed = given | {"idempotencyKey": "one"}
        first = await api.ask(document, input=keyed)
        assert await api.ask(document, input=keyed) == first
        error = await api.error(document, input=keyed | other)
        assert (error["extensions"]["code"], error["extensions"]["status"]) == ("BAD_USER_INPUT", 400)
        assert _codes(error) == [("input.idempotencyKey", "IDEMPOTENCY_KEY")]
        assert error["message"].startswith("idempotencyKey was given with other input")
        # Null is no key: the request is another one, and what it names is taken.
        error = await api.error(document, input=given | {"idempotencyKey": None})
        assert error["extensions"]["code"] in {"NAME_TAKEN", "RUN_ALREADY_IN_PROGRESS"}
    assert len(engine.enqueued) == 4


async def test_defaults_that_are_given_make_no_other_request(api: Api) -> None:
    given = {"name": "web", "address": "web.example", "idempotencyKey": "one"}
    first = await api.ask(CREATE_HOST, input=given)
    defaults = {"transport": "SSH", "port": 22, "user": "root", "sshKeyPath": None}
    assert await api.ask(CREATE_HOST, input=given | defaults) == first


async def test_mode_base64_and_only_if_missing_of_a_file_make_another_request(api: Api) -> None:
    given = {"name": "web", "version": "1", "composeFile": COMPOSE_FILE, "idempotencyKey": "one"}
    file: dict[str, object] = {"path": "a", "content": "eA=="}
    first = await api.ask(CREATE_PACKAGE, input=given | {"files": [file]})
    defaults = {"base64": None, "mode": "0644", "onlyIfMissing": False}
    assert await api.ask(CREATE_PACKAGE, input=given | {"files": [file | defaults]}) == first
    for other in ({"mode": "0755"}, {"onlyIfMissing": True}, {"content": None, "base64": "eA=="}):
        error = await api.error(CREATE_PACKAGE, input=given | {"files": [file | other]})
        assert _codes(error) == [("input.idempotencyKey", "IDEMPOTENCY_KEY")]


async def test_another_token_has_keys_of_its_own(api: Api) -> None:
    given = {"idempotencyKey": "one", "address": "web.example"}
    first = await api.ask(CREATE_HOST, input=given | {"name": "web"})
    # Of the same name, as only tokens from before names were reserved can be.
    api.context.identify(Principal("test", token_id=uuid4()))
    second = await api.ask(CREATE_HOST, input=given | {"name": "db"})
    assert first["createHost"]["host"]["id"] != second["createHost"]["host"]["id"]


async def test_what_is_wrong_with_a_key_is_told_with_all_else(api: Api) -> None:
    given = {"name": "", "address": "web.example", "idempotencyKey": ""}
    assert _codes(await api.error(CREATE_HOST, input=given)) == [
        ("input.idempotencyKey", "CHARACTERS"),
        ("input.name", "EMPTY"),
    ]


RUN_IN_TURN = """mutation ($input: RunDeploymentInput!) { runDeployment(input: $input) {
    run { priority status queuePosition blockedBy }
} }"""


async def test_a_run_is_queued_with_its_priority(api: Api) -> None:
    async def run(**given: object) -> object:
        key = str((await factories.deployment(api.db)).id)
        return (await api.ask(RUN_IN_TURN, input={"deploymentId": key} | given))["runDeployment"]["run"]

    queued = {"status": "QUEUED", "queuePosition": 1, "blockedBy": None}
    assert await run(priority=-100) == queued | {"priority": -100}
    assert await run(priority=None) == queued | {"priority": 0}
    many = [str((await factories.deployment(api.db)).id) for _ in range(2)]
    document = """mutation ($input: RunDeploymentsInput!) { runDeployments(input: $input) {
        runs { priority }
    } }"""
    given = {"deploymentIds": many, "priority": 7}
    answer = await api.ask(document, input=given)
    assert answer["runDeployments"]["runs"] == [{"priority": 7}] * 2


async def test_what_is_wrong_with_a_runs_turn_is_told_at_its_place(api: Api) -> None:
    given = {"deploymentId": str(uuid4()), "priority": 101}
    error = await api.error(RUN_DEPLOYMENT, input=given)
    assert _codes(error) == [("input.priority", "RANGE")]
    assert [problem["message"] for problem in error["extensions"]["problems"]] == [
        "priority must be from -100 to 100.",
    ]


@pytest.mark.parametrize("moment", ["2026-01-31T12:00:00", "9999-12-31T23:59:59-01:00", "soon", 5])
async def test_a_time_that_names_no_moment_is_refused(api: Api, moment: object) -> None:
    document = "mutation ($input: CreateTokenInput!) { createToken(input: $input) { secret } }"
    result = await api.execute(document, input={"name": "ci", "role": "VIEWER", "expiresAt": moment})
    assert result.errors is not None
    [error] = result.errors
    assert error.extensions == {"code": "BAD_USER_INPUT", "status": 400}


CREATE_SSH_KEY = """mutation ($input: CreateSshKeyInput!) { createSshKey(input: $input) {
    sshKey { id name publicKey fingerprint createdAt }
} }"""
DELETE_SSH_KEY = "mutation ($input: DeleteSshKeyInput!) { deleteSshKey(input: $input) { deletedSshKeyId } }"
KEYS_OF_HOSTS = "{ sshKeys { totalCount nodes { id name } } hosts { nodes { name sshKey { id fingerprint } } } }"


async def test_a_key_is_kept_named_by_hosts_and_deleted(api: Api) -> None:
    private = private_keys.generate()
    given = {"name": "web", "privateKey": private.text.reveal(), "passphrase": ""}
    key = (await api.ask(CREATE_SSH_KEY, input=given))["createSshKey"]["sshKey"]
    assert (key["name"], key["publicKey"], key["fingerprint"]) == ("web", f"{private.public} web", private.fingerprint)
    new = (await api.ask(CREATE_SSH_KEY, input={"name": "new", "privateKey": None}))["createSshKey"]["sshKey"]
    given = {"name": "web", "address": "web.example", "sshKeyId": key["id"]}
    host = (await api.ask(CREATE_HOST, input=given))["createHost"]["host"]["id"]
    await api.ask(CREATE_HOST, input={"name": "db", "address": "db.example", "sshKeyPath": "/key"})
    assert await api.ask(KEYS_OF_HOSTS) == {
        "sshKeys": {"totalCount": 2, "nodes": [{"id": each["id"], "name": each["name"]} for each in (new, key)]},
        "hosts": {
            "nodes": [
                {"name": "db", "sshKey": None},
                {"name": "web", "sshKey": {"id": key["id"], "fingerprint": private.fingerprint}},
            ]
        },
    }
    error = await api.error(DELETE_SSH_KEY, input={"sshKeyId": key["id"]})
    assert error["extensions"]["code"] == "IN_USE"
    assert error["message"] == f"SSH key '{key['id']}' is in use by host '{host}'."
    answer = await api.ask(DELETE_SSH_KEY, input={"sshKeyId": new["id"]})
    assert answer == {"deleteSshKey": {"deletedSshKeyId": new["id"]}}


async def test_what_is_wrong_with_a_private_key_is_told_without_it(api: Api) -> None:
    text = private_keys.generate().text.reveal()
    for given, problem, words in (
        ({"privateKey": "hunter2"}, ("input.privateKey", "PRIVATE_KEY"), "privateKey must be a private key in"),
        ({"passphrase": "hunter2"}, ("input.passphrase", "ALONE"), "passphrase must not be given without"),
        ({"privateKey": text, "passphrase": "hunter2"}, ("input.passphrase", "NEEDLESS"), "passphrase must not be"),
    ):
        error = await api.error(CREATE_SSH_KEY, input={"name": "web", **given})
        assert _codes(error) == [problem]
        assert error["message"].startswith(words)
        assert "hunter2" not in str(error)
        assert text.splitlines()[2] not in str(error)


async def test_a_host_with_a_key_and_a_path_is_refused(api: Api) -> None:
    key = str((await factories.ssh_key(api.db)).id)
    host = str((await factories.host(api.db)).id)
    both = {"sshKeyPath": "/key", "sshKeyId": key}
    for document, given in (
        (CREATE_HOST, {"name": "web", "address": "web.example"}),
        (UPDATE_HOST, {"hostId": host}),
    ):
        error = await api.error(document, input=given | both)
        assert _codes(error) == [("input.sshKeyId", "BOTH")]
        assert error["message"] == "sshKeyId must not be given together with a path: a host has one key."
        error = await api.error(document, input=given | {"sshKeyId": str(uuid4())})
        assert (error["extensions"]["code"], error["message"][:7]) == ("NOT_FOUND", "SSH key")
    await api.ask(UPDATE_HOST, input={"hostId": host, "sshKeyId": key})
    changed = (await api.ask(UPDATE_HOST, input={"hostId": host, "sshKeyId": None}))["updateHost"]["host"]
    assert changed["sshKeyPath"] is None
    assert (await api.ask(KEYS_OF_HOSTS))["hosts"]["nodes"][0]["sshKey"] is None
