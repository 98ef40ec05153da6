from pathlib import Path

from tests.support.programs import link_programs


def test_a_name_that_two_directories_have_is_linked_once_even_where_its_target_is_missing(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for directory in (one, two):
        directory.mkdir()
        (directory / "X11").symlink_to("nowhere")
        (directory / "sh").touch()
        (directory / "docker-compose").touch()
    folder = link_programs(tmp_path / "bin", without="docker", directories=(one, two))
    assert {link.name: link.readlink() for link in folder.iterdir()} == {"X11": one / "X11", "sh": one / "sh"}
