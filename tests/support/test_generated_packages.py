"""What pairs of packages there are."""

from collections import Counter

from tests.support.generated_packages import CHANGES, Pair, generate

PAIRS = [generate(seed) for seed in range(200)]


def test_a_seed_is_a_pair() -> None:
    assert generate(7) == generate(7) != generate(8)


def test_each_change_comes_up_and_makes_a_difference() -> None:
    assert Counter(change for pair in PAIRS for change in pair.changes).keys() == CHANGES.keys()
    assert [pair for pair in PAIRS if pair.first == pair.second] == []


def features(pair: Pair) -> set[str]:
    """What a pair has of all that there is."""
    found = set()
    for service in pair.second.services.values():
        values: dict[str, object] = {"configs": service.configs, "secrets": service.secrets, "mounts": service.mounts}
        values |= {"build": service.context, "inline": service.context and service.inline, "env_file": service.env_file}
        values |= {"profile": service.profile, "scale": service.scale > 1, "include": service.place != "compose.yaml"}
        values |= {"argument": service.context and service.argument != "none"}
        values |= {"health": service.health, "depends_on": service.after}
        found |= {name for name, value in values.items() if value}
    return found | ({"override"} if pair.second.override is not None else set())


def test_all_that_a_package_can_have_comes_up() -> None:
    all_features = {"configs", "secrets", "mounts", "build", "inline", "env_file", "profile", "scale", "include"}
    assert set().union(*map(features, PAIRS)) == all_features | {"health", "depends_on", "override", "argument"}
