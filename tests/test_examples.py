"""The documentation cannot rot: its documents fit the schema, its tables and paths are true, its shell lines deploy."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from graphql import DocumentNode, GraphQLSchema, build_schema, parse, validate
from graphql.execution.values import VariableValues, get_variable_values
from graphql.language import OperationDefinitionNode

from daos.settings import Settings, variable_name
from tests.e2e.server import Server, wait_until
from tests.support.docker import Docker
from tests.support.port import free_port
from tests.support.requirement import require

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")
OUR_PATH = re.compile(r"`((?:daos|schema|resolvers|runner|db|ansible|tests|scripts|docs|examples|deploy)/[\w./-]+)`")
# What scripts/explorer builds, what the wheel makes of `ansible/`, and what is made where it is used.
NOT_HERE = {"daos/explorer", "runner/playbooks", "deploy/compose/secrets", "deploy/compose/ssh"}


def section(title: str) -> str:
    """A section of the README, without its title."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(language: str) -> list[str]:
    """The blocks in one language of the first five minutes, in order."""
    return [text for name, text in BLOCK.findall(section("The first five minutes")) if name == language]


def asked() -> list[dict[str, Any]]:
    """What the shell lines send, with ID for every id."""
    lines = (re.sub(r"'\$\w+'", "ID", line) for text in blocks("sh") for line in text.splitlines())
    return [json.loads(sent) for line in lines for sent in re.findall(r"(?:ask|follow) '(\{.*?\})'", line)]


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


@pytest.mark.parametrize("document", blocks("graphql"), ids=lambda text: text.split("(")[0])
def test_a_document_fits_the_schema(schema: GraphQLSchema, document: str) -> None:
    assert validate(schema, parse(document)) == []


@pytest.mark.parametrize("variables", blocks("json"))
def test_variables_fit_a_document(schema: GraphQLSchema, variables: str) -> None:
    documents = [parse(document) for document in blocks("graphql")]
    assert any(fits(schema, document, json.loads(variables)) for document in documents)


@pytest.mark.parametrize("sent", asked(), ids=lambda sent: sent["query"].split("{")[1].strip())
def test_a_shell_line_fits_the_schema(schema: GraphQLSchema, sent: dict[str, Any]) -> None:
    document = parse(sent["query"])
    assert validate(schema, document) == []
    assert fits(schema, document, sent.get("variables", {}))


def test_the_package_is_the_example() -> None:
    inputs = [json.loads(text)["input"] for text in blocks("json") if "composeFile" in text]
    inputs += [sent["variables"]["input"] for sent in asked() if "createPackage" in sent["query"]]
    project = ROOT / "examples" / "hello"
    compose_file, page = project / "compose.yaml", project / "site" / "index.html"
    files = [{"path": "site/index.html", "content": page.read_text()}]
    assert [(given["composeFile"], given["files"]) for given in inputs] == [(compose_file.read_text(), files)] * 2


def test_the_table_of_settings_is_complete() -> None:
    rows = [
        f"| `{variable_name(setting.name)}` | {setting.metadata['what']} | {shown(setting.default)} |"
        for setting in fields(Settings)
    ]
    listed = [line for line in section("Settings").splitlines() if line.startswith("| `")]
    assert listed == rows, "the table has to be:\n" + "\n".join(rows)


def shown(default: object) -> str:
    """A default as the table has it: nothing for an empty one."""
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return "" if text in {"********", ".", ""} else f"`{text}`"


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_text_names_is_there(text: Path) -> None:
    words = text.read_text()
    linked = [text.parent / target for target in LINK.findall(words) if "://" not in target]
    named = [ROOT / path for path in OUR_PATH.findall(words) if path.rstrip("/") not in NOT_HERE]
    assert [path for path in (*linked, *named) if not path.exists()] == []


def test_the_shell_lines_deploy(docker: Docker, project_name: str, server: Server) -> None:
    require("curl", None if shutil.which("curl") else "there is no curl (Debian: curl)")
    image = f"{project_name}:1"
    script = "".join(blocks("sh"))
    for written, own in {
        "http://127.0.0.1:8000": server.url,
        "data/admin-token": str(server.data_dir / "admin-token"),
        '"projectName": "hello"': f'"projectName": "{project_name}"',
        "hello:1": image,
        "8088": str(free_port()),
    }.items():
        assert written in script
        script = script.replace(written, own)
    try:
        done = subprocess.run(
            ["sh", "-eu", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert '"status":"SUCCESS"' in done.stdout, done.stdout
        assert done.stdout.endswith("<h1>Hello from daos</h1>\n"), done.stdout
        wait_until(lambda: not docker.containers(project_name), "the project is down", 30)
    finally:
        docker.remove_project(project_name)
        docker.run("image", "rm", image)
