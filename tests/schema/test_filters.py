"""The filters of lists as clients write them; what each condition finds is tested with the resolvers."""

from typing import Any

from db.models import Deployment, Role, RunStatus
from resolvers.tokens import Principal
from tests import factories
from tests.support.api import Api
from tests.support.attacks import UNSTORABLE
from tests.support.statements import selects


async def test_runs_are_filtered_in_the_list_of_all_and_below_their_deployment(api: Api) -> None:
    run = await factories.run(api.db, to=RunStatus.FAILED, created_by="ci")
    deployment_id, host_id = run.deployment_id, (await api.db_get(Deployment, run.deployment_id)).host_id
    document = """query ($id: ID!, $filter: RunFilter) {
        runs(filter: $filter) { nodes { number } totalCount }
        deployment(id: $id) { runs(filter: $filter) { nodes { number } totalCount } }
    }"""
    found, nothing = {"nodes": [{"number": 1}], "totalCount": 1}, {"nodes": [], "totalCount": 0}
    for given, expected in (
        (None, found),
        ({}, found),
        (
            {
                "statusIn": ["FAILED", "QUEUED"],
                "reasonIn": ["TASK_FAILED"],
                "actionIn": ["UP"],
                "triggerIn": ["API"],
                "deploymentId": str(deployment_id),
                "hostId": str(host_id),
                "createdBy": "ci",
                "queuedAfter": "2026-01-01T00:00:00Z",
                "queuedBefore": "9999-12-31T23:59:59.999Z",
            },
            found,
        ),
        ({"statusIn": None, "reasonIn": None, "deploymentId": None, "createdBy": None, "queuedAfter": None}, found),
        ({"statusIn": ["SUCCESS"]}, nothing),
        ({"reasonIn": ["TIMEOUT"]}, nothing),
        ({"actionIn": ["DOWN"]}, nothing),
        ({"triggerIn": []}, nothing),
        ({"deploymentId": str(host_id)}, nothing),
        ({"hostId": str(deployment_id)}, nothing),
        ({"createdBy": "c"}, nothing),
        ({"queuedAfter": "9999-12-31T23:59:59.999Z"}, nothing),
        ({"queuedBefore": "0001-01-01T00:00:00Z"}, nothing),
    ):
        told = await api.ask(document, id=str(deployment_id), filter=given)
        assert (told["runs"], told["deployment"]["runs"]) == (expected, expected), given


async def test_filtered_lists_below_many_parents_are_read_together_and_do_not_mix(api: Api) -> None:
    for _ in range(20):
        deployment = await factories.deployment(api.db)
        for to in (RunStatus.FAILED, RunStatus.SUCCESS, RunStatus.FAILED):
            await factories.run(api.db, deployment, to)
    document = """{ deployments { nodes {
        failed: runs(filter: {statusIn: [FAILED]}) { totalCount nodes { number } }
        well: runs(filter: {statusIn: [SUCCESS]}) { totalCount nodes { number } }
        all: runs(filter: {}) { totalCount nodes { number } }
    } } }"""
    with selects() as seen:
        told = await api.ask(document)
    expected = {"failed": [3, 1], "well": [2], "all": [3, 2, 1]}
    below = {
        name: {"totalCount": len(numbers), "nodes": [{"number": number} for number in numbers]}
        for name, numbers in expected.items()
    }
    assert told["deployments"]["nodes"] == [below] * 20
    assert len(seen) == 7  # deployments; a page and a count for each filter


Narrowed = dict[str, Any]


async def _names(api: Api, field: str, kind: str, name: str, given: Narrowed) -> list[str]:
    """The names in a list with this filter, sorted."""
    document = f"query ($filter: {kind}) {{ {field}(filter: $filter) {{ totalCount nodes {{ {name} }} }} }}"
    found = (await api.ask(document, filter=given))[field]
    assert found["totalCount"] == len(found["nodes"])
    return sorted(node[name] for node in found["nodes"])


async def test_hosts_are_filtered_by_labels_and_a_part_of_their_name_or_address(api: Api) -> None:
    await factories.host(api.db, ["prod", "eu"], name="web-1", address="10.0.0.1")
    await factories.host(api.db, ["test"], name="web-2", address="web.example.org")
    await factories.host(api.db, name="local", address=None)
    cases: list[tuple[Narrowed, list[str]]] = [
        ({}, ["local", "web-1", "web-2"]),
        ({"labelsAny": None, "search": None}, ["local", "web-1", "web-2"]),
        ({"labelsAny": ["eu", "test", "prod"]}, ["web-1", "web-2"]),
        ({"labelsAny": ["PROD", "no label", "\0", "\ud800"]}, []),
        ({"labelsAny": []}, []),
        ({"search": "WEB-"}, ["web-1", "web-2"]),
        ({"search": "example"}, ["web-2"]),
        ({"search": "oca"}, ["local"]),
        ({"search": "%"}, []),
        ({"search": "web", "labelsAny": ["prod"]}, ["web-1"]),
        *(({"search": unknown}, []) for unknown in UNSTORABLE),
    ]
    for given, expected in cases:
        assert await _names(api, "hosts", "HostFilter", "name", given) == expected, given


async def test_packages_are_filtered_by_a_part_of_their_name(api: Api) -> None:
    for name in ("Shop", "workshop", "blog"):
        await factories.package(api.db, name=name)
    cases: list[tuple[Narrowed, list[str]]] = [
        ({}, ["Shop", "blog", "workshop"]),
        ({"search": None}, ["Shop", "blog", "workshop"]),
        ({"search": "SHOP"}, ["Shop", "workshop"]),
        ({"search": "_"}, []),
    ]
    for given, expected in cases:
        assert await _names(api, "packages", "PackageFilter", "name", given) == expected, given


async def test_deployments_are_filtered_by_labels_and_a_part_of_a_name_also_below_hosts_and_packages(api: Api) -> None:
    red = await factories.host(api.db, ["prod"], name="Red")
    blue = await factories.host(api.db, ["test"], name="Blue")
    shop, blog = await factories.package(api.db, name="shop"), await factories.package(api.db, name="blog")
    for project, host, package in (("one", red, shop), ("two", red, blog), ("three", blue, shop)):
        await factories.deployment(api.db, on=host, of=package, project_name=project)
    document = """query ($host: ID!, $package: ID!, $filter: DeploymentFilter) {
        host(id: $host) { deployments(filter: $filter) { totalCount nodes { projectName } } }
        package(id: $package) { deployments(filter: $filter) { totalCount nodes { projectName } } }
    }"""
    on_red, of_shop = {"one", "two"}, {"one", "three"}
    cases: list[tuple[Narrowed, set[str]]] = [
        ({}, {"one", "two", "three"}),
        ({"hostLabelsAny": None, "search": None}, {"one", "two", "three"}),
        ({"hostLabelsAny": ["prod", "other"]}, on_red),
        ({"hostLabelsAny": []}, set()),
        ({"search": "RED"}, on_red),
        ({"search": "hop"}, of_shop),
        ({"search": "w"}, {"two"}),
        ({"search": "blu"}, {"three"}),
        ({"search": "o"}, {"one", "two", "three"}),
        ({"search": "%"}, set()),
        ({"search": "shop", "hostLabelsAny": ["test"]}, {"three"}),
    ]
    for given, expected in cases:
        found = await _names(api, "deployments", "DeploymentFilter", "projectName", given)
        assert set(found) == expected, given
        told = await api.ask(document, host=str(red.id), package=str(shop.id), filter=given)
        for parent, below in (("host", on_red), ("package", of_shop)):
            connection = told[parent]["deployments"]
            assert {node["projectName"] for node in connection["nodes"]} == expected & below, (parent, given)
            assert connection["totalCount"] == len(connection["nodes"])


async def test_a_search_finds_nothing_on_other_hosts(api: Api) -> None:
    for label in ("ours", "theirs"):
        host = await factories.host(api.db, [label], name=f"shared-{label}")
        await factories.deployment(api.db, on=host, project_name=label)
    api.context.identify(Principal("me", Role.VIEWER, frozenset({"ours"})))
    assert await _names(api, "hosts", "HostFilter", "name", {"search": "shared"}) == ["shared-ours"]
    assert await _names(api, "hosts", "HostFilter", "name", {"labelsAny": ["theirs"]}) == []
    given = {"search": "shared"}
    assert await _names(api, "deployments", "DeploymentFilter", "projectName", given) == ["ours"]


async def test_too_many_labels_are_refused_at_their_place(api: Api) -> None:
    many = [str(number) for number in range(101)]
    for field, kind, name in (
        ("hosts", "HostFilter", "labelsAny"),
        ("deployments", "DeploymentFilter", "hostLabelsAny"),
    ):
        document = f"query ($filter: {kind}) {{ {field}(filter: $filter) {{ totalCount }} }}"
        result = await api.execute(document, filter={name: many})
        assert result.errors is not None
        problem = {"path": ["filter", name], "code": "TOO_MANY", "message": f"{name} must have at most 100 entries."}
        assert (result.errors[0].extensions or {})["problems"] == [problem]


async def test_as_many_labels_as_allowed_below_as_many_parents_as_fit_a_page(api: Api) -> None:
    host = await factories.host(api.db, ["99"])
    for _ in range(100):
        await factories.deployment(api.db, on=host)
    document = """query ($filter: DeploymentFilter) { packages(first: 100) { nodes {
        deployments(filter: $filter) { totalCount nodes { id } }
    } } }"""
    given = {"hostLabelsAny": [str(number) for number in range(100)], "search": "p", "statusIn": ["PENDING"]}
    told = await api.ask(document, filter=given)
    assert [package["deployments"]["totalCount"] for package in told["packages"]["nodes"]] == [1] * 100


async def test_deployments_are_ordered_in_all_lists(api: Api) -> None:
    host, package = await factories.host(api.db), await factories.package(api.db)
    for name in "bca":
        await factories.deployment(api.db, on=host, of=package, project_name=name)
    document = """query ($host: ID!, $package: ID!, $order: DeploymentOrder) {
        deployments(orderBy: $order) { nodes { projectName } }
        host(id: $host) { deployments(orderBy: $order) { nodes { projectName } } }
        package(id: $package) { deployments(orderBy: $order) { nodes { projectName } } }
    }"""
    cases: list[tuple[dict[str, str] | None, str]] = [
        (None, "acb"),
        ({"field": "CREATED_AT", "direction": "DESC"}, "acb"),
        ({"field": "CREATED_AT", "direction": "ASC"}, "bca"),
        ({"field": "UPDATED_AT", "direction": "DESC"}, "acb"),
        ({"field": "PROJECT_NAME", "direction": "ASC"}, "abc"),
        ({"field": "PROJECT_NAME", "direction": "DESC"}, "cba"),
    ]
    for order, expected in cases:
        told = await api.ask(document, host=str(host.id), package=str(package.id), order=order)
        nodes = {"nodes": [{"projectName": name} for name in expected]}
        below = {"deployments": nodes}
        assert told == {"deployments": nodes, "host": below, "package": below}, order
