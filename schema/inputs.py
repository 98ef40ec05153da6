"""The inputs of the API.  A field that is omitted or null means the default or no change."""

from datetime import datetime

import strawberry
from strawberry import UNSET

from schema.enums import HostTransport, Role, RunAction

PRIORITY = (
    "-100 to 100.  Queued runs with a higher priority start first, those with equal priority in order of arrival."
)
LABELS = "Up to 20 words of a-z, 0-9, ., _ and -.  A token can be limited to hosts that have one of a set of labels."
KNOWN_HOSTS = (
    "Host keys to pin before the first contact: lines in the format of OpenSSH's known_hosts that match the address, "
    "or public keys.  A `@cert-authority` is trusted for the certificates that it signed for the address.  Up to "
    "16 KiB."
)
IDEMPOTENCY_KEY = (
    "1 to 255 printable characters.  For 24 hours, a repeated request of the token with this key and the same input "
    "returns what the first request created, in its current state; with different input it is rejected."
)


@strawberry.input(description="A machine to deploy to.")
class CreateHostInput:
    name: str = strawberry.field(description="1 to 100 printable characters, unique among hosts.")
    transport: HostTransport | None = strawberry.field(
        default=HostTransport.SSH, description="How the server connects to the host."
    )
    address: str | None = strawberry.field(
        default=UNSET, description="DNS name or IP address; required for SSH, not allowed for LOCAL."
    )
    port: int | None = strawberry.field(default=22, description="1 to 65535.")
    user: str | None = strawberry.field(default="root", description="A POSIX user name.")
    ssh_key_path: str | None = strawberry.field(
        default=UNSET, description="Absolute path on the server of a private key without a passphrase."
    )
    ssh_key_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="A key stored in daos, instead of `sshKeyPath`; see `createSshKey`."
    )
    labels: list[str] | None = strawberry.field(default=UNSET, description=LABELS)
    known_hosts: str | None = strawberry.field(default=UNSET, description=KNOWN_HOSTS)
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(
    description="Changes to a host.  Omitted fields stay unchanged; null removes `sshKeyPath` or `sshKeyId`, and "
    "setting one of the two replaces the other."
)
class UpdateHostInput:
    host_id: strawberry.ID = strawberry.field(description="The id of the host.")
    name: str | None = strawberry.field(default=UNSET, description="As in CreateHostInput.")
    address: str | None = strawberry.field(
        default=UNSET,
        description="As in CreateHostInput.  A new address discards the pinned keys: the next contact is a first one.",
    )
    port: int | None = strawberry.field(
        default=UNSET, description="As in CreateHostInput.  A new port discards the pinned keys too."
    )
    user: str | None = strawberry.field(default=UNSET, description="As in CreateHostInput.")
    ssh_key_path: str | None = strawberry.field(default=UNSET, description="As in CreateHostInput.")
    ssh_key_id: strawberry.ID | None = strawberry.field(default=UNSET, description="As in CreateHostInput.")
    labels: list[str] | None = strawberry.field(
        default=UNSET, description="The complete list; it replaces the current labels."
    )
    known_hosts: str | None = strawberry.field(
        default=UNSET, description="As in CreateHostInput; they replace all current keys and authorities."
    )


@strawberry.input(description="The host to scan.")
class ScanHostKeyInput:
    host_id: strawberry.ID = strawberry.field(description="A host with transport SSH.")


@strawberry.input(description="The host key to pin.")
class TrustHostKeyInput:
    host_id: strawberry.ID = strawberry.field(description="A host with transport SSH.")
    fingerprint: str = strawberry.field(description="The fingerprint of a key that the host presents now, `SHA256:…`.")


@strawberry.input(description="The host to delete.")
class DeleteHostInput:
    host_id: strawberry.ID = strawberry.field(description="A host that no deployment references.")


@strawberry.input(description="A private key to store.")
class CreateSshKeyInput:
    name: str = strawberry.field(description="1 to 100 printable characters, unique among SSH keys.")
    private_key: str | None = strawberry.field(
        default=UNSET,
        description="Ed25519, RSA of at least 2048 bits, or ECDSA on a NIST curve, in OpenSSH or PEM format; null "
        "generates a new Ed25519 key.",
    )
    passphrase: str | None = strawberry.field(
        default=UNSET,
        description="Decrypts the private key once; the passphrase is not stored, and the key is stored without one.",
    )


@strawberry.input(description="The key to delete.")
class DeleteSshKeyInput:
    ssh_key_id: strawberry.ID = strawberry.field(description="A key that no host references.")


@strawberry.input(description="A file of a package, with exactly one of `content` and `base64`.")
class PackageFileInput:
    path: str = strawberry.field(
        description="Relative to the project's directory, at most 1024 bytes, each component at most 255: any UTF-8 "
        "except backslashes, control characters, `.` and `..`; not `compose.yaml` and not `.env`, which daos writes."
    )
    content: str | None = strawberry.field(
        default=UNSET, description="Text.  All files of a package together may have at most 4 MiB."
    )
    base64: str | None = strawberry.field(
        default=UNSET,
        description="Any bytes, in Base64 as in RFC 4648, with padding and without line breaks.  The limit applies to "
        "the decoded bytes.",
    )
    mode: str | None = strawberry.field(
        default="0644",
        description="The permissions on the host, three or four octal digits up to 0777; the owner must be able to "
        "read the file.",
    )
    only_if_missing: bool | None = strawberry.field(
        default=False,
        description="Whether to create the file only if the host does not have it, and otherwise leave it unchanged: "
        "for files that containers write to.",
    )


@strawberry.input(description="A login at a registry, used to pull the package's images.")
class RegistryLoginInput:
    registry: str = strawberry.field(
        description="Host name or IPv4 address in lowercase, with an optional `:port`; no scheme, no path."
    )
    username: str = strawberry.field(description="1 to 255 printable characters.")
    password: str = strawberry.field(
        description="A password or token, at most 16 KiB; it is stored encrypted and never shown."
    )


@strawberry.input(description="A Docker Compose project.")
class CreatePackageInput:
    name: str = strawberry.field(description="1 to 100 printable characters.")
    version: str = strawberry.field(
        description="1 to 100 printable characters; the combination of name and version is unique."
    )
    compose_file: str = strawberry.field(description="YAML, a mapping with `services` or `include`; at most 1 MiB.")
    files: list[PackageFileInput] | None = strawberry.field(default=UNSET, description="At most 1000, each path once.")
    registry_logins: list[RegistryLoginInput] | None = strawberry.field(
        default=UNSET, description="At most 20, each registry once."
    )
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(description="The package to delete.")
class DeletePackageInput:
    package_id: strawberry.ID = strawberry.field(description="A package that no deployment references.")


@strawberry.input(description="A variable of a deployment.")
class VariableInput:
    name: str = strawberry.field(
        description="Letters, digits and `_`, not starting with a digit; each name once.  A few names that would have "
        "no effect or do harm are rejected with a reason: HOME, PATH, PWD, and some of Docker's and Compose's."
    )
    value: str = strawberry.field(
        description="Text of at most 64 KiB; it is written to `.env` unchanged, and nothing in it is expanded."
    )
    secret: bool | None = strawberry.field(
        default=False, description="Whether the value is stored encrypted and never shown."
    )


@strawberry.input(description="A package on a host.")
class CreateDeploymentInput:
    host_id: strawberry.ID = strawberry.field(description="Where to deploy.")
    package_id: strawberry.ID = strawberry.field(description="What to deploy.")
    project_name: str | None = strawberry.field(
        default=UNSET,
        description="The Compose project name, unique on the host; by default derived from the package's name and the "
        "deployment's id.",
    )
    variables: list[VariableInput] | None = strawberry.field(default=UNSET, description="At most 2000.")
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(description="The deployment to delete.")
class DeleteDeploymentInput:
    deployment_id: strawberry.ID = strawberry.field(description="A deployment without a run in progress.")


@strawberry.input(description="What to run.")
class RunDeploymentInput:
    deployment_id: strawberry.ID = strawberry.field(description="A deployment without a run in progress.")
    action: RunAction | None = strawberry.field(default=RunAction.UP, description="What to do to the project.")
    priority: int | None = strawberry.field(default=0, description=PRIORITY)
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(description="What to run, for many deployments at once.")
class RunDeploymentsInput:
    deployment_ids: list[strawberry.ID] = strawberry.field(description="1 to 100 ids, each once.")
    action: RunAction | None = strawberry.field(default=RunAction.UP, description="What to do to the projects.")
    priority: int | None = strawberry.field(default=0, description=PRIORITY)
    idempotency_key: str | None = strawberry.field(default=UNSET, description=IDEMPOTENCY_KEY)


@strawberry.input(description="The run to cancel.")
class CancelRunInput:
    run_id: strawberry.ID = strawberry.field(description="A run; a finished run is not changed.")


@strawberry.input(description="A new access token.")
class CreateTokenInput:
    name: str = strawberry.field(
        description="1 to 100 printable characters, unique among tokens, including revoked ones."
    )
    role: Role = strawberry.field(description="What the token is allowed to do.")
    host_labels: list[str] | None = strawberry.field(
        default=UNSET,
        description="The token has access to hosts with one of these labels and to what is on them; null: all hosts.  "
        "Not allowed for an admin.",
    )
    expires_at: datetime | None = strawberry.field(default=UNSET, description="When the token expires; null: never.")


@strawberry.input(description="The token to revoke.")
class RevokeTokenInput:
    token_id: strawberry.ID = strawberry.field(description="The id of the token.")
