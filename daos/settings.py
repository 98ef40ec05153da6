"""The server's settings: environment variables `DAOS_*`, read once and here only."""

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
    """A setting that cannot be used; the text is one line for the person who starts the server."""


@dataclass(frozen=True)
class Settings:
    """All settings.  The field `data_dir` is read from DAOS_DATA_DIR, and so on."""

    data_dir: Path = field(
        default=Path("data"), metadata={"what": "Directory of the database, the secret key and the admin token."}
    )
    database_url: Secret = field(
        default=Secret(""), metadata={"what": "sqlite:///… or postgresql://…; by default a file in DAOS_DATA_DIR."}
    )
    admin_token: Secret = field(
        default=Secret(""), metadata={"what": "The admin's token; by default the one in DAOS_DATA_DIR/admin-token."}
    )
    secret_key_file: Path = field(
        default=Path(), metadata={"what": "The keys of secret variables; by default those in DAOS_DATA_DIR/secret-key."}
    )
    run_dir: Path = field(
        default=Path(),
        metadata={
            "what": "Where runs keep their files while they are played; by default in memory. It has to be private: of "
            "the daos user, mode 0700."
        },
    )
    playbooks: Path = field(
        default=Path(),
        metadata={
            "what": "Directory of your own deploy.yml, and down.yml if you like, with our task among yours: "
            "docs/ansible.md."
        },
    )
    max_runs: int = field(default=8, metadata={"what": "Runs that are played at the same time."})
    max_runs_per_host: int = field(default=4, metadata={"what": "Of these, runs on one host."})
    play: bool = field(
        default=True, metadata={"what": "Whether `daos serve` plays runs; with PostgreSQL `daos worker` can do it."}
    )
    lease: float = field(
        default=12.0,
        metadata={"what": "PostgreSQL: seconds without it after which a worker ends its plays; others wait half more."},
    )
    warm: bool = field(default=True, metadata={"what": "Keep Ansible loaded; false starts it anew for each run."})
    ansible_verbosity: str = field(
        default="0", metadata={"what": "0 to 3: what Ansible says of itself in runs' logs; above 0 DAOS_WARM is off."}
    )
    host_key_policy: str = field(
        default=ACCEPT_NEW,
        metadata={"what": "accept-new pins the key of a new host; strict talks to no host without a pinned one."},
    )
    connect_timeout: int = field(default=10, metadata={"what": "Seconds to reach a host."})
    build_timeout: int = field(default=1800, metadata={"what": "Seconds to build images."})
    pull_timeout: int = field(default=1800, metadata={"what": "Seconds to pull images."})
    up_timeout: int = field(default=600, metadata={"what": "Seconds to bring a project up."})
    verify_timeout: int = field(default=300, metadata={"what": "Seconds for all containers to be well."})
    down_timeout: int = field(default=300, metadata={"what": "Seconds to take a project down."})
    run_timeout: int = field(default=3600, metadata={"what": "Seconds for a whole run."})
    settle_seconds: float = field(
        default=2.0, metadata={"what": "Seconds that a new container without a health check must stay up."}
    )
    shutdown_grace: float = field(
        default=10.0, metadata={"what": "Seconds that runs get to end when the server is stopped."}
    )
    allowed_hosts: str = field(
        default="",
        metadata={"what": "Names to be asked by, with commas; * is any, the default beyond loopback."},
    )
    allowed_origins: str = field(
        default="", metadata={"what": "Origins whose pages have access besides the server's own, with commas."}
    )
    max_connections: int = field(default=500, metadata={"what": "Open connections; further ones get 503."})
    max_streams: int = field(default=100, metadata={"what": "Websockets and event streams of one token."})
    max_subscriptions: int = field(default=50, metadata={"what": "Operations at the same time on one websocket."})
    max_subscription_cost: int = field(
        default=MAX_COST, metadata={"what": "Fields in an event of each open subscription of one token, together."}
    )
    max_body: int = field(
        default=8 * 1024 * 1024, metadata={"what": "Bytes of a request; a package of 5 MiB is more in JSON."}
    )
    operation_timeout: float = field(default=30.0, metadata={"what": "Seconds for a query or mutation."})
    max_depth: int = field(default=15, metadata={"what": "Fields inside each other in one operation."})
    max_aliases: int = field(default=50, metadata={"what": "Aliases in one operation."})
    max_fields: int = field(default=1000, metadata={"what": "Fields in one operation."})
    max_cost: int = field(default=50_000, metadata={"what": "Fields in one operation, times the sizes of its pages."})
    max_answer: int = field(
        default=MAX_ANSWER, metadata={"what": "Bytes of one answer, and of one event of a subscription."}
    )
    max_tokens: int = field(default=2000, metadata={"what": "Words and signs in one GraphQL document."})
    max_characters: int = field(default=256 * 1024, metadata={"what": "Characters in one GraphQL document."})
    max_values: int = field(default=20_000, metadata={"what": "Values in the variables of one operation."})
    oidc_issuer: str = field(
        default="",
        metadata={"what": "https://… of an OpenID Connect issuer whose tokens are accepted besides daos' own."},
    )
    oidc_audience: str = field(default="daos", metadata={"what": "For whom these tokens must be made: their `aud`."})
    oidc_role_claim: str = field(
        default="daos_role", metadata={"what": "The claim with their role: viewer, operator, deployer or admin."}
    )
    oidc_labels_claim: str = field(
        default="daos_host_labels",
        metadata={"what": "The claim with the labels of the hosts that they see; none: all."},
    )
    audit_days: int = field(default=365, metadata={"what": "Days for which the audit keeps what was asked for."})
    log_level: str = field(default="info", metadata={"what": "debug, info, warning or error."})
    log_format: str = field(default="text", metadata={"what": "text or json."})

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """The settings in `environment`.  Raises: BadSetting."""
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
        if settings.ansible_verbosity not in {"0", "1", "2", "3"}:  # with 4 ssh talks where its errors are read
            raise BadSetting("DAOS_ANSIBLE_VERBOSITY must be 0, 1, 2 or 3")
        if settings.host_key_policy not in {ACCEPT_NEW, "strict"}:
            raise BadSetting("DAOS_HOST_KEY_POLICY must be accept-new or strict")
        if settings.oidc_issuer and (problem := problem_of(settings.oidc_issuer)) is not None:
            raise BadSetting(f"DAOS_OIDC_ISSUER {problem}")
        return settings

    @property
    def trust(self) -> Trust | None:
        """The issuer whose tokens are accepted, if there is one."""
        if not self.oidc_issuer:
            return None
        return Trust(self.oidc_issuer, self.oidc_audience, self.oidc_role_claim, self.oidc_labels_claim)

    @property
    def url(self) -> str:
        """The database's URL, also where none was set."""
        return self.database_url.reveal() or sqlite_url(self.data_dir.absolute() / "daos.db")

    @property
    def cookie(self) -> str:
        """Tells this server's processes from another's: one server has one data directory."""
        return hashlib.sha256(str(self.data_dir.absolute()).encode()).hexdigest()[:16]

    @property
    def run_root(self) -> Path:
        """Where runs have their directories: memory where there is some, so that no secret is written to a disk."""
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
    """Variables that look like settings and are none, sorted, each with the setting that resembles it most."""
    known = {variable_name(setting.name) for setting in fields(Settings)}
    unknown = sorted(name for name in environment if name.startswith("DAOS_") and name not in known)
    # Runs give their processes DAOS_RUN, and the tests have variables of their own.
    unknown = [name for name in unknown if name != "DAOS_RUN" and not name.startswith("DAOS_TEST_")]
    return [(name, next(iter(get_close_matches(name, known, 1, 0.8)), None)) for name in unknown]


def variable_name(setting: str) -> str:
    """The environment variable of a setting."""
    return f"DAOS_{setting.upper()}"


def docker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What docker on this machine needs of `environment`, for hosts with HostTransport.LOCAL."""
    return {name: environment[name] for name in DOCKER_ENVIRONMENT if name in environment}


def help_text() -> str:
    """All settings with their defaults, for `daos serve --help`."""
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
