"""The filters of lists as clients write them; what each condition finds is tested with the resolvers."""

from db.models import Deployment, RunStatus
from tests import factories
from tests.schema.api import Api
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
