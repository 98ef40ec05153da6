"""A run's specification, for tests of what is pure."""

from uuid import uuid4

from uuid_utils.compat import uuid7

from db.models import HostTransport, RunAction
from runner.spec.run import Project
from runner.ssh.target import Target

TARGET = Target(
    id=uuid4(),
    name="web-1",
    transport=HostTransport.SSH,
    address="192.0.2.1",
    port=22,
    user="deploy",
    ssh_key_path=None,
    known_hosts=None,
)
PROJECT = Project(
    run_id=uuid7(),
    number=1,
    action=RunAction.UP,
    deployment_id=uuid4(),
    installation=uuid4(),
    name="shop",
    package="shop 1",
    target=TARGET,
    compose_file="services: {}",
    files={},
    variables={},
)
