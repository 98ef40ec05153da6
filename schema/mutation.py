"""The mutations: one call of a resolver each.  All are nullable: one that fails answers null and an error."""

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
    deleted_host_id: strawberry.ID = strawberry.field(description="The id that nothing has any more.")


@strawberry.type(description="A key that a host shows.")
class ShownKey:
    type: str = strawberry.field(description="OpenSSH's name for it: ssh-ed25519, …")
    fingerprint: str = strawberry.field(description="SHA256, as `ssh-keygen -lf` shows it on the host.")
    is_pinned: bool = strawberry.field(
        description="Whether it is pinned; a key that only an authority vouches for is not."
    )


@strawberry.type(description="What a host shows.")
class ScanHostKeyPayload:
    host: Host = strawberry.field(description="The host, unchanged.")
    keys: list[ShownKey] = strawberry.field(description="The keys that it shows now, the best first.")


@strawberry.type(description="The host with its pinned key.")
class TrustHostKeyPayload:
    host: Host = strawberry.field(description="The host.")


@strawberry.type(description="The new key.")
class CreateSshKeyPayload:
    ssh_key: SshKey = strawberry.field(description="What is told of it: the public part.")


@strawberry.type(description="What was deleted.")
class DeleteSshKeyPayload:
    deleted_ssh_key_id: strawberry.ID = strawberry.field(description="The id that nothing has any more.")


@strawberry.type(description="The new package.")
class CreatePackagePayload:
    package: Package = strawberry.field(description="The package.")


@strawberry.type(description="What was deleted.")
class DeletePackagePayload:
    deleted_package_id: strawberry.ID = strawberry.field(description="The id that nothing has any more.")


@strawberry.type(description="The new deployment.")
class CreateDeploymentPayload:
    deployment: Deployment = strawberry.field(description="The deployment, PENDING.")


@strawberry.type(description="What was deleted.")
class DeleteDeploymentPayload:
    deleted_deployment_id: strawberry.ID = strawberry.field(description="The id of the deleted deployment.")
    left_running: bool = strawberry.field(
        description="Whether its `current` was set: its containers may still run on the host."
    )


@strawberry.type(description="The accepted run.")
class RunDeploymentPayload:
    deployment: Deployment = strawberry.field(description="The deployment, RUNNING.")
    run: Run = strawberry.field(description="The run.")


@strawberry.type(description="The accepted runs.")
class RunDeploymentsPayload:
    runs: list[Run] = strawberry.field(description="In the order of the input's ids.")


@strawberry.type(description="The run that is to end.")
class CancelRunPayload:
    run: Run = strawberry.field(description="The run; it says CANCELED when its work has ended.")


@strawberry.type(description="The new token.")
class CreateTokenPayload:
    token: Token = strawberry.field(description="What is known of it.")
    secret: str = strawberry.field(description="The token itself.  It is not kept, and cannot be shown again.")


@strawberry.type(description="The useless token.")
class RevokeTokenPayload:
    token: Token = strawberry.field(description="What is known of it.")


@strawberry.type(description="What can be changed.  A mutation that fails answers null and an entry in `errors`.")
class Mutation:
    @mutation(ADMIN, "Create a host; it is first contacted by a run.  Errors: NAME_TAKEN, NOT_FOUND of `sshKeyId`.")
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

    @mutation(ADMIN, "Change a host.  Errors: NOT_FOUND, NAME_TAKEN, RUN_ALREADY_IN_PROGRESS while it is deployed to.")
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

    @mutation(ADMIN, "Delete a host.  Errors: NOT_FOUND, IN_USE while deployments name it.")
    async def delete_host(self, info: Info, input: inputs.DeleteHostInput) -> DeleteHostPayload | None:  # noqa: A002
        context = _context(info)
        deleted = await hosts.remove(context.db, input.host_id)
        return DeleteHostPayload(deleted_host_id=strawberry.ID(str(deleted)))

    @mutation(
        OPERATOR,
        "Ask a host which keys it shows now, without a login; nothing is pinned.  Errors: NOT_FOUND, HOST_UNREACHABLE.",
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
        "Pin a key that a host shows now, at the first contact or in place of another; authorities stay.  "
        "Errors: NOT_FOUND, HOST_UNREACHABLE.",
    )
    async def trust_host_key(self, info: Info, input: inputs.TrustHostKeyInput) -> TrustHostKeyPayload | None:  # noqa: A002
        context = _context(info)
        host = await host_keys.trust(context.db, input.host_id, input.fingerprint)
        return TrustHostKeyPayload(host=Host.from_model(host))

    @mutation(
        ADMIN,
        "Keep a private key, a given one or a new one, and tell its public part for the hosts.  Errors: NAME_TAKEN.",
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
        ADMIN, "Delete a key; the hosts still know its public part.  Errors: NOT_FOUND, IN_USE while hosts name it."
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

    @mutation(DEPLOYER, "Delete a package.  Errors: NOT_FOUND, IN_USE while deployments name it.")
    async def delete_package(self, info: Info, input: inputs.DeletePackageInput) -> DeletePackagePayload | None:  # noqa: A002
        context = _context(info)
        deleted = await packages.remove(context.db, input.package_id)
        return DeletePackagePayload(deleted_package_id=strawberry.ID(str(deleted)))

    @mutation(
        DEPLOYER,
        "Create a deployment; nothing is done on the host before it is run.  "
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

    @mutation(OPERATOR, "Run many deployments; all are accepted or none.  Errors: NOT_FOUND, RUN_ALREADY_IN_PROGRESS.")
    async def run_deployments(
        self,
        info: Info,
        input: inputs.RunDeploymentsInput,  # noqa: A002
    ) -> RunDeploymentsPayload | None:
        started = await _start(info, input.deployment_ids, input)
        return RunDeploymentsPayload(runs=[Run.from_model(run) for _, run in started])

    @mutation(
        OPERATOR,
        "Cancel a run: the answer comes at once, CANCELED when its work here and on the host has ended.  "
        "Errors: NOT_FOUND.",
    )
    async def cancel_run(self, info: Info, input: inputs.CancelRunInput) -> CancelRunPayload | None:  # noqa: A002
        context = _context(info)
        run = await runs.cancel(context.db, context.engine, context.broadcast, input.run_id)
        return CancelRunPayload(run=Run.from_model(run))

    @mutation(ADMIN, "Create an access token; it is shown this once.  Errors: NAME_TAKEN.")
    async def create_token(self, info: Info, input: inputs.CreateTokenInput) -> CreateTokenPayload | None:  # noqa: A002
        context = _context(info)
        token, secret = await tokens.create(
            context.db, input.name, input.role, _given(input.host_labels), _given(input.expires_at)
        )
        return CreateTokenPayload(token=Token.from_model(token), secret=secret.reveal())

    @mutation(ADMIN, "Make a token useless; its websockets and event streams end within a minute.  Errors: NOT_FOUND.")
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
    """The request's key, which is the token's own for this mutation; None where it has none."""
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
    """What the mutation acts on; what an earlier one of the operation has loaded may be wrong by now."""
    info.context.renew()
    return info.context


def _given(value: Value | None) -> Value | None:
    """None also where the client said nothing."""
    return None if value is UNSET else value
