"""A lock is held by one process, says by whom, and dies with its holder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metavqa_cli.schema.errors import BusyError, JobError
from metavqa_cli.store import locks

HOLDER = """
import sys
from pathlib import Path
from metavqa_cli.store import locks
with locks.hold(Path(sys.argv[1]), "the thing"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_held_lock_is_seen_and_released(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    assert not locks.is_held(path)
    with locks.hold(path, "run x"):
        assert locks.is_held(path)
        owner = locks.read_owner(path)
        assert owner is not None and owner.pid == os.getpid()
    assert not locks.is_held(path)
    assert locks.read_owner(path) is None


def test_a_second_holder_is_told_what_is_busy_who_has_it_and_since_when(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with (
        locks.hold(path, "run x"),
        pytest.raises(BusyError, match=rf"run x is in use by process {os.getpid()} on .*, for \d+ s; wait"),
        locks.hold(path, "run x"),
    ):
        pytest.fail("the lock was given twice")


def test_the_age_is_in_minutes_when_it_is_long() -> None:
    owner = locks.Owner(pid=7, host="here", since=locks.time.time() - 125)
    assert str(owner) == "process 7 on here, for 2 min 5 s"


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    environment = {**os.environ, "PYTHONPATH": str(Path(locks.__file__).parents[2])}
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert locks.is_held(path)
        with pytest.raises(BusyError, match=f"process {process.pid}"), locks.hold(path, "it"):
            pytest.fail("the lock was given twice")
        process.kill()
        process.wait()
    assert locks.read_owner(path) is not None, "a killed process leaves its name behind"
    assert not locks.is_held(path)
    with locks.hold(path, "it"):
        assert locks.is_held(path)


def test_an_unreadable_name_beside_the_lock_is_no_owner(tmp_path: Path) -> None:
    for text in ("", "[]", '{"pid": 1}', "{"):
        (tmp_path / "run.lock.json").write_text(text)
        assert locks.read_owner(tmp_path / "run.lock") is None


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(JobError, match="cannot write"), locks.hold(tmp_path / "plain" / "run.lock", "it"):
        pytest.fail("a lock inside a file")
