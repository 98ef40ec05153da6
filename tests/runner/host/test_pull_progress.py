"""The lines of `docker compose pull` as Compose 2 and Compose 5 print them, and what is left for a log."""

from collections.abc import Iterable

import pytest

from runner.host.pull_progress import PullProgress

COMPOSE_2 = """\
 web Pulling 
 db Pulling 
 a260d03d79ca Pulling fs layer 
 5e36facb4e17 Pulling fs layer 
 5e36facb4e17 Waiting 
 a260d03d79ca Downloading [>                                                  ]   98.3kB/9.003MB
 a260d03d79ca Downloading [=========================>                         ]    4.5MB/9.003MB
 5e36facb4e17 Downloading [=====>                                             ]  294.9kB/2.501MB
 5e36facb4e17 Verifying Checksum 
 5e36facb4e17 Download complete 
 web Pulled 
 a260d03d79ca Extracting [==================================================>]  9.003MB/9.003MB
 a260d03d79ca Pull complete 
 5e36facb4e17 Pull complete 
 db Pulled 
"""  # noqa: W291 - Compose's own blanks
COMPOSE_5 = """\
 Image shop/web:1 Pulling 
 Image shop/db:1 Pulling 
 a260d03d79ca Pulling fs layer 0B
 5e36facb4e17 Pulling fs layer 0B
 5e36facb4e17 Waiting 0B
 a260d03d79ca Downloading 98.3kB
 a260d03d79ca Downloading 4.5MB
 5e36facb4e17 Downloading 294.9kB
 5e36facb4e17 Verifying Checksum 0B
 5e36facb4e17 Download complete 0B
 Image shop/web:1 Pulled 
 a260d03d79ca Extracting 9.003MB
 a260d03d79ca Pull complete 0B
 5e36facb4e17 Pull complete 0B
 Image shop/db:1 Pulled 
"""  # noqa: W291 - Compose's own blanks


def shown(progress: PullProgress, lines: Iterable[str], seconds: float) -> list[str]:
    """What reaches the log when a line comes every so many seconds."""
    fed = [progress.feed(line, 100.0 + seconds * index) for index, line in enumerate(lines)]
    return [line for line in fed if line is not None]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            COMPOSE_2,
            [
                " web Pulling ",
                " db Pulling ",
                "Pulling web, db: 0 of 2 layers, 98.3 kB",
                "Pulling web, db: 0 of 2 layers, 7 MB of 11.5 MB",
                " web Pulled ",
                "Pulling db: 0 of 2 layers, 11.5 MB of 11.5 MB",
                " db Pulled ",
            ],
        ),
        (
            COMPOSE_5,
            [
                " Image shop/web:1 Pulling ",
                " Image shop/db:1 Pulling ",
                "Pulling shop/web:1, shop/db:1: 0 of 2 layers, 98.3 kB",
                "Pulling shop/web:1, shop/db:1: 0 of 2 layers, 4.79 MB",
                " Image shop/web:1 Pulled ",
                "Pulling shop/db:1: 0 of 2 layers, 9.3 MB",
                " Image shop/db:1 Pulled ",
            ],
        ),
    ],
)
def test_the_lines_about_layers_become_a_line_in_a_while(words: str, expected: list[str]) -> None:
    lines = words.split("\n")[:-1]
    assert shown(PullProgress(), lines, seconds=0.4) == expected


@pytest.mark.parametrize("words", [COMPOSE_2, COMPOSE_5])
def test_a_short_pull_has_no_line_about_layers(words: str) -> None:
    lines = words.split("\n")[:-1]
    assert shown(PullProgress(), lines, seconds=0.01) == [
        line for line in lines if "Pulling \n" in f"{line}\n" or "Pulled" in line
    ]


def test_no_more_than_one_line_in_a_second() -> None:
    progress = PullProgress()
    lines = [f" a260d03d79ca Downloading [>   ]  {size}kB/900MB" for size in range(1, 1001)]
    assert len(shown(progress, lines, seconds=0.01)) in {9, 10}


def test_the_same_line_is_not_repeated() -> None:
    assert len(shown(PullProgress(), [" a260d03d79ca Waiting "] * 10, seconds=1.0)) == 1


@pytest.mark.parametrize("words", [COMPOSE_2, COMPOSE_5])
def test_the_fraction_grows_to_1(words: str) -> None:
    progress, fractions = PullProgress(), [0.0]
    for line in words.split("\n")[:-1]:
        progress.feed(line, 0.0)
        fractions.append(progress.fraction)
    assert fractions == sorted(fractions)
    assert len(set(fractions)) >= 6
    assert max(fractions[:-1]) < 1
    assert fractions[-1] == 1


def test_the_fraction_does_not_decrease_when_more_layers_become_known() -> None:
    progress = PullProgress()
    progress.feed(" a260d03d79ca Pull complete ", 0.0)
    before = progress.fraction
    progress.feed(" 5e36facb4e17 Pulling fs layer ", 0.1)
    assert progress.fraction == before


def test_a_failed_pull_is_not_done() -> None:
    progress = PullProgress()
    shown(progress, [" db Pulling ", " a260d03d79ca Waiting ", " db Error manifest unknown"], seconds=0.0)
    assert progress.fraction < 1


def test_only_the_first_images_are_named() -> None:
    progress = PullProgress()
    shown(progress, [f" s{number} Pulling " for number in range(5)], seconds=0.0)
    assert shown(progress, [" a260d03d79ca Waiting ", " 5e36facb4e17 Waiting "], seconds=1.0) == [
        "Pulling s0, s1, s2 and 2 more: 0 of 2 layers, 0 B"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        " Network shop_default  Created",
        "web | a260d03d79ca Waiting",
        'time="…" level=warning msg="x"',
        " db Error denied",
    ],
)
def test_every_other_line_is_unchanged(line: str) -> None:
    assert PullProgress().feed(line, 0.0) == line


def test_the_layers_of_a_host_that_invents_them_are_not_all_kept() -> None:
    progress = PullProgress()
    shown(progress, (f" {number:012x} Waiting " for number in range(10_001)), seconds=0.0)
    assert progress.feed(f" {0:012x} Waiting ", 200.0) == "Pulling images: 0 of 10000 layers, 0 B"
