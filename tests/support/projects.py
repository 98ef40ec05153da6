"""Projects as a run plays them, without a database."""

from typing import Any
from uuid import uuid4

from uuid_utils.compat import uuid7

from db.models import HostTransport, RunAction
from runner.spec.run import Project
from runner.ssh.target import Target


def target(**values: Any) -> Target:
    """A host that is reached by SSH, of which nothing is known yet."""
    usual: dict[str, Any] = {"id": uuid4(), "name": "web-1", "transport": HostTransport.SSH, "address": "192.0.2.1"}
    usual |= {"port": 22, "user": "deploy", "ssh_key_path": None, "known_hosts": None}
    return Target(**(usual | values))


def project(on: Target | None = None, **values: Any) -> Project:
    """A project with no service, on a host of its own where none is given."""
    usual: dict[str, Any] = {"run_id": uuid7(), "number": 1, "action": RunAction.UP, "deployment_id": uuid4()}
    usual |= {"installation": uuid4(), "name": "shop", "package": "shop 1", "target": on or target()}
    usual |= {"compose_file": "services: {}", "files": {}, "variables": {}}
    return Project(**(usual | values))
