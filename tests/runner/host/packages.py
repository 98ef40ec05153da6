"""Packages, models and hosts for the tables of the comparison."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from db.containers import ContainerState
from runner.host.comparison import Comparison, ServiceChange, compare
from runner.host.content import Content, DeliveredFile
from runner.host.model import Model, Places
from runner.host.notes import Built, Seen, Sight

HOME = "/home/deploy/.daos"
DIRECTORY, TREE = f"{HOME}/projects/shop", f"{HOME}/trees/shop"
PLACES = Places(DIRECTORY, TREE)
COMPOSE, ENV = DeliveredFile("compose-1", 0o644), DeliveredFile("env-1", 0o600)
IMAGES = {"web:1": "sha256:web", "db:1": "sha256:db", "app:1": "sha256:app"}


def service(image: str | None = "web:1", **described: Any) -> dict[str, Any]:
    return {**({} if image is None else {"image": image}), **described}


def bind(path: str) -> dict[str, Any]:
    """A mount of a path in the delivered files, as Compose resolves it."""
    return {
        "type": "bind",
        "source": path if path.startswith("/") else f"{TREE}/{path}".removesuffix("/."),
        "target": "/x",
    }


def resolved(services: Mapping[str, Any], **more: Any) -> Model:
    return Model({"name": "shop", "services": dict(services), **more}, "shop")


def package(values: Mapping[str, str] | None = None, /, **files: DeliveredFile) -> Content:
    """compose.yaml, `.env`, and other files; "conf__site" is conf/site."""
    named = {path.replace("__", "/"): file for path, file in files.items()}
    return Content({"compose.yaml": COMPOSE, ".env": ENV, **named}, values or {})


def file(content: str = "1", mode: int = 0o644, *, seed: bool = False) -> DeliveredFile:
    return DeliveredFile(content, mode, seed)


def running(name: str = "web", image: str | None = None, **changes: Any) -> Seen:
    return replace(Seen(f"{name}-1", name, ContainerState.RUNNING, image or f"sha256:{name}", "hash"), **changes)


def after(content: Content, model: Model, *containers: Seen, **changes: Any) -> Sight:
    """What the host reports after a successful run that has made these containers."""
    found = compare(content, model, PLACES, Sight(images=IMAGES))
    built = {name: Built(key, IMAGES[model.image_of(name)]) for name, key in found.keys.items()}
    return replace(Sight(containers=containers, images=IMAGES, notes=found.notes, built=built), **changes)


def change_of(found: Comparison, name: str = "web") -> ServiceChange:
    [change] = [change for change in found.services if change.service == name]
    return change


def nothing_is_done(found: Comparison) -> bool:
    lists = (found.build, found.pull, found.recreate, found.move, found.delete, found.overwritten, found.unavailable)
    return not any(lists)


WEB = resolved({"web": service()})
BOTH = resolved({"web": service(), "db": service("db:1")})
BUILD = {"context": TREE, "dockerfile": "Dockerfile"}
APP = resolved({"app": service("app:1", build=BUILD)})
MANY = resolved(
    {
        "web": service(volumes=[bind("conf"), bind("seed")], configs=[{"source": "motd"}]),
        "db": service("db:1", secrets=[{"source": "password"}, {"source": "key"}]),
        "app": service("app:1", build={"context": TREE, "dockerfile": "Dockerfile"}),
    },
    configs={"motd": {"name": "shop_motd", "content": "hello"}},
    secrets={"password": {"environment": "PASSWORD"}, "key": {"file": f"{TREE}/key"}},
)
MANY_FILES = {
    "conf__site": file(),
    "conf__site2": file("2"),
    "seed": file(seed=True),
    "key": file(mode=0o600),
    "Dockerfile": file(),
}
