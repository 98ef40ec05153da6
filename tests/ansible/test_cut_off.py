"""A run that was cut off while it moved its files: the next one moves and deletes what that one did not come to."""

import os
from pathlib import Path

from db.phase import Phase
from runner.spec.run import ProjectFile
from tests.support.machine import Machine, service

WEB = {"web": service("sleep", "1000")}
UP = (Phase.PREPARE, Phase.BUILD, Phase.PULL, Phase.UP)


def test_the_next_run_moves_and_deletes_what_this_one_did_not_come_to(local: Machine, tmp_path: Path) -> None:
    local.begin(WEB, {"start": ProjectFile(b"x"), "gone": "x"})
    assert not local.run_phases(*UP)[-1].failed
    broken = tmp_path / "rm"
    broken.write_text('#!/bin/sh\ncase "$*" in *gone*) exit 1 ;; esac\nexec /bin/rm "$@"\n')
    broken.chmod(0o755)
    local.begin(WEB, {"start": ProjectFile(b"x", mode=0o755)})
    cut_off = local.run_phases(*UP, environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert cut_off[-1].failed
    assert (local.files / "gone").exists()
    local.begin(WEB, {"start": ProjectFile(b"x", mode=0o755)})
    assert not local.run_phases(*UP)[-1].failed
    assert (local.files / "start").stat().st_mode & 0o777 == 0o755
    assert not (local.files / "gone").exists()
    assert [(local.state / name).read_bytes() for name in ("move", "delete")] == [b"", b""]
