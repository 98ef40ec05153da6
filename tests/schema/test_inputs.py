"""Inputs: what may be left out, what a default is, and which of them can be asked for again."""

from typing import Any

import pytest
from graphql import GraphQLInputObjectType, GraphQLNonNull, Undefined

import schema

NEEDED = {
    "CancelRunInput": {"runId"},
    "CreateDeploymentInput": {"hostId", "packageId"},
    "CreateHostInput": {"name"},
    "CreatePackageInput": {"composeFile", "name", "version"},
    "CreateSshKeyInput": {"name"},
    "CreateTokenInput": {"name", "role"},
    "PackageFileInput": {"path"},
    "RegistryLoginInput": {"password", "registry", "username"},
    "RunDeploymentInput": {"deploymentId"},
    "RunDeploymentsInput": {"deploymentIds"},
    "TrustHostKeyInput": {"fingerprint", "hostId"},
    "UpdateHostInput": {"hostId"},
    "VariableInput": {"name", "value"},
}
DEFAULTS = {
    "CreateHostInput.transport": "SSH",
    "CreateHostInput.port": 22,
    "CreateHostInput.user": "root",
    "PackageFileInput.mode": "0644",
    "PackageFileInput.onlyIfMissing": False,
    "RunDeploymentInput.action": "UP",
    "RunDeploymentInput.priority": 0,
    "RunDeploymentsInput.action": "UP",
    "RunDeploymentsInput.priority": 0,
    "VariableInput.secret": False,
}


@pytest.fixture(scope="module")
def inputs(executable_schema: schema.Schema) -> dict[str, GraphQLInputObjectType]:
    """The inputs of mutations and what is inside them; those of lists have tests/schema/test_filters.py."""
    types = executable_schema._schema.type_map.items()
    return {name: kind for name, kind in types if isinstance(kind, GraphQLInputObjectType) and name.endswith("Input")}


@pytest.mark.parametrize("name", NEEDED)
def test_what_has_to_be_given_is_not_null(inputs: dict[str, GraphQLInputObjectType], name: str) -> None:
    fields = inputs[name].fields.items()
    assert {field for field, value in fields if isinstance(value.type, GraphQLNonNull)} == NEEDED[name]


def test_what_changes_or_deletes_names_it_by_one_id(inputs: dict[str, GraphQLInputObjectType]) -> None:
    others = {name: kind.fields for name, kind in inputs.items() if name not in NEEDED}
    assert all(name.startswith(("Delete", "Revoke", "Scan")) for name in others)
    assert [name for name, fields in others.items() if len(fields) != 1 or not next(iter(fields)).endswith("Id")] == []


def test_a_default_is_in_the_schema_for_clients_to_see(inputs: dict[str, GraphQLInputObjectType]) -> None:
    defaults: dict[str, Any] = {
        f"{name}.{field}": getattr(value.default_value, "value", value.default_value)
        for name, kind in inputs.items()
        for field, value in kind.fields.items()
        if value.default_value is not Undefined
    }
    assert defaults == DEFAULTS


def test_what_creates_or_starts_something_can_be_asked_for_again(inputs: dict[str, GraphQLInputObjectType]) -> None:
    made_once = {"CreateSshKeyInput", "CreateTokenInput"}  # they answer with a secret, which is not kept
    starting = {name for name in inputs if name.startswith(("Create", "Run")) and name not in made_once}
    assert {name for name, kind in inputs.items() if "idempotencyKey" in kind.fields} == starting
