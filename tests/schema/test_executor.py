"""The bytes, the slices and the time of an operation: attacks on the path that real operations take."""

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from strawberry.dataloader import DataLoader
from strawberry.types import ExecutionResult

import schema
from db.models import Host, RunStatus
from resolvers.tokens import Principal
from schema.context import Context
from schema.limits import Limits
from tests import factories
from tests.support.api import TIMEOUT, Api, take

MIB = 1024 * 1024
REFUSED = {"code": "OPERATION_TOO_COMPLEX", "status": 400, "limit": "answer"}
TWICE_NESTED = """{ packages(first: 1) { nodes { deployments(first: 30) { nodes { package {
    deployments(first: 30) { nodes { package { files { path text } } } }
} } } } } }"""


def limited(api: Api, **limits: Any) -> Api:
    """The same API with other limits."""
    return Api(schema.make(limits=Limits(**limits)), api.context)


@pytest.fixture
def peak() -> Iterator[Any]:
    """The most bytes that were allocated at the same time since the beginning of the test's act."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_a_package_of_thirty_deployments_that_is_selected_through_all_of_them_takes_no_memory(
    api: Api, peak: Any
) -> None:
    package = await factories.package(api.db, {"large": "x" * (4 * MIB)})
    host = await factories.host(api.db)
    for _ in range(30):
        await factories.deployment(api.db, on=host, of=package)
    budget = 8 * MIB
    tracemalloc.reset_peak()
    result = await limited(api, answer=budget).execute(TWICE_NESTED)
    assert peak() < 4 * budget
    assert result.data is None
    [error] = result.errors or []
    assert error.extensions == {**REFUSED, "max": budget}
    assert "at 'packages.nodes.deployments.nodes.package.deployments.nodes.package.files.text'" in error.message


@pytest.mark.parametrize(
    ("selected", "is_refused"),
    [("id", False), ("files { path size mode }", False), ("files { sha256 }", True), ("composeFile", True)],
)
async def test_what_is_not_selected_is_not_read_and_what_is_too_much_neither(
    api: Api, peak: Any, selected: str, is_refused: bool
) -> None:
    budget, count = 8 * MIB, 20
    for _ in range(count):
        text = "services: {}\n#" + "x" * MIB
        await factories.package(api.db, {"large": b"\xff" * (3 * MIB)}, compose_file=text)
    api.context.max_answer = budget
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    result = await limited(api, answer=budget).execute(f"{{ packages(first: {count}) {{ nodes {{ {selected} }} }} }}")
    assert peak() - before < 4 * MIB  # together they have 80
    expected = [{**REFUSED, "max": budget}] if is_refused else []
    assert [error.extensions for error in result.errors or []] == expected


async def test_an_answer_within_its_bytes_is_answered_whole(api: Api) -> None:
    await factories.package(api.db, {"large": "x" * MIB})
    document = "{ packages { nodes { files { path text } } } }"
    told = await limited(api, answer=MIB + 2000).ask(document)
    assert len(told["packages"]["nodes"][0]["files"][0]["text"]) == MIB
    result = await limited(api, answer=MIB).execute(document)
    assert [error.extensions["limit"] for error in result.errors or [] if error.extensions] == ["answer"]


@pytest.mark.parametrize(
    "document",
    [
        "{ it: packages { nodes { composeFile } } }",
        "{ it: packages { nodes { files { base64 } } } }",
        "{ it: deployments { nodes { variables { value } } } }",
        "{ it: deployments { nodes { logs(first: 100) { nodes { message } } } } }",
        "{ it: deployments { nodes { runs(first: 1) { nodes { log(first: 30) { nodes { message } } } } } } }",
        "{ it: hosts { nodes { labels } } }",
        "{ it: hosts(first: 1) { " + " ".join(f"a{number}: totalCount" for number in range(40)) + " } }",
        "{ " + " ".join(f"a{number}: host(id: 1) {{ id }}" for number in range(2)) + " }",
    ],
    ids=["composeFile", "base64", "variables", "logs", "log", "labels", "numbers", "errors"],
)
async def test_everything_in_an_answer_counts(api: Api, document: str) -> None:
    host = await factories.host(api.db, labels=[f"label-{number}" for number in range(20)])
    text = "services: {}\n# " + "x" * 2000
    package = await factories.package(api.db, {"bytes": b"\xff" * 2000}, compose_file=text)
    deployment = await factories.deployment(api.db, on=host, of=package, variables={"LONG": "x" * 2000})
    run = await factories.run(api.db, deployment, RunStatus.SUCCESS)
    await factories.log(api.db, run, 100)
    result = await limited(api, answer=1000).execute(document)
    assert result.data is None
    assert [error.extensions for error in result.errors or []] == [{**REFUSED, "max": 1000}]


async def test_an_event_that_is_too_large_does_not_end_its_subscription(api: Api) -> None:
    deployment = await factories.deployment(api.db, variables={"LONG": "x" * 5000})
    document = "subscription($id: ID!) { deploymentStatus(id: $id) { status deployment { variables { value } } } }"
    results = await limited(api, answer=4000).schema.subscribe(
        document, variable_values={"id": str(deployment.id)}, context_value=api.context
    )
    first: Any = await anext(results)
    assert [error.extensions for error in first.errors] == [{**REFUSED, "max": 4000}]
    await factories.run(api.db, deployment)
    api.context.broadcast.notify(deployment.id)
    second: Any = await anext(results)
    assert [error.extensions for error in second.errors] == [{**REFUSED, "max": 4000}]
    await results.aclose()


async def test_each_event_has_bytes_of_its_own(api: Api) -> None:
    deployment = await factories.deployment(api.db, variables={"LONG": "x" * 1500})
    document = "subscription($id: ID!) { deploymentStatus(id: $id) { deployment { variables { value } } } }"
    async with limited(api, answer=3000).subscribe(document, id=str(deployment.id)) as events:
        await take(events)
        for _ in range(3):
            await factories.run(api.db, deployment, RunStatus.SUCCESS)
            api.context.broadcast.notify(deployment.id)
            await take(events, 2)


class Stuck(Context):
    """A context whose hosts are never read."""

    def renew(self) -> None:
        super().renew()
        self.loaders.host = DataLoader(load_fn=self._never)

    @staticmethod
    async def _never(keys: list[UUID]) -> list[Host]:
        await asyncio.Event().wait()
        return []


async def test_an_event_that_takes_too_long_ends_its_subscription(api: Api) -> None:
    deployment = await factories.deployment(api.db)
    document = "subscription($id: ID!) { deploymentStatus(id: $id) { deployment { host { name } } } }"
    context = Stuck(api.db, api.context.broadcast, api.context.engine, Principal("test"))
    hurried = schema.make(limits=Limits(seconds=0.5))
    results = await hurried.subscribe(document, variable_values={"id": str(deployment.id)}, context_value=context)
    async with asyncio.timeout(TIMEOUT):
        [refused] = [result async for result in results]
    assert isinstance(refused, ExecutionResult)
    expected = {"code": "OPERATION_TOO_COMPLEX", "status": 400, "limit": "seconds", "max": 0.5}
    assert [error.extensions for error in refused.errors or []] == [expected]
