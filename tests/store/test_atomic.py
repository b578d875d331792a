"""A write happens completely or not at all, and a failed one says which file, why and what to do."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from metavqa_cli.schema.errors import JobError
from metavqa_cli.store import atomic


def test_a_written_file_holds_exactly_the_data_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.json"
    atomic.write_json(path, {"question": "café?"})
    assert json.loads(path.read_text("utf-8")) == {"question": "café?"}
    atomic.write_bytes(path, b"\x00second")
    assert path.read_bytes() == b"\x00second"
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]


def test_the_temporary_file_is_a_neighbour_with_the_same_suffix(tmp_path: Path) -> None:
    with atomic.atomic_path(tmp_path / "picture.png") as temporary:
        temporary.write_bytes(b"x")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        assert not (tmp_path / "picture.png").exists()
    assert (tmp_path / "picture.png").read_bytes() == b"x"


@pytest.mark.parametrize("letter", ["x", "é", "画", "🎈", "\udcff"])
def test_the_longest_name_that_a_disk_takes_has_room_beside_it(tmp_path: Path, letter: str) -> None:
    size = len(os.fsencode(letter))
    name = "n" * ((255 - len(".json")) % size) + letter * ((255 - len(".json")) // size) + ".json"
    assert len(os.fsencode(name)) == 255
    atomic.write_json(tmp_path / name, {"path": letter})
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert json.loads((tmp_path / name).read_text("utf-8")) == {"path": letter}
    with pytest.raises(JobError, match=r"cannot write .*: the name is too long; choose a shorter one"):
        atomic.write_json(tmp_path / f"n{name}", {})


def test_an_error_in_the_body_keeps_the_old_file_and_removes_the_temporary(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "not permitted"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failing_disk_names_path_reason_and_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    path = tmp_path / "file"
    with pytest.raises(JobError, match=reason) as caught:
        atomic.write_text(path, "data")
    assert str(path) in str(caught.value)
    assert "choose" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_real_write_beyond_the_limit_is_explained(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from metavqa_cli.store import atomic; atomic.write_bytes(Path('big'), bytes(9000))"
    )
    limit = (4096, 4096)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[2])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        capture_output=True,
        text=True,
    )
    assert "JobError: cannot write big: the file is larger than the system allows" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_and_a_file_as_parent_are_explained(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    (tmp_path / "plain").write_text("")
    with pytest.raises(JobError, match="folder with that name is in the way"):
        atomic.write_text(tmp_path / "folder", "data")
    with pytest.raises(JobError, match="is a file, not a folder"):
        atomic.write_text(tmp_path / "plain" / "child", "data")


def test_an_error_about_another_file_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing-image"), atomic.atomic_path(tmp_path / "out"):
        Path("missing-image").read_bytes()


def test_a_device_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(JobError, match="is a device, not a file; choose another path"):
        atomic.write_text(pipe, "data")
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def old(path: Path) -> Path:
    """``path`` as somebody left it two days ago."""
    os.utime(path, (path.stat().st_mtime - 172_800,) * 2)
    return path


def test_a_write_removes_what_a_killed_one_of_the_same_file_left_days_ago(tmp_path: Path) -> None:
    names = [".tmp-00000001-a.json", ".tmp-00000002-a.json", ".tmp-00000003-b.json", "a.json", ".tmp-00000004-aa.json"]
    for name in names:
        (tmp_path / name).write_text("half")
    for name in names[1:]:
        old(tmp_path / name)
    atomic.write_json(tmp_path / "a.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*names} - {names[1]})


def test_a_sweep_takes_drafts_of_any_form_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "deep").mkdir(parents=True)
    (tmp_path / ".tmp-1").mkdir()
    (tmp_path / ".tmp-1" / "file").write_text("half")
    (tmp_path / ".tmp-2").symlink_to(kept)
    atomic.sweep(tmp_path)
    assert (tmp_path / ".tmp-1" / "file").is_file()  # somebody may be at it
    atomic.sweep(tmp_path, age=0)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and (kept / "deep").is_dir()
    atomic.sweep(tmp_path / "missing")
