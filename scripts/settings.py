"""Generates docs/settings.md from the settings: `python scripts/settings.py > docs/settings.md`."""

from dataclasses import fields

from daos.settings import Settings, variable_name

INTRODUCTION = """# Settings

Environment variables, also listed by `daos serve --help`. Numbers must be above 0; booleans are `true` or `false`.
At startup the server logs a warning for each variable that begins with `DAOS_` and is not listed here.

| variable | meaning | default |
| --- | --- | --- |"""


def main() -> None:
    print(INTRODUCTION)
    for setting in fields(Settings):
        print(f"| `{variable_name(setting.name)}` | {setting.metadata['what']} | {_shown(setting.default)} |")


def _shown(default: object) -> str:
    """Return a default for the table; empty if there is none."""
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return "" if text in {"********", ".", ""} else f"`{text}`"


if __name__ == "__main__":
    main()
