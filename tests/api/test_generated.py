"""Operations that nobody thought of: schemathesis makes them from the schema, and the server answers each."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise
from random import Random
from typing import Any, TypeAlias

import graphql
import httpx
import schemathesis
from graphql import REMOVE, ArgumentNode, FieldNode, ObjectFieldNode, OperationDefinitionNode, ValueNode, Visitor
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.graphql import nodes

from db.database import Database
from db.models import Role, RunStatus
from resolvers import private_keys, tokens
from resolvers.errors import ErrorCode
from schema.errors import RequestCode
from tests import factories
from tests.support.serving import ADMIN_TOKEN, NO_TLS, PATIENCE, Served

Operation: TypeAlias = schemathesis.APIOperation[Any, Any, Any, Any]  # a field of Query or Mutation
Documents: TypeAlias = Callable[[Operation], SearchStrategy[str]]
Values: TypeAlias = dict[str, list[ValueNode]]
Answers: TypeAlias = dict[str, list[dict[str, Any]]]  # by the field that was asked for, like "Query.hosts"

GRAPHQL_RESPONSE = "application/graphql-response+json"
CODES = {str(code) for code in (*ErrorCode, *RequestCode)} - {"INTERNAL_SERVER_ERROR", "TIMEOUT"}
MOSTLY = 0.85
PAGING = {"first", "after", "last", "before"}
CURSORS = """{
  hosts { edges { cursor node { deployments { edges { cursor } } } } }
  packages { edges { cursor } }
  deployments { edges { cursor node {
    runs { edges { cursor node { log { edges { cursor } } } } }
    logs { edges { cursor } }
  } } }
}"""


class Teaching(Visitor):
    """Gives most arguments a value that the server takes, and leaves most of a page's out.

    Left to themselves, ids name nothing, and `first` stands beside `last` and is a number of ten digits.
    """

    def __init__(self, values: Values, random: Random) -> None:
        super().__init__()
        self._values = values
        self._random = random

    def enter_argument(self, node: ArgumentNode, *where: Any) -> Any:
        if node.name.value in PAGING and self._random.random() < MOSTLY:
            return REMOVE
        field = where[-1][-1]  # the nearest of the ancestors
        return self._taught(node, f"{field.name.value}.{node.name.value}")

    def enter_object_field(self, node: ObjectFieldNode, *_where: Any) -> Any:
        return self._taught(node, node.name.value)

    def _taught(self, node: ArgumentNode | ObjectFieldNode, name: str) -> Any:
        values = self._values.get(name, self._values.get(node.name.value))
        if values is None or self._random.random() > MOSTLY:
            return None
        return replace(node, value=self._random.choice(values))


def fitting(values: Values) -> Documents:
    """Documents that fit the schema, with `values` in them."""

    def teach(document: str) -> str:
        # By its own dice: Hypothesis prefers what is simple, and would choose the first id again and again.
        return graphql.print_ast(graphql.visit(graphql.parse(document), Teaching(values, Random(document))))

    return lambda operation: operation.as_strategy().map(text).map(teach)


def unfitting(operation: Operation) -> SearchStrategy[str]:
    """Documents that break the schema in one place: a wrong type, a missing argument, an unknown enum value."""
    return operation.as_strategy(GenerationMode.NEGATIVE).map(text)


def text(case: schemathesis.Case[Any]) -> str:
    assert isinstance(case.body, str)
    return case.body


def ask(served: Served, introspected: dict[str, Any], documents: Documents, count: int) -> Answers:
    """The answers to `count` documents for each field of Query and Mutation."""
    answers: Answers = defaultdict(list)
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Accept": GRAPHQL_RESPONSE}
    with httpx.Client(headers=headers, timeout=PATIENCE, trust_env=False, verify=NO_TLS) as client:

        def ask_for(operation: Operation) -> None:
            @settings(
                max_examples=count,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=[HealthCheck.too_slow],  # it tells of the machine, not of the server
            )
            @given(documents(operation))
            def look(document: str) -> None:
                note(document)  # schemathesis keeps Hypothesis from showing arguments
                answers[root_field(document)].append(answered(client.post(served.url, json={"query": document})))

            look()

        schema = schemathesis.graphql.from_dict(introspected, config=schemathesis.Config())
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        # What the deletions take away is there for the others.
        for operation in sorted(operations, key=lambda operation: "delete" in operation.label):
            ask_for(operation)
    return answers


def root_field(document: str) -> str:
    """The one field of Query or Mutation."""
    [operation] = graphql.parse(document).definitions
    assert isinstance(operation, OperationDefinitionNode)
    [field] = operation.selection_set.selections
    assert isinstance(field, FieldNode)
    return f"{operation.operation.value.capitalize()}.{field.name.value}"


def answered(response: httpx.Response) -> dict[str, Any]:
    """The body of an answer, which is seen to be one of GraphQL and to have only errors that the API knows."""
    body: dict[str, Any] = response.json()
    assert response.headers["content-type"] == f"{GRAPHQL_RESPONSE}; charset=utf-8"
    assert response.status_code == (200 if "data" in body else 400), body
    assert {"data"} <= body.keys() <= {"data", "errors"} or body.keys() == {"errors"}
    assert "errors" not in body or body["errors"]
    assert {error["extensions"]["code"] for error in body.get("errors", [])} <= CODES, body
    return body


async def populate(db: Database) -> dict[str, list[str]]:
    """Ids of rows of each kind.  Half of the hosts and packages can be deleted, most of the deployments never ran."""
    hosts = [await factories.host(db) for _ in range(40)]
    packages = [await factories.package(db, files={"a/b.txt": "text"}) for _ in range(40)]
    deployments = [
        await factories.deployment(db, on=hosts[number % 20], of=packages[number % 20], variables={"A": "1"})
        for number in range(120)
    ]
    runs = [await factories.run(db, of, to) for of, to in zip(deployments, 4 * [*RunStatus], strict=False)]
    for run in runs:
        await factories.log(db, run, 3)
    made = [(await tokens.create(db, f"token {number}", Role.VIEWER))[0] for number in range(20)]
    keys = [await factories.ssh_key(db) for _ in range(40)]
    return {
        "token": [str(token.id) for token in made],
        "sshKey": [str(key.id) for key in keys],
        "host": [str(host.id) for host in hosts],
        "package": [str(package.id) for package in packages],
        "deployment": [str(deployment.id) for deployment in deployments],
        "run": [str(run.id) for run in runs],
    }


def cursors(data: dict[str, Any]) -> dict[str, list[str]]:
    """The cursors in the answer to CURSORS, by the names of the lists that they are of."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, connection in data.items():
        for edge in connection["edges"]:
            found[name].append(edge["cursor"])
            for below, more in cursors(edge.get("node", {})).items():
                found[below] += more
    return found


def known(ids: dict[str, list[str]], cursors: dict[str, list[str]]) -> Values:
    """Values that the server takes, by the argument or by its field and the argument."""
    strings = {
        "name": [f"name_{number}" for number in range(1000)],
        "projectName": [f"project-{number}" for number in range(1000)],
        "path": [f"files/{number}.txt" for number in range(1000)],
        "version": ["1", "2.0.0"],
        "address": ["host.example", "192.0.2.1", "2001:db8::1"],
        "user": ["root", "deploy"],
        "sshKeyPath": ["/keys/id_ed25519"],
        "privateKey": [private_keys.generate().text.reveal()],
        "passphrase": [""],
        "composeFile": [factories.COMPOSE_FILE],
        "expiresAt": ["2999-12-31T23:59:59Z"],
        "idempotencyKey": [f"key {number}" for number in range(1000)],
        "node.id": list(chain(*ids.values())),
    }
    for kind, some in ids.items():
        strings[f"{kind}.id"] = strings[f"{kind}Id"] = some
    for name, some in cursors.items():
        strings[f"{name}.after"] = strings[f"{name}.before"] = some
    values: Values = {name: [nodes.String(each) for each in some] for name, some in strings.items()}
    labels = nodes.List([nodes.String("a"), nodes.String("b")])
    values["labels"] = values["hostLabels"] = [labels]
    values["deploymentIds"] = [nodes.List([*pair]) for pair in pairwise(values["deploymentId"])]
    values["first"] = values["last"] = [nodes.Int(size) for size in (0, 1, 2, 5, 100)]
    values["priority"] = [nodes.Int(priority) for priority in (-100, 0, 1, 100)]
    values["port"] = [nodes.Int(port) for port in (1, 22, 65535)]
    return values


async def introspect(served: Served) -> dict[str, Any]:
    introspected: dict[str, Any] = (await served.ask(graphql.get_introspection_query())).json()
    return introspected


def root_fields(introspected: dict[str, Any]) -> set[str]:
    """All fields of Query and Mutation."""
    types = {each["name"]: each for each in introspected["data"]["__schema"]["types"]}
    return {f"{root}.{field['name']}" for root in ("Query", "Mutation") for field in types[root]["fields"]}


async def test_no_operation_breaks_the_server(served: Served) -> None:
    ids = await populate(served.db)
    values = known(ids, cursors((await served.ask(CURSORS)).json()["data"]))
    introspected = await introspect(served)
    answers = await asyncio.to_thread(ask, served, introspected, fitting(values), 25)
    assert answers.keys() == root_fields(introspected)
    bodies = list(chain(*answers.values()))
    assert len(bodies) >= 300
    # What the limits or the rules refuse shows little, so most of it must not be.
    executed = [body for body in bodies if "data" in body]
    succeeded = {field: [body for body in some if "errors" not in body] for field, some in answers.items()}
    assert len(executed) > 0.9 * len(bodies)
    assert len(list(chain(*succeeded.values()))) > 0.5 * len(bodies)
    # None of the hosts is there to be asked.
    assert {field for field, some in succeeded.items() if not some} <= {"Mutation.scanHostKey", "Mutation.trustHostKey"}


async def test_operations_that_do_not_fit_the_schema_are_refused(served: Served) -> None:
    introspected = await introspect(served)
    answers = await asyncio.to_thread(ask, served, introspected, unfitting, 40)
    assert answers.keys() == root_fields(introspected)
    del answers["Query.viewer"]  # it has nothing that could be wrong
    bodies = list(chain(*answers.values()))
    assert len(bodies) >= 300
    assert [body for body in bodies if "data" in body] == []
    assert {error["extensions"]["code"] for body in bodies for error in body["errors"]} == {"GRAPHQL_VALIDATION_FAILED"}
