"""The mutations: each calls one resolver.  All are nullable: a failed mutation returns null and an error."""

# Longer than 300 lines: a GraphQL type is one class, and each mutation needs its description.

from typing import TypeVar

import strawberry
from strawberry import UNSET

from db import models
from db.encryption import Secret
from db.models import Role
from resolvers import deployments, host_keys, hosts, packages, runs, ssh_keys, tokens
from resolvers.files import DEFAULT_MODE, NewFile
from resolvers.idempotency import Key
from schema import inputs
from schema.context import Context, Info
from schema.enums import HostTransport, RunAction
from schema.permission import mutation
from schema.types import Deployment, Host, Package, Run, SshKey, Token

Value = TypeVar("Value")

OPERATOR, DEPLOYER, ADMIN = Role.OPERATOR, Role.DEPLOYER, Role.ADMIN


@strawberry.type(description="The new host.")
class CreateHostPayload:
    host: Host = strawberry.field(description="The host.")


@strawberry.type(description="The changed host.")
class UpdateHostPayload:
    host: Host = strawberry.field(description="The host.")


@strawberry.type(description="What was deleted.")
class DeleteHostPayload:
    deleted_host_id: strawberry.ID = strawberry.field(description="The id of the deleted object.")


@strawberry.type(description="A key that a host presents.")
class ShownKey:
    type: str = strawberry.field(description="OpenSSH's name of the key type: ssh-ed25519, …")
    fingerprint: str = strawberry.field(description="SHA256 fingerprint, as printed by `ssh-keygen -lf` on the host.")
    is_pinned: bool = strawberry.field(
        description="Whether the key is pinned; a key that is only certified by an authority is not."
    )


@strawberry.type(description="The keys of a host.")
class ScanHostKeyPayload:
    host: Host = strawberry.field(description="The host, unchanged.")
    keys: list[ShownKey] = strawberry.field(description="The keys that the host presents now, the best first.")


@strawberry.type(description="The host with the pinned key.")
class TrustHostKeyPayload:
    host: Host = strawberry.field(description="The host.")


@strawberry.type(description="The new key.")
class CreateSshKeyPayload:
    ssh_key: SshKey = strawberry.field(description="The key; only its public part is shown.")


@strawberry.type(description="What was deleted.")
class DeleteSshKeyPayload:
    deleted_ssh_key_id: strawberry.ID = strawberry.field(description="The id of the deleted object.")


@strawberry.type(description="The new package.")
class CreatePackagePayload:
    package: Package = strawberry.field(description="The package.")


@strawberry.type(description="What was deleted.")
class DeletePackagePayload:
    deleted_package_id: strawberry.ID = strawberry.field(description="The id of the deleted object.")


@strawberry.type(description="The new deployment.")
class CreateDeploymentPayload:
    deployment: Deployment = strawberry.field(description="The deployment, PENDING.")


@strawberry.type(description="What was deleted.")
class DeleteDeploymentPayload:
    deleted_deployment_id: strawberry.ID = strawberry.field(description="The id of the deleted deployment.")
    left_running: bool = strawberry.field(
        description="Whether `current` was set: containers may still be running on the host."
    )


@strawberry.type(description="The accepted run.")
class RunDeploymentPayload:
    deployment: Deployment = strawberry.field(description="The deployment, RUNNING.")
    run: Run = strawberry.field(description="The run.")


@strawberry.type(description="The accepted runs.")
class RunDeploymentsPayload:
    runs: list[Run] = strawberry.field(description="In the order of the input's ids.")


@strawberry.type(description="The run to cancel.")
class CancelRunPayload:
    run: Run = strawberry.field(description="The run; the status becomes CANCELED when all work has stopped.")


@strawberry.type(description="The new token.")
class CreateTokenPayload:
    token: Token = strawberry.field(description="The token without its secret.")
    secret: str = strawberry.field(
        description="The secret to authenticate with.  It is not stored and cannot be shown again."
    )


@strawberry.type(description="The revoked token.")
class RevokeTokenPayload:
    token: Token = strawberry.field(description="The token without its secret.")


@strawberry.type(description="The mutations.  A mutation that fails returns null and an entry in `errors`.")
class Mutation:
    @mutation(ADMIN, "Create a host; the first run contacts it.  Errors: NAME_TAKEN, NOT_FOUND for `sshKeyId`.")
    async def create_host(self, info: Info, input: inputs.CreateHostInput) -> CreateHostPayload | None:  # noqa: A002
        context = _context(info)
        host = await hosts.create(
            context.db,
            name=input.name,
            transport=input.transport or HostTransport.SSH,
            address=_given(input.address),
            port=22 if input.port is None else input.port,
            user="root" if input.user is None else input.user,
            ssh_key_path=_given(input.ssh_key_path),
            ssh_key_id=_given(input.ssh_key_id),
            labels=_given(input.labels) or (),
            known_hosts=_given(input.known_hosts),
            key=_key(info, input.idempotency_key),
        )
        return CreateHostPayload(host=Host.from_model(host))

    @mutation(ADMIN, "Update a host.  Errors: NOT_FOUND, NAME_TAKEN, RUN_ALREADY_IN_PROGRESS while a run uses it.")
    async def update_host(self, info: Info, input: inputs.UpdateHostInput) -> UpdateHostPayload | None:  # noqa: A002
        context = _context(info)
        changes = hosts.Changes(
            name=_given(input.name),
            address=_given(input.address),
            port=_given(input.port),
            user=_given(input.user),
            ssh_key_path=_given(input.ssh_key_path),
            clear_ssh_key_path=input.ssh_key_path is None,
            ssh_key_id=_given(input.ssh_key_id),
            clear_ssh_key_id=input.ssh_key_id is None,
            labels=_given(input.labels),
            known_hosts=_given(input.known_hosts),
        )
        return UpdateHostPayload(host=Host.from_model(await hosts.update(context.db, input.host_id, changes)))

    @mutation(ADMIN, "Delete a host.  Errors: NOT_FOUND, IN_USE while deployments reference it.")
    async def delete_host(self, info: Info, input: inputs.DeleteHostInput) -> DeleteHostPayload | None:  # noqa: A002
        context = _context(info)
        deleted = await hosts.remove(context.db, input.host_id)
        return DeleteHostPayload(deleted_host_id=strawberry.ID(str(deleted)))

    @mutation(
        OPERATOR,
        "Return the keys that a host presents now, without logging in or pinning a key.  "
        "Errors: NOT_FOUND, HOST_UNREACHABLE.",
    )
    async def scan_host_key(self, info: Info, input: inputs.ScanHostKeyInput) -> ScanHostKeyPayload | None:  # noqa: A002
        context = _context(info)
        model, shown = await host_keys.show(context.db, input.host_id)
        host = Host.from_model(model)
        pinned = {key.fingerprint for key in host.pinned_keys if not key.is_authority}
        keys = [
            ShownKey(type=key.type, fingerprint=key.fingerprint, is_pinned=key.fingerprint in pinned) for key in shown
        ]
        return ScanHostKeyPayload(host=host, keys=keys)

    @mutation(
        ADMIN,
        "Pin a key that a host presents now, before the first contact or replacing another key; pinned authorities "
        "are kept.  "
        "Errors: NOT_FOUND, HOST_UNREACHABLE.",
    )
    async def trust_host_key(self, info: Info, input: inputs.TrustHostKeyInput) -> TrustHostKeyPayload | None:  # noqa: A002
        context = _context(info)
        host = await host_keys.trust(context.db, input.host_id, input.fingerprint)
        return TrustHostKeyPayload(host=Host.from_model(host))

    @mutation(
        ADMIN,
        "Store a private key, given or generated, and return its public key for the hosts.  Errors: NAME_TAKEN.",
    )
    async def create_ssh_key(self, info: Info, input: inputs.CreateSshKeyInput) -> CreateSshKeyPayload | None:  # noqa: A002
        context = _context(info)
        key = await ssh_keys.create(
            context.db,
            name=input.name,
            private_key=_secret(input.private_key),
            passphrase=_secret(input.passphrase),
        )
        return CreateSshKeyPayload(ssh_key=SshKey.from_model(key))

    @mutation(
        ADMIN,
        "Delete a key; its public key stays authorized on the hosts.  Errors: NOT_FOUND, IN_USE while hosts "
        "reference it.",
    )
    async def delete_ssh_key(self, info: Info, input: inputs.DeleteSshKeyInput) -> DeleteSshKeyPayload | None:  # noqa: A002
        context = _context(info)
        deleted = await ssh_keys.remove(context.db, input.ssh_key_id)
        return DeleteSshKeyPayload(deleted_ssh_key_id=strawberry.ID(str(deleted)))

    @mutation(DEPLOYER, "Create a package.  Errors: NAME_TAKEN.")
    async def create_package(self, info: Info, input: inputs.CreatePackageInput) -> CreatePackagePayload | None:  # noqa: A002
        context = _context(info)
        package = await packages.create(
            context.db,
            name=input.name,
            version=input.version,
            compose_file=input.compose_file,
            files=[_new_file(file) for file in input.files or []],
            logins=[
                packages.NewLogin(login.registry, login.username, Secret(login.password))
                for login in input.registry_logins or []
            ],
            key=_key(info, input.idempotency_key),
        )
        return CreatePackagePayload(package=Package.from_model(package))

    @mutation(DEPLOYER, "Delete a package.  Errors: NOT_FOUND, IN_USE while deployments reference it.")
    async def delete_package(self, info: Info, input: inputs.DeletePackageInput) -> DeletePackagePayload | None:  # noqa: A002
        context = _context(info)
        deleted = await packages.remove(context.db, input.package_id)
        return DeletePackagePayload(deleted_package_id=strawberry.ID(str(deleted)))

    @mutation(
        DEPLOYER,
        "Create a deployment; nothing is changed on the host before its first run.  "
        "Errors: HOST_NOT_FOUND, PACKAGE_NOT_FOUND, NAME_TAKEN.",
    )
    async def create_deployment(
        self,
        info: Info,
        input: inputs.CreateDeploymentInput,  # noqa: A002
    ) -> CreateDeploymentPayload | None:
        context = _context(info)
        deployment = await deployments.create(
            context.db,
            context.broadcast,
            host_id=input.host_id,
            package_id=input.package_id,
            project_name=_given(input.project_name),
            variables=[
                deployments.NewVariable(variable.name, Secret(variable.value), bool(variable.secret))
                for variable in input.variables or []
            ],
            key=_key(info, input.idempotency_key),
        )
        return CreateDeploymentPayload(deployment=Deployment.from_model(deployment))

    @mutation(
        DEPLOYER,
        "Delete a deployment with its runs and logs; nothing is changed on the host.  "
        "Errors: NOT_FOUND, RUN_ALREADY_IN_PROGRESS.",
    )
    async def delete_deployment(
        self,
        info: Info,
        input: inputs.DeleteDeploymentInput,  # noqa: A002
    ) -> DeleteDeploymentPayload | None:
        context = _context(info)
        deleted = await deployments.remove(context.db, context.broadcast, input.deployment_id)
        return DeleteDeploymentPayload(
            deleted_deployment_id=strawberry.ID(str(deleted.id)), left_running=deleted.left_running
        )

    @mutation(OPERATOR, "Run a deployment.  Errors: NOT_FOUND, RUN_ALREADY_IN_PROGRESS.")
    async def run_deployment(self, info: Info, input: inputs.RunDeploymentInput) -> RunDeploymentPayload | None:  # noqa: A002
        [(deployment, run)] = await _start(info, [input.deployment_id], input)
        return RunDeploymentPayload(deployment=Deployment.from_model(deployment), run=Run.from_model(run))

    @mutation(OPERATOR, "Run many deployments; all or none are accepted.  Errors: NOT_FOUND, RUN_ALREADY_IN_PROGRESS.")
    async def run_deployments(
        self,
        info: Info,
        input: inputs.RunDeploymentsInput,  # noqa: A002
    ) -> RunDeploymentsPayload | None:
        started = await _start(info, input.deployment_ids, input)
        return RunDeploymentsPayload(runs=[Run.from_model(run) for _, run in started])

    @mutation(
        OPERATOR,
        "Cancel a run.  Returns immediately; the status becomes CANCELED when all work on the server and on the host "
        "has stopped.  "
        "Errors: NOT_FOUND.",
    )
    async def cancel_run(self, info: Info, input: inputs.CancelRunInput) -> CancelRunPayload | None:  # noqa: A002
        context = _context(info)
        run = await runs.cancel(context.db, context.engine, context.broadcast, input.run_id)
        return CancelRunPayload(run=Run.from_model(run))

    @mutation(ADMIN, "Create an access token; its secret is shown only once.  Errors: NAME_TAKEN.")
    async def create_token(self, info: Info, input: inputs.CreateTokenInput) -> CreateTokenPayload | None:  # noqa: A002
        context = _context(info)
        token, secret = await tokens.create(
            context.db, input.name, input.role, _given(input.host_labels), _given(input.expires_at)
        )
        return CreateTokenPayload(token=Token.from_model(token), secret=secret.reveal())

    @mutation(ADMIN, "Revoke a token; its WebSockets and event streams end within a minute.  Errors: NOT_FOUND.")
    async def revoke_token(self, info: Info, input: inputs.RevokeTokenInput) -> RevokeTokenPayload | None:  # noqa: A002
        context = _context(info)
        return RevokeTokenPayload(token=Token.from_model(await tokens.revoke_by_id(context.db, input.token_id)))


async def _start(
    info: Info,
    deployment_ids: list[strawberry.ID],
    input: inputs.RunDeploymentInput | inputs.RunDeploymentsInput,  # noqa: A002
) -> list[tuple[models.Deployment, models.Run]]:
    context = _context(info)
    return await runs.start(
        context.db,
        context.engine,
        context.broadcast,
        deployment_ids,
        input.action or RunAction.UP,
        turn=runs.Turn(input.priority or 0),
        created_by=context.asker.name,
        key=_key(info, input.idempotency_key),
    )


def _key(info: Info, given: str | None) -> Key | None:
    """Return the idempotency key, scoped to the token and this mutation; None if the request has none."""
    text = _given(given)
    if text is None:
        return None
    return Key(info.context.asker.key, info.field_name, text)


def _new_file(file: inputs.PackageFileInput) -> NewFile:
    return NewFile(
        path=file.path,
        content=_given(file.content),
        base64=_given(file.base64),
        mode=DEFAULT_MODE if file.mode is None else file.mode,
        only_if_missing=bool(file.only_if_missing),
    )


def _secret(given: str | None) -> Secret | None:
    text = _given(given)
    return None if text is None else Secret(text)


def _context(info: Info) -> Context:
    """Return the context with fresh loaders; rows loaded by an earlier mutation of the operation may be stale."""
    info.context.renew()
    return info.context


def _given(value: Value | None) -> Value | None:
    """Return the value, or None if the client omitted it."""
    return None if value is UNSET else value
