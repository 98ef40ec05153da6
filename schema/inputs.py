"""The inputs of the API.  What is not given, or null, means the default or no change."""

from datetime import datetime

import strawberry
from strawberry import UNSET

from schema.enums import HostTransport, Role, RunAction

PRIORITY = "-100 to 100.  Queued runs of a higher priority are played first, those of the same in the order they came."
LABELS = "Up to 20 words of a-z, 0-9, ., _ and -: a token can be limited to hosts that bear one of some."
KNOWN_HOSTS = (
    "Keys to know the host by from the first contact on: lines of OpenSSH's known_hosts that name its address, or "
    "public keys.  A `@cert-authority` vouches for the certificates that it has signed for the address.  Up to 16 KiB."
)
IDEMPOTENCY_KEY = (
    "1 to 255 printable characters.  For 24 hours, another request of the token with this key and the same input gets "
    "what the first one made, as it is by then; with other input it is refused."
)


@strawberry.input(description="A machine to deploy to.")
class CreateHostInput:
    name: str = strawberry.field(description="1 to 100 printable characters, unique among hosts.")
    transport: HostTransport | None = strawberry.field(
        default=HostTransport.SSH, description="How the host is reached."
    )
    address: str | None = strawberry.field(
        default=UNSET, description="DNS name or IP address; needed for SSH, not allowed for LOCAL."
    )
    port: int | None = strawberry.field(default=22, description="1 to 65535.")
    user: str | None = strawberry.field(default="root", description="A POSIX user name.")
    ssh_key_path: str | None = strawberry.field(
        default=UNSET, description="Absolute path of a private key without passphrase on the server."
    )
    ssh_key_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="A key that daos keeps, in place of `sshKeyPath`; see `createSshKey`."
    )
    labels: list[str] | None = strawberry.field(default=UNSET, description=LABELS)
    known_hosts: str | None = strawberry.field(default=UNSET, description=KNOWN_HOSTS)
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(
    description="Changes of a host.  What is not given stays; null takes `sshKeyPath` or `sshKeyId` away, and one that "
    "is given takes the place of the other."
)
class UpdateHostInput:
    host_id: strawberry.ID = strawberry.field(description="Which host.")
    name: str | None = strawberry.field(default=UNSET, description="As in CreateHostInput.")
    address: str | None = strawberry.field(
        default=UNSET,
        description="As in CreateHostInput.  A host that moves is met anew: its pinned keys are forgotten.",
    )
    port: int | None = strawberry.field(default=UNSET, description="As in CreateHostInput; a new port is a move too.")
    user: str | None = strawberry.field(default=UNSET, description="As in CreateHostInput.")
    ssh_key_path: str | None = strawberry.field(default=UNSET, description="As in CreateHostInput.")
    ssh_key_id: strawberry.ID | None = strawberry.field(default=UNSET, description="As in CreateHostInput.")
    labels: list[str] | None = strawberry.field(default=UNSET, description="All of them, in place of those so far.")
    known_hosts: str | None = strawberry.field(
        default=UNSET, description="As in CreateHostInput, in place of all keys and authorities so far."
    )


@strawberry.input(description="The host to ask.")
class ScanHostKeyInput:
    host_id: strawberry.ID = strawberry.field(description="A host that is reached by SSH.")


@strawberry.input(description="The key to believe a host by.")
class TrustHostKeyInput:
    host_id: strawberry.ID = strawberry.field(description="A host that is reached by SSH.")
    fingerprint: str = strawberry.field(description="That of a key that the host shows now, `SHA256:…`.")


@strawberry.input(description="The host to delete.")
class DeleteHostInput:
    host_id: strawberry.ID = strawberry.field(description="A host that no deployment names.")


@strawberry.input(description="A private key to keep.")
class CreateSshKeyInput:
    name: str = strawberry.field(description="1 to 100 printable characters, unique among SSH keys.")
    private_key: str | None = strawberry.field(
        default=UNSET,
        description="Ed25519, RSA of at least 2048 bits, or ECDSA on a NIST curve, in OpenSSH's form or PEM; null: a "
        "new Ed25519 key is made.",
    )
    passphrase: str | None = strawberry.field(
        default=UNSET, description="Opens the private key this once; it is not kept, and the key is kept without one."
    )


@strawberry.input(description="The key to delete.")
class DeleteSshKeyInput:
    ssh_key_id: strawberry.ID = strawberry.field(description="A key that no host names.")


@strawberry.input(description="A file of a package, with exactly one of `content` and `base64`.")
class PackageFileInput:
    path: str = strawberry.field(
        description="Relative to the project's directory, at most 1024 bytes, names of at most 255: any UTF-8 but for "
        "backslashes, control characters, `.` and `..`; not `compose.yaml` and not `.env`, which daos writes."
    )
    content: str | None = strawberry.field(
        default=UNSET, description="Text.  All files of a package together have at most 4 MiB."
    )
    base64: str | None = strawberry.field(
        default=UNSET,
        description="Any bytes, in Base64 as in RFC 4648, with padding and without line breaks.  The limit counts the "
        "decoded bytes.",
    )
    mode: str | None = strawberry.field(
        default="0644",
        description="Its permissions on the host, three or four octal digits up to 0777; its owner must be able to "
        "read it.",
    )
    only_if_missing: bool | None = strawberry.field(
        default=False,
        description="Only create the file where the host does not have it, and leave it as it is otherwise: for what "
        "containers write to.",
    )


@strawberry.input(description="A login at a registry, with which a package's images are pulled.")
class RegistryLoginInput:
    registry: str = strawberry.field(
        description="Host name or IPv4 address in lower case, with `:port` where it has one; no scheme, no path."
    )
    username: str = strawberry.field(description="1 to 255 printable characters.")
    password: str = strawberry.field(
        description="A password or token, at most 16 KiB; it is kept encrypted and never shown."
    )


@strawberry.input(description="A docker compose project.")
class CreatePackageInput:
    name: str = strawberry.field(description="1 to 100 printable characters.")
    version: str = strawberry.field(description="1 to 100 printable characters; name and version are unique together.")
    compose_file: str = strawberry.field(description="YAML, a mapping with `services` or `include`; at most 1 MiB.")
    files: list[PackageFileInput] | None = strawberry.field(default=UNSET, description="At most 1000, each path once.")
    registry_logins: list[RegistryLoginInput] | None = strawberry.field(
        default=UNSET, description="At most 20, each registry once."
    )
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(description="The package to delete.")
class DeletePackageInput:
    package_id: strawberry.ID = strawberry.field(description="A package that no deployment names.")


@strawberry.input(description="A variable of a deployment.")
class VariableInput:
    name: str = strawberry.field(
        description="Letters, digits and `_`, not beginning with a digit; each name once.  Refused are the few names "
        "that have no effect or do harm, each with the reason: HOME, PATH, PWD, and some of Docker's and Compose's."
    )
    value: str = strawberry.field(
        description="Text of at most 64 KiB; it arrives in `.env` unchanged, and nothing in it is expanded."
    )
    secret: bool | None = strawberry.field(default=False, description="Keep it encrypted and never show it.")


@strawberry.input(description="A package on a host.")
class CreateDeploymentInput:
    host_id: strawberry.ID = strawberry.field(description="Where to deploy.")
    package_id: strawberry.ID = strawberry.field(description="What to deploy.")
    project_name: str | None = strawberry.field(
        default=UNSET,
        description="Compose's project name, unique on the host; by default made from the package's name and the id.",
    )
    variables: list[VariableInput] | None = strawberry.field(default=UNSET, description="At most 2000.")
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(description="The deployment to delete.")
class DeleteDeploymentInput:
    deployment_id: strawberry.ID = strawberry.field(description="A deployment without a run in progress.")


@strawberry.input(description="What to run.")
class RunDeploymentInput:
    deployment_id: strawberry.ID = strawberry.field(description="A deployment without a run in progress.")
    action: RunAction | None = strawberry.field(default=RunAction.UP, description="What to do with the project.")
    priority: int | None = strawberry.field(default=0, description=PRIORITY)
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(description="What to run, many at once.")
class RunDeploymentsInput:
    deployment_ids: list[strawberry.ID] = strawberry.field(description="1 to 100, each once.")
    action: RunAction | None = strawberry.field(default=RunAction.UP, description="What to do with the projects.")
    priority: int | None = strawberry.field(default=0, description=PRIORITY)
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(description="The run to cancel.")
class CancelRunInput:
    run_id: strawberry.ID = strawberry.field(description="A run; one that has ended stays as it is.")


@strawberry.input(description="A new access token.")
class CreateTokenInput:
    name: str = strawberry.field(description="1 to 100 printable characters, unique among tokens, revoked ones too.")
    role: Role = strawberry.field(description="What it may do.")
    host_labels: list[str] | None = strawberry.field(
        default=UNSET,
        description="It sees hosts with one of these labels, and what is on them; null: all.  Not for an admin.",
    )
    expires_at: datetime | None = strawberry.field(default=UNSET, description="From when on it is useless.")


@strawberry.input(description="The token to make useless.")
class RevokeTokenInput:
    token_id: strawberry.ID = strawberry.field(description="Which token.")
