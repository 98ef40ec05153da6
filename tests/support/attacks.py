"""Strings that have broken other servers.  Each has to be refused, or stored and given back as it is."""

TEMPLATES = (
    "{{ 7*191 }}",
    "{{ lookup('pipe','id') }}",
    "{% for x in range(9) %}x{% endfor %}",
    "!!python/object/apply:os.system ['id']",
    "$(id)",
    "`id`",
    "${HOME}",
    "; id",
    "-oProxyCommand=id",
    "ext::sh -c id",
    "%_%",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
)
PATHS = ("../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "a/../../b", "..", "a/..", "C:\\Windows", "~/x")
UNPRINTABLE = (
    "a\0b",
    "a\ud800b",
    "a\udfffb",
    "a\x07b",
    "a\x1b[31mb",
    "a\x7fb",
    "a\x9bb",
    "a\u202eb",
    "a\u2066b",
    "a\u200bb",
    "a\ufeffb",
    "a\r\nb",
    "a\nb",
    "a\tb",
    "a\u2028b",
    "a\u2029b",
    "a\U000e0041b",
)
UNSTORABLE = UNPRINTABLE[:3]
LONG = "x" * 100_000
UNKNOWN = ("01900000-0000-7000-8000-000000000000", "no id", "", "a\0b", "\ud800", LONG, *TEMPLATES, *PATHS)  # as ids


def short(value: object) -> str:
    """A test's id for any of them."""
    return ascii(value)[:40]
