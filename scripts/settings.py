"""Prints docs/settings.md, from the settings themselves: `python scripts/settings.py > docs/settings.md`."""

from dataclasses import fields

from daos.settings import Settings, variable_name

INTRODUCTION = """# Settings

Environment variables; `daos serve --help` lists them too. Numbers must be above 0, switches are `true` or `false`.
A name that begins with `DAOS_` and is not here is reported at start.

| variable | what | default |
| --- | --- | --- |"""


def main() -> None:
    print(INTRODUCTION)
    for setting in fields(Settings):
        print(f"| `{variable_name(setting.name)}` | {setting.metadata['what']} | {_shown(setting.default)} |")


def _shown(default: object) -> str:
    """A default as the table has it: nothing for an empty one."""
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return "" if text in {"********", ".", ""} else f"`{text}`"


if __name__ == "__main__":
    main()
