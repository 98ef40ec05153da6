"""Finds schema changes that break clients of the last release, the newest tag `v…` behind the current commit.

A breaking change is accepted if it is announced: if its line appears verbatim in the changelog's unreleased section.
"""

import subprocess
import sys
from pathlib import Path

from graphql import GraphQLSchema, build_schema, find_breaking_changes

SCHEMA = "schema/schema.graphql"
CHANGELOG = "CHANGELOG.md"


def main() -> int:
    """Return 0 if all breaking changes are announced or nothing is released, otherwise 1."""
    release = last_release()
    if release is None:
        print("no release before this commit, so no clients to break")
        return 0
    announced = unreleased(Path(CHANGELOG).read_text())
    breaks = breaking(build_schema(git("show", f"{release}:{SCHEMA}")), build_schema(Path(SCHEMA).read_text()))
    missing = [line for line in breaks if line not in announced]
    for line in breaks:
        print(f"{line}{'' if line in missing else '  (announced)'}")
    if missing:
        print(f"This breaks clients of {release}: undo it, or announce it in the unreleased section of {CHANGELOG}.")
    return 1 if missing else 0


def breaking(old: GraphQLSchema, new: GraphQLSchema) -> list[str]:
    """Return the changes in `new` that can break clients of `old`, one sentence each."""
    return [change.description for change in find_breaking_changes(old, new)]


def unreleased(changelog: str) -> str:
    """Return the unreleased section of the changelog, its first one."""
    return changelog.partition("\n## ")[2].partition("\n## ")[0]


def last_release() -> str | None:
    """Return the tag of the last release, None if there is none; a shallow clone has none."""
    tags = git("tag", "--list", "v[0-9]*", "--merged", "HEAD", "--sort=-version:refname").split()
    return tags[0] if tags else None


def git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
