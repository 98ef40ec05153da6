"""Pairs of packages by a seed: a first one, and what a few changes make of it.

All of it is pure; tests/support/described.py knows what has to run.
"""

import base64
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

VALUES = (
    "plain",
    "two words",
    "pa$$wd ${x} #1'\"\\",
    "ünïcode ✓",
    "",
    "line one\nline two",
    "a=b",
    " blanks ",
    "{{ x }}",
)
CONTENTS = (b"one\n", b"two\n", b"", b"no end", b"\x00\x01\xfe\xff\n", "h\u00e9 $x ${y}\r\n".encode())
MODES = ("0644", "0600", "0755", "0640")
VARIABLES = ("V0", "V1", "V2")
DOCKERFILE = "FROM hello:1\nARG VALUE\nENV BUILT=$VALUE\nCOPY page /srv/page\n"
PROFILES = ("p1", "p2")
HERE, INCLUDED = "compose.yaml", "more/part.yaml"


@dataclass
class Service:
    """A service of a package.

    `place` is the compose file that has it, `context` the build context, None without a build.
    """

    place: str = HERE
    context: str | None = None
    inline: bool = False  # the Dockerfile is in the compose file
    argument: str = "none"  # of the build
    named: bool = False  # the image that it builds has a name of its own
    environment: dict[str, str] = field(default_factory=dict)
    env_file: bool = False
    mounts: list[str] = field(default_factory=list)  # paths in the package
    configs: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    profile: str | None = None
    scale: int = 1
    health: bool = False
    after: str | None = None


@dataclass
class Version:
    """A package and its variables.

    `files` has bytes and mode by path.  `configs` and `secrets` are compose's own words, `override` is the value that
    the override file adds to the environment of the first service.
    """

    services: dict[str, Service]
    files: dict[str, tuple[bytes, str]]
    variables: dict[str, str]
    configs: dict[str, dict[str, str]]
    secrets: dict[str, dict[str, str]]
    override: str | None = None

    def input_files(self, project: str) -> list[dict[str, object]]:
        """PackageFileInputs of all files but the compose file."""
        return [_file_input(path, *self.files[path]) for path in sorted(self.files)] + [
            _file_input(path, text.encode(), "0644")
            for path, text in self.compose_files(project).items()
            if path != HERE
        ]

    def compose_files(self, project: str) -> dict[str, str]:
        """The texts of the compose files by path; JSON is YAML.  `project` is in the names of images."""
        here: dict[str, Any] = {"services": self._in(HERE, project), "configs": self.configs, "secrets": self.secrets}
        texts = {}
        if included := self._in(INCLUDED, project):
            here["include"] = [{"path": INCLUDED, "project_directory": "."}]
            texts[INCLUDED] = json.dumps({"services": included})
        if self.override is not None:
            first = next(name for name, service in self.services.items() if service.place == HERE)
            texts["compose.override.yaml"] = json.dumps({"services": {first: {"environment": {"OVER": self.override}}}})
        return {HERE: json.dumps(here), **texts}

    def _in(self, place: str, project: str) -> dict[str, Any]:
        return {
            name: _compose_service(name, service, project)
            for name, service in self.services.items()
            if service.place == place
        }

    def show(self, project: str) -> str:
        """All of it, for a person who wants to see what went wrong."""
        files = {
            path: [content.decode(errors="backslashreplace"), mode] for path, (content, mode) in self.files.items()
        }
        texts = {path: json.loads(text) for path, text in self.compose_files(project).items()}
        return json.dumps({"variables": self.variables, "files": files, **texts}, indent=1, ensure_ascii=False)


@dataclass
class Pair:
    """Two versions, and the names of the changes between them."""

    first: Version
    second: Version
    changes: list[str]


def _compose_service(name: str, service: Service, project: str) -> dict[str, Any]:
    made: dict[str, Any] = {"init": True, "network_mode": "none", "stop_grace_period": "1s", "command": "sleep 100000"}
    if service.context is None:
        made["image"] = "hello:1"
    else:
        made["build"] = {"context": f"./{service.context}", "args": {"VALUE": service.argument}}
        if service.inline:
            made["build"]["dockerfile_inline"] = DOCKERFILE.replace("$", "$$")
        if service.named:
            made["image"] = f"{project}-own-{name}:1"
    optional = {
        "environment": service.environment,
        "env_file": "app.env" if service.env_file else None,
        "volumes": [f"./{path}:/mounted/{path}" for path in service.mounts],
        "configs": [{"source": config, "target": f"/srv/configs/{config}"} for config in service.configs],
        "secrets": service.secrets,
        "profiles": [service.profile] if service.profile else None,
        "scale": service.scale if service.scale != 1 else None,
        "healthcheck": {"test": "true", "interval": "1s"} if service.health else None,
        "depends_on": [service.after] if service.after else None,
    }
    return {**made, **{key: value for key, value in optional.items() if value}}


def _file_input(path: str, content: bytes, mode: str) -> dict[str, object]:
    try:
        return {"path": path, "content": content.decode(), "mode": mode}
    except UnicodeDecodeError:
        return {"path": path, "base64": base64.b64encode(content).decode(), "mode": mode}


def generate(seed: int) -> Pair:
    """The pair of a seed."""
    random = Random(seed)
    first = _first(random)
    second = copy.deepcopy(first)
    changes: list[str] = []
    while not changes or random.random() < 0.5:
        name, change = random.choice(list(CHANGES.items()))
        before = copy.deepcopy(second)
        change(random, second)
        if second != before:
            changes.append(name)
    return Pair(first, second, changes)


def _first(random: Random) -> Version:
    files = {
        "app.env": (b"FROM_FILE=${V1}\nLITERAL='x$y'\n", "0644"),
        "conf/a.txt": (random.choice(CONTENTS), random.choice(MODES)),
        "conf/deep/b c.txt": (random.choice(CONTENTS), random.choice(MODES)),
        "key": (random.choice(CONTENTS), random.choice(MODES)),
        "run.sh": (b"#!/bin/sh\nexit 0\n", "0755"),
    }
    version = Version(
        services={},
        files=files,
        variables={name: random.choice(VALUES) for name in VARIABLES},
        configs={
            "inline": {"content": f"level = {random.randrange(9)}\nvalue = ${{V0}}\n"},
            "fromfile": {"file": "./conf/a.txt"},
            "fromenv": {"environment": "V2"},
        },
        secrets={"keyfile": {"file": "./key"}, "keyenv": {"environment": "V1"}},
        override=random.choice((None, None, "first ${V2}")),
    )
    version.variables["COMPOSE_PROFILES"] = random.choice(("", "p1", "p2", "p1,p2"))
    version.services["s0"] = _service(random, version, "s0", always=True)
    for number in range(1, random.randint(1, 4)):
        version.services[f"s{number}"] = _service(random, version, f"s{number}")
    return version


def _service(random: Random, version: Version, name: str, *, always: bool = False) -> Service:
    """A new service, with its build context in the files.  `always`: in the compose file itself, without a profile."""
    place = HERE if always else random.choice((HERE, HERE, INCLUDED))
    context = random.choice((None, None, f"build {name}"))
    inline = random.random() < 0.4
    if context:
        version.files[f"{context}/page"] = (random.choice(CONTENTS), random.choice(MODES))
        if not inline:
            version.files[f"{context}/Dockerfile"] = (DOCKERFILE.encode(), "0644")
    older = [
        other
        for other, service in version.services.items()
        if other != name and not service.profile and service.place == place
    ]
    return Service(
        place=place,
        context=context,
        inline=inline,
        argument=random.choice(("none", "<${V0}>", "<${V1}>")),
        named=random.random() < 0.5,
        environment={f"E{number}": f"<${{{name}}}>" for number, name in enumerate(_some(random, VARIABLES))},
        env_file=random.random() < 0.3,
        mounts=_some(random, ("conf", "run.sh", "key")),
        # What an included file names has to be in it.
        configs=_some(random, tuple(version.configs)) if place == HERE else [],
        secrets=_some(random, tuple(version.secrets)) if place == HERE else [],
        profile=None if always else random.choice((None, None, *PROFILES)),
        scale=random.choice((1, 1, 1, 2)),
        health=random.random() < 0.2,
        after=random.choice(older) if older and random.random() < 0.3 else None,
    )


def _some(random: Random, among: tuple[str, ...]) -> list[str]:
    return [each for each in among if random.random() < 0.4]


def _change_file(random: Random, version: Version) -> None:
    path = random.choice([path for path in version.files if not path.endswith(("Dockerfile", "app.env"))])
    version.files[path] = (random.choice(CONTENTS), version.files[path][1])


def _change_mode(random: Random, version: Version) -> None:
    path = random.choice(list(version.files))
    version.files[path] = (version.files[path][0], random.choice(MODES))


def _change_env_file(random: Random, version: Version) -> None:
    version.files["app.env"] = (f"FROM_FILE=${{V{random.randrange(3)}}}\nLITERAL='x$y'\n".encode(), "0644")


def _add_file(random: Random, version: Version) -> None:
    version.files[f"conf/new {random.randrange(9)}"] = (random.choice(CONTENTS), random.choice(MODES))


def _remove_file(random: Random, version: Version) -> None:
    version.files.pop("conf/deep/b c.txt", None)


def _change_variable(random: Random, version: Version) -> None:
    version.variables[random.choice(VARIABLES)] = random.choice(VALUES)


def _change_profiles(random: Random, version: Version) -> None:
    version.variables["COMPOSE_PROFILES"] = random.choice(("", "p1", "p2", "p1,p2"))


def _change_config(random: Random, version: Version) -> None:
    version.configs["inline"] = {"content": f"level = {random.randrange(9)}\nvalue = ${{V{random.randrange(3)}}}\n"}


def _change_override(random: Random, version: Version) -> None:
    version.override = random.choice((None, "second", "third ${V0}"))


def _change_scale(random: Random, version: Version) -> None:
    version.services[random.choice(list(version.services))].scale = random.choice((1, 2, 3))


def _change_environment(random: Random, version: Version) -> None:
    version.services[random.choice(list(version.services))].environment["CHANGED"] = random.choice(("1", "${V1}"))


def _add_service(random: Random, version: Version) -> None:
    version.services["added"] = _service(random, version, "added")


def _remove_service(random: Random, version: Version) -> None:
    needed = {"s0", *(service.after for service in version.services.values())}
    if others := [name for name in version.services if name not in needed]:
        del version.services[random.choice(others)]


def _move_service(random: Random, version: Version) -> None:
    """Into the included file, or out of it: for compose it stays the same service."""
    needed = {"s0", *(service.after for service in version.services.values())}
    movable = [
        service
        for name, service in version.services.items()
        if name not in needed and not (service.configs or service.secrets or service.after)
    ]
    if movable:
        service = random.choice(movable)
        service.place = HERE if service.place == INCLUDED else INCLUDED


CHANGES: Mapping[str, Callable[[Random, Version], None]] = {
    "file": _change_file,
    "mode": _change_mode,
    "env_file": _change_env_file,
    "added file": _add_file,
    "removed file": _remove_file,
    "variable": _change_variable,
    "profiles": _change_profiles,
    "config": _change_config,
    "override": _change_override,
    "scale": _change_scale,
    "environment": _change_environment,
    "added service": _add_service,
    "removed service": _remove_service,
    "moved service": _move_service,
}
