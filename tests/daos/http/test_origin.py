"""Which names and pages pass the gate."""

import pytest
from starlette.datastructures import Headers

from daos.http.origin import Gate, hosts_by_default
from daos.http.refusals import ForeignHost, ForeignOrigin

ANY = "*"


def check(gate: Gate, **headers: str) -> None:
    gate.check(Headers({name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.mark.parametrize(
    ("listening_on", "hosts"),
    [
        ("127.0.0.1", "localhost,127.0.0.1,[::1]"),
        ("localhost", "localhost,127.0.0.1,[::1]"),
        ("::1", "localhost,127.0.0.1,[::1]"),
        ("127.0.0.5", "localhost,127.0.0.1,[::1],127.0.0.5"),
        ("0.0.0.0", ANY),  # noqa: S104 - nothing listens there
        ("::", ANY),
        ("192.0.2.7", ANY),
        ("daos.example", ANY),
    ],
)
def test_only_a_loopback_server_has_foreign_names_by_default(listening_on: str, hosts: str) -> None:
    assert hosts_by_default(listening_on) == hosts


@pytest.mark.parametrize("host", ["daos.example", "DAOS.example:8000", "daos.example.", "[::1]:80", "[::1]"])
def test_an_allowed_name_passes_with_any_port(host: str) -> None:
    check(Gate(" Daos.Example , [::1]", ""), host=host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "daos.example.evil.example", "evil.daos.example", "user@", "[", "[::2]", ":80", "a b"]
)
def test_another_name_is_refused(host: str) -> None:
    with pytest.raises(ForeignHost):
        check(Gate("daos.example,[::1]", ""), host=host)


def test_a_request_without_a_name_is_refused() -> None:
    with pytest.raises(ForeignHost):
        check(Gate("daos.example", ""))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://daos.example", "daos.example"),
        ("https://daos.example", "daos.example:443"),
        ("http://daos.example:8000", "daos.example:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_the_own_origin_passes(origin: str, host: str) -> None:
    check(Gate(ANY, ""), host=host, origin=origin)


@pytest.mark.parametrize(
    "origin", ["null", "", "https://evil.example", "http://daos.example:81", "http://daos.example.evil", "daos.example"]
)
def test_another_origin_is_refused(origin: str) -> None:
    with pytest.raises(ForeignOrigin):
        check(Gate(ANY, "https://portal.example"), host="daos.example", origin=origin)


def test_a_program_sends_no_origin_and_passes() -> None:
    check(Gate(ANY, ""), host="daos.example")
    check(Gate(ANY, ""), host="daos.example", sec_fetch_site="none")


@pytest.mark.parametrize("origin", ["https://portal.example", "HTTPS://Portal.example", "https://portal.example:443"])
def test_an_allowed_origin_passes_from_anywhere(origin: str) -> None:
    gate = Gate(ANY, "https://Portal.example:443/, http://other.example")
    check(gate, host="daos.example", origin=origin, sec_fetch_site="cross-site")
