"""The server's settings: the environment variables `DAOS_*`, read once and only here."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from daos.auth.oidc import Trust, problem_of
from daos.http.body import BodyLimits
from daos.http.endpoint import Transport
from daos.http.origin import ANY
from daos.http.streams import MAX_COST
from db.database import sqlite_url
from db.encryption import Secret
from runner.spec.run import Timeouts
from schema.answer import MAX_ANSWER
from schema.limits import Limits

MEMORY = Path("/dev/shm")  # noqa: S108 - directories in it are made private
ACCEPT_NEW = "accept-new"
DOCKER_ENVIRONMENT = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "XDG_RUNTIME_DIR")


class BadSetting(Exception):
    """A setting has an invalid value; the text is one line for the operator who starts the server."""


@dataclass(frozen=True)
class Settings:
    """All settings.  The field `data_dir` is read from DAOS_DATA_DIR, and so on."""

    data_dir: Path = field(
        default=Path("data"), metadata={"what": "Directory of the database, the secret key, and the admin token."}
    )
    database_url: Secret = field(
        default=Secret(""), metadata={"what": "sqlite:///… or postgresql://…; by default a file in DAOS_DATA_DIR."}
    )
    admin_token: Secret = field(
        default=Secret(""), metadata={"what": "The admin token; by default the one in DAOS_DATA_DIR/admin-token."}
    )
    secret_key_file: Path = field(
        default=Path(), metadata={"what": "File of the keys that encrypt secrets; by default DAOS_DATA_DIR/secret-key."}
    )
    run_dir: Path = field(
        default=Path(),
        metadata={
            "what": "Directory for the files of running runs; by default in memory. It must be private: owned by the "
            "daos user, mode 0700."
        },
    )
    playbooks: Path = field(
        default=Path(),
        metadata={
            "what": "Directory of your own deploy.yml and, optionally, down.yml, with our task among yours: see "
            "docs/ansible.md."
        },
    )
    max_runs: int = field(default=8, metadata={"what": "Maximum number of runs at the same time."})
    max_runs_per_host: int = field(default=4, metadata={"what": "Maximum number of runs at the same time on one host."})
    play: bool = field(
        default=True, metadata={"what": "Whether `daos serve` plays runs; with PostgreSQL, `daos worker` can instead."}
    )
    lease: float = field(
        default=12.0,
        metadata={
            "what": "PostgreSQL: a worker that cannot renew its lease for this many seconds stops its runs; other "
            "workers take them over after 1.5 times that."
        },
    )
    warm: bool = field(
        default=True, metadata={"what": "Keep Ansible loaded; with false, each run starts a new Ansible."}
    )
    ansible_verbosity: str = field(
        default="0", metadata={"what": "0 to 3: Ansible's verbosity in the logs of runs; above 0, DAOS_WARM is off."}
    )
    host_key_policy: str = field(
        default=ACCEPT_NEW,
        metadata={"what": "accept-new pins the key of a new host; strict refuses hosts without a pinned key."},
    )
    connect_timeout: int = field(default=10, metadata={"what": "Time limit in seconds to connect to a host."})
    build_timeout: int = field(default=1800, metadata={"what": "Time limit in seconds to build images."})
    pull_timeout: int = field(default=1800, metadata={"what": "Time limit in seconds to pull images."})
    up_timeout: int = field(default=600, metadata={"what": "Time limit in seconds to bring a project up."})
    verify_timeout: int = field(
        default=300, metadata={"what": "Time limit in seconds for all containers to become healthy."}
    )
    down_timeout: int = field(default=300, metadata={"what": "Time limit in seconds to take a project down."})
    run_timeout: int = field(default=3600, metadata={"what": "Time limit in seconds for a whole run."})
    settle_seconds: float = field(
        default=2.0, metadata={"what": "Seconds that a new container without a health check must stay up."}
    )
    shutdown_grace: float = field(
        default=10.0, metadata={"what": "Seconds that runs get to finish when the server is stopped."}
    )
    allowed_hosts: str = field(
        default="",
        metadata={
            "what": "Comma-separated host names that the server accepts; *, the default beyond loopback, means any."
        },
    )
    allowed_origins: str = field(
        default="", metadata={"what": "Comma-separated origins whose pages have access, besides the server's own."}
    )
    max_connections: int = field(
        default=500, metadata={"what": "Maximum number of open connections; further ones are answered with 503."}
    )
    max_streams: int = field(
        default=100, metadata={"what": "Maximum number of WebSockets and event streams of one token."}
    )
    max_subscriptions: int = field(
        default=50, metadata={"what": "Maximum number of operations at the same time on one WebSocket."}
    )
    max_subscription_cost: int = field(
        default=MAX_COST,
        metadata={"what": "Maximum cost of all open subscriptions of one token: the fields in one event of each."},
    )
    max_body: int = field(
        default=8 * 1024 * 1024,
        metadata={"what": "Maximum bytes of a request body; a package of 5 MiB is larger as JSON."},
    )
    operation_timeout: float = field(
        default=30.0, metadata={"what": "Time limit in seconds for a query, a mutation, or an event of a subscription."}
    )
    max_depth: int = field(default=15, metadata={"what": "Maximum depth of nested fields in one operation."})
    max_aliases: int = field(default=50, metadata={"what": "Maximum number of aliases in one operation."})
    max_fields: int = field(default=1000, metadata={"what": "Maximum number of fields in one operation."})
    max_cost: int = field(
        default=50_000, metadata={"what": "Maximum cost of one operation: its fields, multiplied by the page sizes."}
    )
    max_answer: int = field(
        default=MAX_ANSWER, metadata={"what": "Maximum bytes of one answer, and of one event of a subscription."}
    )
    max_tokens: int = field(default=2000, metadata={"what": "Maximum number of tokens in one GraphQL document."})
    max_characters: int = field(
        default=256 * 1024, metadata={"what": "Maximum number of characters in one GraphQL document."}
    )
    max_values: int = field(
        default=20_000, metadata={"what": "Maximum number of values in the variables of one operation."}
    )
    oidc_issuer: str = field(
        default="",
        metadata={"what": "URL, https://…, of an OpenID Connect issuer whose tokens are accepted besides daos' own."},
    )
    oidc_audience: str = field(
        default="daos", metadata={"what": "The audience that these tokens must have: their `aud`."}
    )
    oidc_role_claim: str = field(
        default="daos_role", metadata={"what": "The claim with the role: viewer, operator, deployer, or admin."}
    )
    oidc_labels_claim: str = field(
        default="daos_host_labels",
        metadata={"what": "The claim with the labels of the accessible hosts; without the claim, all hosts."},
    )
    audit_days: int = field(default=365, metadata={"what": "Days for which entries of the audit log are kept."})
    log_level: str = field(default="info", metadata={"what": "debug, info, warning, or error."})
    log_format: str = field(default="text", metadata={"what": "text or json."})

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Return the settings in `environment`.  Raises: BadSetting."""
        known = {variable_name(setting.name): setting for setting in fields(cls)}
        values = {
            setting.name: _value(name, type(setting.default), environment[name])
            for name, setting in known.items()
            if environment.get(name)
        }
        settings = cls(**values)
        if settings.log_level not in {"debug", "info", "warning", "error"}:
            raise BadSetting("DAOS_LOG_LEVEL must be debug, info, warning or error")
        if settings.log_format not in {"text", "json"}:
            raise BadSetting("DAOS_LOG_FORMAT must be text or json")
        if settings.ansible_verbosity not in {
            "0",
            "1",
            "2",
            "3",
        }:  # with 4, ssh writes debug output where its errors are parsed
            raise BadSetting("DAOS_ANSIBLE_VERBOSITY must be 0, 1, 2 or 3")
        if settings.host_key_policy not in {ACCEPT_NEW, "strict"}:
            raise BadSetting("DAOS_HOST_KEY_POLICY must be accept-new or strict")
        if settings.oidc_issuer and (problem := problem_of(settings.oidc_issuer)) is not None:
            raise BadSetting(f"DAOS_OIDC_ISSUER {problem}")
        return settings

    @property
    def trust(self) -> Trust | None:
        """The issuer whose tokens are accepted, or None."""
        if not self.oidc_issuer:
            return None
        return Trust(self.oidc_issuer, self.oidc_audience, self.oidc_role_claim, self.oidc_labels_claim)

    @property
    def url(self) -> str:
        """The URL of the database; by default a SQLite file in the data directory."""
        return self.database_url.reveal() or sqlite_url(self.data_dir.absolute() / "daos.db")

    @property
    def cookie(self) -> str:
        """An id that distinguishes the processes of this server from others: one server has one data directory."""
        return hashlib.sha256(str(self.data_dir.absolute()).encode()).hexdigest()[:16]

    @property
    def run_root(self) -> Path:
        """The parent of the runs' directories: in memory if possible, so that no secret is written to a disk."""
        if self.run_dir != Path():
            return self.run_dir.absolute()
        parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        return parent / f"daos-{self.cookie}"

    @property
    def own_playbooks(self) -> Path | None:
        """The operator's directory of playbooks, if there is one."""
        return None if self.playbooks == Path() else self.playbooks.absolute()

    @property
    def timeouts(self) -> Timeouts:
        return Timeouts(
            connect=self.connect_timeout,
            build=self.build_timeout,
            pull=self.pull_timeout,
            up=self.up_timeout,
            verify=self.verify_timeout,
            down=self.down_timeout,
            run=self.run_timeout,
        )

    @property
    def limits(self) -> Limits:
        return Limits(
            depth=self.max_depth,
            aliases=self.max_aliases,
            fields=self.max_fields,
            cost=self.max_cost,
            tokens=self.max_tokens,
            characters=self.max_characters,
            values=self.max_values,
            seconds=self.operation_timeout,
            answer=self.max_answer,
        )

    @property
    def transport(self) -> Transport:
        return Transport(
            allowed_hosts=self.allowed_hosts or ANY,
            allowed_origins=self.allowed_origins,
            body=BodyLimits(size=self.max_body),
            max_subscriptions=self.max_subscriptions,
        )


def unknown_names(environment: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """Return the variables `DAOS_*` that are not settings, sorted, each with the most similar setting or None."""
    known = {variable_name(setting.name) for setting in fields(Settings)}
    unknown = sorted(name for name in environment if name.startswith("DAOS_") and name not in known)
    # Runs set DAOS_RUN for their processes, and the tests have variables of their own.
    unknown = [name for name in unknown if name != "DAOS_RUN" and not name.startswith("DAOS_TEST_")]
    return [(name, next(iter(get_close_matches(name, known, 1, 0.8)), None)) for name in unknown]


def variable_name(setting: str) -> str:
    """Return the environment variable of a setting."""
    return f"DAOS_{setting.upper()}"


def docker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of `environment` that Docker on this machine needs, for hosts with HostTransport.LOCAL."""
    return {name: environment[name] for name in DOCKER_ENVIRONMENT if name in environment}


def help_text() -> str:
    """Return all settings with their defaults, for `daos serve --help`."""
    lines = ["settings (environment variables):"]
    for setting in fields(Settings):
        unset = isinstance(setting.default, Secret) or setting.default in {"", Path()}
        shown = str(setting.default).lower() if isinstance(setting.default, bool) else setting.default
        default = "" if unset else f" [{shown}]"
        lines.append(f"  {variable_name(setting.name):22} {setting.metadata['what']}{default}")
    return "\n".join(lines)


def _value(name: str, kind: type, text: str) -> Any:
    if kind is bool:
        if text not in {"true", "false"}:
            raise BadSetting(f"{name} must be true or false, not {text!r}")
        return text == "true"
    if kind not in {int, float}:
        return kind(text) if kind is not type(Path()) else Path(text)
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not 0 < value < float("inf"):
        raise BadSetting(f"{name} must be a number above 0, not {text!r}")
    return value
