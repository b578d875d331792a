"""A lock is held by one process, says by whom, and dies with its holder."""

import errno
import json
import os
import socket
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


@pytest.mark.parametrize(
    ("seconds", "spoken"),
    [(0, "0 s"), (5, "5 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (10_805, "3 h 0 min"), (200_000, "2 d 7 h")],
)
def test_the_age_is_in_its_two_largest_units(seconds: float, spoken: str) -> None:
    owner = locks.Owner(pid=7, host="here", since=locks.time.time() - seconds, command="metavqa train ldm")
    assert str(owner) == f"process 7 on here (metavqa train ldm), for {spoken}"


def test_the_age_is_not_negative_when_the_clock_was_set_back() -> None:
    owner = locks.Owner(pid=7, host="here", since=locks.time.time() + 9999)
    assert owner.age == 0 and str(owner) == "process 7 on here, for 0 s"


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
    left = locks.read_owner(path)
    assert left is not None and left.pid == process.pid, "a killed process leaves its name behind"
    assert left.gone and not locks.is_held(path)
    with locks.hold(path, "it") as found:
        assert found == left, "who takes it over is told from whom"
        assert locks.is_held(path)
    with locks.hold(path, "it") as found:
        assert found is None, "once"


def test_a_lock_that_was_let_go_was_left_by_nobody(tmp_path: Path) -> None:
    for _ in range(2):
        with locks.hold(tmp_path / "run.lock", "it") as left:
            assert left is None


def test_a_dead_or_another_process_is_not_named_as_the_holder(tmp_path: Path) -> None:
    """Between taking a lock and saying so there is a moment in which the name beside it is the former holder's."""
    path = tmp_path / "run.lock"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with locks.hold(path, "run x"):
        mine = json.loads(locks.sidecar(path).read_text())
        for change in ({"pid": ended.pid}, {"pid": 2**40}, {"began": mine["began"] - 1}):
            locks.sidecar(path).write_text(json.dumps(mine | change))
            owner = locks.read_owner(path)
            assert owner is not None and owner.gone
            with pytest.raises(BusyError, match="run x is in use by another process; wait"), locks.hold(path, "run x"):
                pytest.fail("the lock was given twice")
        locks.sidecar(path).write_text(json.dumps(mine | {"host": "faraway", "pid": ended.pid}))
        with pytest.raises(BusyError, match=f"process {ended.pid} on faraway"), locks.hold(path, "run x"):
            pytest.fail("the lock was given twice")


def test_a_process_that_has_ended_but_was_not_waited_for_is_gone(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "print('there')"], stdout=subprocess.PIPE)
    assert ended.stdout is not None and ended.stdout.read() == b"there\n"
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert locks.Owner(ended.pid, socket.gethostname(), 0.0).gone
    ended.wait()
    ended.stdout.close()


def test_a_name_never_blocks_a_lock_that_nobody_holds(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with locks.hold(path, "it"):
        mine = locks.sidecar(path).read_bytes()
    for text in (mine, b"", b"[" * 10_000, b'{"pid": 1}', b"\xff"):
        locks.sidecar(path).write_bytes(text)
        assert not locks.is_held(path)
        with locks.hold(path, "it", patience=0):
            assert locks.is_held(path)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"pid": 1}', "{", "[" * 10_000, '{"pid": 0, "host": "a", "since": 1}',
        '{"pid": true, "host": "a", "since": 1}', '{"pid": 1, "host": 2, "since": 1}',
        '{"pid": 1, "host": "a", "since": NaN}', '{"pid": 1, "host": "a", "since": 1e999}',
        '{"pid": 1, "host": "a", "since": "1"}', '{"pid": 1, "host": "a", "since": 1' + "0" * 5000 + "}",
    ],
)  # fmt: skip
def test_an_unreadable_name_beside_the_lock_is_no_owner(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.lock.json").write_text(text)
    assert locks.read_owner(tmp_path / "run.lock") is None


def test_a_name_beside_the_lock_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    record = {"pid": 1, "host": "a\x1b[2Jb", "since": 1, "command": "x\n" * 999, "more": []}
    (tmp_path / "run.lock.json").write_text(json.dumps(record))
    owner = locks.read_owner(tmp_path / "run.lock")
    assert owner is not None and owner.host == "a?[2Jb" and owner.command.isprintable()
    assert len(owner.command) == locks.COMMAND_LENGTH


def test_a_full_disk_does_not_keep_a_lock_from_being_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_text", full)
    with locks.hold(tmp_path / "run.lock", "it"):
        assert locks.is_held(tmp_path / "run.lock") and locks.read_owner(tmp_path / "run.lock") is None
        with pytest.raises(BusyError, match="by another process"), locks.hold(tmp_path / "run.lock", "it"):
            pytest.fail("the lock was given twice")


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(JobError, match="cannot write"), locks.hold(tmp_path / "plain" / "run.lock", "it"):
        pytest.fail("a lock inside a file")


def test_where_locks_cannot_be_looked_at_the_living_owner_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refused(*how: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    path = tmp_path / "run.lock"
    with locks.hold(path, "run x"):
        monkeypatch.setattr(fcntl, "flock", refused)
        assert locks.is_held(path)
        locks.sidecar(path).write_text(json.dumps({"pid": 2**30, "host": socket.gethostname(), "since": 1.0}))
        assert not locks.is_held(path)
        monkeypatch.undo()


def test_a_file_system_without_locks_is_said_to_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def refused(*how: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    with (
        pytest.raises(JobError, match="its file system has no locks; choose another disk"),
        locks.hold(tmp_path / "run.lock", "run x"),
    ):
        pass
