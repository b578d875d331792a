"""A disk that refuses: every kind of operation fails once or for good. One sentence, no half file, and then it works.

Also with real refusals: a limit on file sizes (met by the writer of safetensors, which is not Python), a small file
system that is full, and folders that may not be written.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cases import Case, cases
from tests.faults.checks import torn
from tests.faults.client import ended
from tests.faults.disk import SPACE, Fault
from tests.faults.server import Ended
from tests.faults.trials import LISTINGS, broken_off, moments_of, repeated, started, undisturbed

CHANGES = ("create", "write", "close", "fsync", "rename", "mkdir", "chmod", "remove", "rmdir", "utime", "truncate")
KINDS = {  # name: (errno, kinds of operations that it meets, whether for good)
    "disk full": ("ENOSPC", tuple(sorted(SPACE - {"rename"})), True),
    "quota used up once": ("EDQUOT", ("write", "close"), False),
    "write fails": ("EIO", ("write",), False),
    "fsync fails": ("EIO", ("fsync",), False),
    "rename fails": ("EIO", ("rename",), False),
    "create is denied": ("EACCES", ("create",), False),
    "rename is denied": ("EPERM", ("rename",), False),
    "read-only file system": ("EROFS", CHANGES, True),
    "too many open files": ("EMFILE", ("create", "read", "open"), False),
    "read fails": ("EIO", ("read",), False),
}
IN_CI = {
    "config init": ("disk full", "rename fails"),
    "generate": ("write fails", "fsync fails"),
    "train multitask": ("disk full", "create is denied", "rename fails", "read-only file system"),
    "dataset build --source folder": ("disk full", "fsync fails", "too many open files", "read fails"),
    "runs rm": ("read-only file system",),
    "dataset rm": ("rename is denied",),
}
MAY_BE_ENDURED = ("fsync fails", "read fails", "too many open files")  # an index that is not kept, a lock's own retry
BUG = "this is a bug"


def refused(case: Case, kind: str, nth: int) -> tuple[Ended, list[str]]:
    """The case with one of ``KINDS`` at the ``nth`` operation that it meets, and what was wrong with the outcome."""
    name, kinds, lasting = KINDS[kind]
    done, losses = broken_off(case, fault=Fault(name, nth, kinds, lasting))
    return done, losses + _rudeness(done)


def _rudeness(done: Ended) -> list[str]:
    """What a person should not see: a traceback, silence, two errors, an exit code that is not documented."""
    said = [line for line in done.err.splitlines() if line.startswith("error: ")]
    if done.codes[0] not in (0, 1, 3, 4, 5):
        return [f"exit codes {done.codes}: {done.err[-300:]}"]
    if len(said) != (done.codes[0] != 0) or "Traceback" in done.err or BUG in done.err:
        return [f"exit code {done.codes[0]} with {said or done.err[-300:]}"]
    return []


def nths(case: Case, kind: str, count: int) -> list[int]:
    """Which of the operations fail: ``count``, evenly, from the first on."""
    return moments_of(range(undisturbed(case.name).count(*KINDS[kind][1])), count)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in IN_CI.items() for kind in kinds])
def test_a_refusal_is_one_sentence_and_the_next_time_it_works(name: str, kind: str) -> None:
    case = cases()[name]
    nth = nths(case, kind, 3)[-1 if kind != "read-only file system" else 0]
    done, losses = refused(case, kind, nth)
    assert not losses, (nth, done.operations[-3:], losses)
    assert done.codes == [1] or kind in MAY_BE_ENDURED, done


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", cases())
def test_every_refusal_of_the_disk(name: str, tally: "Counter[tuple[str, str, str]]") -> None:
    case, found = cases()[name], []
    for kind in KINDS:
        for nth in nths(case, kind, 2):
            done, losses = refused(case, kind, nth)
            tally[name, kind, "lost" if losses else "survived"] += 1
            if losses:
                found.append((kind, nth, done.operations[-3:], losses))
    assert not found, found


def test_a_file_that_the_system_does_not_allow_keeps_the_last_checkpoint() -> None:
    """The limit is met by safetensors' own writer, at the model, which comes after the checkpoints."""
    case = cases()["train multitask"]
    with started(case) as root:
        assert ended(root, case.command, delay=1e9, watched=False, largest=2000).codes == [1]
        done = ended(root, case.command, watched=False, largest=2000)
        assert not _rudeness(done) and "the file is larger than the system allows" in done.err, done.err
        assert not torn(root) and not repeated(case, root)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of six megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can only be mounted by a superuser (and not in every container)")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("left", [2_000, 12_000, 60_000])
def test_a_disk_that_is_really_full(small_disk: Path, left: int) -> None:
    case, root = cases()["train ldm"], small_disk / "root"
    case.start(root)
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(shutil.disk_usage(small_disk).free - left))
    done = ended(root, case.command, watched=False)
    assert done.codes == [1] and not _rudeness(done) and "the disk is full" in done.err, done
    assert not torn(root)
    filler.unlink()
    assert not repeated(case, root)


def test_a_folder_that_may_not_be_written_and_then_may() -> None:
    case = cases()["train multitask"]
    undisturbed(case.name)
    with started(case) as root:
        places = [root, *(path for path in root.rglob("*") if not path.is_symlink())]
        for path in places:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            done = ended(root, *LISTINGS, case.command, powerless=True, watched=False)
        finally:
            for path in places:
                path.chmod(0o755 if path.is_dir() else 0o644)
        assert done.codes == [0, 0, 1] and not _rudeness(Ended(done.codes[2:], done.out, done.err, [], 0)), done
        assert "permission denied; choose a writable folder" in done.err
        assert not repeated(case, root)
