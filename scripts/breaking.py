"""Finds what in the schema breaks clients of the last release, the newest tag `v…` behind the present commit.

A break is let through when it is announced: when its line stands, word for word, in the changelog's unreleased part.
"""

import subprocess
import sys
from pathlib import Path

from graphql import GraphQLSchema, build_schema, find_breaking_changes

SCHEMA = "schema/schema.graphql"
CHANGELOG = "CHANGELOG.md"


def main() -> int:
    """0 where all breaks are announced, or nothing is released; 1 where one is not."""
    release = last_release()
    if release is None:
        print("no release behind this commit, so no client to break")
        return 0
    announced = unreleased(Path(CHANGELOG).read_text())
    breaks = breaking(build_schema(git("show", f"{release}:{SCHEMA}")), build_schema(Path(SCHEMA).read_text()))
    missing = [line for line in breaks if line not in announced]
    for line in breaks:
        print(f"{line}{'' if line in missing else '  (announced)'}")
    if missing:
        print(f"This breaks clients of {release}: undo it, or announce it in the unreleased part of {CHANGELOG}.")
    return 1 if missing else 0


def breaking(old: GraphQLSchema, new: GraphQLSchema) -> list[str]:
    """What clients of `old` may trip over in `new`, a sentence each."""
    return [change.description for change in find_breaking_changes(old, new)]


def unreleased(changelog: str) -> str:
    """The part of the changelog that no release has yet: its first section."""
    return changelog.partition("\n## ")[2].partition("\n## ")[0]


def last_release() -> str | None:
    """The tag of the last release, None where there is none; a clone without history knows none."""
    tags = git("tag", "--list", "v[0-9]*", "--merged", "HEAD", "--sort=-version:refname").split()
    return tags[0] if tags else None


def git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
