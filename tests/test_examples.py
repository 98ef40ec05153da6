"""The documentation cannot rot: its documents fit the schema, its tables and paths are true, its shell lines deploy."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import DocumentNode, GraphQLSchema, build_schema, parse, validate
from graphql.execution.values import VariableValues, get_variable_values
from graphql.language import OperationDefinitionNode

from tests.support.docker import Docker
from tests.support.port import free_port
from tests.support.requirement import require
from tests.support.server import Server, wait_until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SCRIPT = ROOT / "examples/hello/deploy.sh"
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]

LINK = re.compile(r"\]\(([^)#\s]+)")
OUR_PATH = re.compile(r"`((?:daos|schema|resolvers|runner|db|ansible|tests|scripts|docs|examples|deploy)/[\w./-]+)`")
# What scripts/explorer builds, what the wheel makes of `ansible/`, and what is made where it is used.
NOT_HERE = {"daos/explorer", "runner/playbooks", "deploy/compose/secrets", "deploy/compose/ssh"}


def asked() -> list[dict[str, Any]]:
    """What the script of the first deployment sends, with a word for what the shell puts in."""
    return [
        json.loads(re.sub(r"'\"\$.*?\"'", "WORD", sent))
        for sent in re.findall(r"(?:ask|follow|id_of) '(\{.*\})'", SCRIPT.read_text())
    ]


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema((ROOT / "schema" / "schema.graphql").read_text())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.close()


def fits(schema: GraphQLSchema, document: DocumentNode, variables: dict[str, Any]) -> bool:
    """Whether these are the variables of the document's operation, no more and no fewer, with values it takes."""
    [operation] = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    wanted = operation.variable_definitions or ()
    return {definition.variable.name.value for definition in wanted} == set(variables) and isinstance(
        get_variable_values(schema, wanted, variables), VariableValues
    )


@pytest.mark.parametrize("sent", asked(), ids=lambda sent: sent["query"].split("{")[1].strip())
def test_a_shell_line_fits_the_schema(schema: GraphQLSchema, sent: dict[str, Any]) -> None:
    document = parse(sent["query"])
    assert validate(schema, document) == []
    assert fits(schema, document, sent.get("variables", {}))


def test_the_table_of_settings_is_generated() -> None:
    printed = subprocess.run([sys.executable, ROOT / "scripts/settings.py"], cwd=ROOT, check=True, capture_output=True)
    assert printed.stdout.decode() == (ROOT / "docs/settings.md").read_text(), "see scripts/settings.py"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_the_readme_names_the_tabs_of_graphiql() -> None:
    tabs = re.findall(
        r"^(?:query|mutation|subscription) (\w+)", (ROOT / "explorer/src/documents.ts").read_text(), re.MULTILINE
    )
    assert re.findall(r"^\| (\w+) \|", README.partition("| tab |")[2].partition("\n\n")[0], re.MULTILINE) == tabs


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_text_names_is_there(text: Path) -> None:
    words = text.read_text()
    linked = [text.parent / target for target in LINK.findall(words) if "://" not in target]
    named = [ROOT / path for path in OUR_PATH.findall(words) if path.rstrip("/") not in NOT_HERE]
    assert [path for path in (*linked, *named) if not path.exists()] == []


def test_the_script_of_the_first_deployment_deploys(docker: Docker, project_name: str, server: Server) -> None:
    require("curl", None if shutil.which("curl") else "there is no curl (Debian: curl)")
    environment = {
        **os.environ,
        "DAOS_URL": server.url,
        "DAOS_TOKEN": (server.data_dir / "admin-token").read_text().strip(),
        "PROJECT": project_name,
        "PORT": str(free_port()),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPT), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    try:
        done = run()
        assert done.returncode == 0, done.stderr
        assert '"status":"SUCCESS"' in done.stdout, done.stdout
        assert done.stdout.endswith("<h1>Hello from daos</h1>\n"), done.stdout
        again = run()
        assert again.returncode == 1
        assert "NAME_TAKEN" in again.stderr or "already" in again.stderr, again.stderr
        down = run("down")
        assert down.returncode == 0, down.stderr
        wait_until(lambda: not docker.containers(project_name), "the project is down", 30)
    finally:
        docker.remove_project(project_name)
