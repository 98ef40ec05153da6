"""How the page's files are served; no browser is needed to see that."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from daos.http.explorer import IDE, is_built
from tests.support.requirement import require
from tests.support.serving import Served

PAGE = "<!doctype html><title>a page</title>"
SCRIPT = "'a script'"
COMPRESSED = "'compressed'"  # another text, to tell them apart
FONT = b"\0\1\0\0"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A directory as `scripts/explorer` makes it, with something secret beside it."""
    (tmp_path / "secret.txt").write_text("a secret")
    directory = tmp_path / "explorer"
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_text(PAGE)
    (directory / "assets" / "page-1a2b.js").write_text(SCRIPT)
    (directory / "assets" / "page-1a2b.js.gz").write_bytes(gzip.compress(COMPRESSED.encode()))
    (directory / "assets" / "font-3c4d.ttf").write_bytes(FONT)
    (directory / "assets" / "link.txt").symlink_to(tmp_path / "secret.txt")
    return directory


def test_whether_the_page_is_built_is_known_without_a_request(built: Path, tmp_path: Path) -> None:
    assert is_built(built)
    assert not is_built(tmp_path)


@pytest.fixture
async def client(built: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with _client(built) as client:
        yield client


@asynccontextmanager
async def _client(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the files in `directory`, with `/graphql/ide/` as its base."""
    application = Starlette(routes=[Mount("/graphql/ide", IDE(directory))])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application), base_url="http://daos/graphql/ide/"
    ) as client:
        yield client


@pytest.mark.parametrize("path", ["", "index.html", "assets/page-1a2b.js", "assets/font-3c4d.ttf"])
async def test_everything_is_served_under_the_policy(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert not any("http" in source or "unsafe-eval" in source for source in policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("", "text/html"), ("assets/page-1a2b.js", "text/javascript"), ("assets/font-3c4d.ttf", "font/ttf")],
)
async def test_a_file_has_its_media_type(client: httpx.AsyncClient, path: str, media_type: str) -> None:
    response = await client.get(path)
    assert response.headers["content-type"].partition(";")[0] == media_type


async def test_assets_are_cached_for_ever_and_the_page_is_not(client: httpx.AsyncClient) -> None:
    asset = await client.get("assets/page-1a2b.js")
    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
    page = await client.get("")
    assert page.headers["cache-control"] == "no-cache"
    assert page.text == PAGE


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate, br, zstd", "br;q=1.0, gzip;q=0.8", "*"])
async def test_the_compressed_form_goes_to_who_takes_it(client: httpx.AsyncClient, accepted: str) -> None:
    response = await client.get("assets/page-1a2b.js", headers={"Accept-Encoding": accepted})
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.text == COMPRESSED


@pytest.mark.parametrize(
    "accepted",
    [
        "",
        "identity",
        "br",
        "gzip;q=0",
        "br, *;q=0.0",
    ],
)
async def test_the_plain_form_goes_to_who_does_not(client: httpx.AsyncClient, accepted: str) -> None:
    response = await client.get("assets/page-1a2b.js", headers={"Accept-Encoding": accepted})
    assert "content-encoding" not in response.headers
    assert response.text == SCRIPT


async def test_a_file_without_a_compressed_form_is_sent_as_it_is(client: httpx.AsyncClient) -> None:
    response = await client.get("assets/font-3c4d.ttf")
    assert "content-encoding" not in response.headers
    assert response.content == FONT


async def test_caches_are_told_that_the_form_depends_on_the_request(client: httpx.AsyncClient) -> None:
    for accepted in ("gzip", "identity"):
        response = await client.get("assets/page-1a2b.js", headers={"Accept-Encoding": accepted})
        assert response.headers["vary"] == "Accept-Encoding"


async def test_head_has_the_headers_of_get_and_no_body(client: httpx.AsyncClient) -> None:
    got, asked = await client.get(""), await client.head("")
    assert asked.status_code == 200
    assert asked.headers == got.headers
    assert asked.content == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_files_can_only_be_read(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, "")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["missing.js", "assets", "assets/", "assets/link.txt", "index.html/further"])
async def test_what_is_no_file_of_the_page_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "../auth.py",
        "../../auth.py",
        "assets/../../auth.py",
        "%2e%2e/auth.py",
        "..%2fauth.py",
        "%2e%2e%2f%2e%2e%2fauth.py",
        "assets%2f..%2f..%2fauth.py",
        "..%5cauth.py",
        "%252e%252e/auth.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "%ff",
        "index.html%00",
        pytest.param("a" * 300, id="too-long"),
    ],
)
async def test_no_path_leads_out_of_the_page(served: Served, path: str) -> None:
    require("explorer", None if is_built() else "GraphiQL is not built (scripts/explorer)")
    async with served.client() as client:
        # As the request's target, or the client would tidy the path up.
        response = await client.get(served.url, extensions={"target": f"/graphql/ide/{path}".encode()})
    assert (response.status_code, response.text) == (404, "Not Found")


@pytest.mark.parametrize("kind", ["empty", "missing"])
async def test_where_the_page_is_not_built_it_says_how_to_get_it(tmp_path: Path, kind: str) -> None:
    directory = tmp_path if kind == "empty" else tmp_path / "missing"
    async with _client(directory) as client:
        response = await client.get("")
    assert response.status_code == 503
    assert "scripts/explorer" in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_page_that_is_built_meanwhile_is_there_after_a_reload(built: Path) -> None:
    index = built / "index.html"
    later = index.rename(built / "later.html")
    async with _client(built) as client:
        assert (await client.get("")).status_code == 503
        later.rename(index)
        assert (await client.get("")).text == PAGE
