"""One trial: a command is broken off, looked at, repeated, and compared with the same command left alone."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.faults.cases import Case, cases, newest
from tests.faults.checks import Contents, contents, drafts, hidden, torn
from tests.faults.client import ended
from tests.faults.disk import READING, Fault
from tests.faults.server import Ended

LISTINGS = (["runs", "ls", "--json"], ["dataset", "ls", "--json"])
KILLED = -9
LONG_AGO = 2 * 86400.0  # seconds; drafts that nobody touched for so long are nobody's


@dataclass(frozen=True)
class Undisturbed:
    """What a command does and leaves when nothing happens to it."""

    operations: list[list[str]]
    seconds: float
    contents: Contents
    hidden: set[str]

    def changes(self) -> list[str]:
        """The operations that change something, in order, each as ``kind path``."""
        return [f"{kind} {place}" for kind, place in self.operations if kind not in READING]

    def count(self, *kinds: str) -> int:
        """How many operations of these kinds there are."""
        return sum(kind in kinds for kind, _ in self.operations)

    def moments(self) -> list[int]:
        """The numbers of the operations worth a kill: of a row of images that are written, the first two and the last.

        What comes before and after each of the others differs.
        """
        chosen: list[int] = []
        numbered = enumerate(self.changes())
        for (_, image), group in groupby(numbered, lambda each: (each[1].rpartition("/")[0], ".png" in each[1])):
            numbers = [number for number, _ in group]
            chosen += [*numbers[:2], numbers[len(numbers) // 2], numbers[-1]] if image else numbers
        return sorted({*chosen})


@contextmanager
def started(case: Case) -> Iterator[Path]:
    """A folder in the state in which ``case`` starts, always the same: records hold its name. Removed at the end."""
    folder = _arena()
    try:
        case.start(folder / "root")
        yield folder / "root"
    finally:
        for path in folder.iterdir():
            shutil.rmtree(path, ignore_errors=True)  # when the test is interrupted, a child may still write there


@cache
def _arena() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="metavqa-fault-")).resolve()
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def undisturbed(name: str) -> Undisturbed:
    """What the case ``name`` leaves when it is left alone, and what it does on the way."""
    case = cases()[name]
    with started(case) as root:
        done = ended(root, case.command)
        assert done.codes == [0], f"{name}: {done.codes} {done.err}"
        assert not torn(root) and not drafts(root)
        return Undisturbed(done.operations, done.seconds, contents(root), _lasting(root))


def broken_off(case: Case, **how: Any) -> tuple[Ended, list[str]]:
    """Run ``case`` with a fault (``how`` as in ``server.Request``); how it ended, and what was lost by it."""
    wanted = undisturbed(case.name)  # before: there is one arena
    with started(case) as root:
        before = contents(root)
        first = ended(root, case.command, **how)
        losses = [f"half a file: {fault}" for fault in torn(root)]
        losses += _changed(before, contents(root), wanted.contents)
        if first.codes[:1] == [0]:  # what was said to be done is done
            losses += _differences(wanted.contents, contents(root))
        return first, [*losses, *repeated(case, root)]


def repeated(case: Case, root: Path) -> list[str]:
    """What is wrong with the workspace after the same command once more."""
    wanted = undisturbed(case.name)
    second = ended(root, *LISTINGS, case.command, watched=False)
    if second.codes[:2] != [0, 0] or second.codes[2:] not in [[code] for code in case.again]:
        return [f"the workspace, or the same command, ends with {second.codes}: {second.err[-500:]}"]
    losses = _differences(wanted.contents, contents(root))
    losses += [f"left over: {name}" for name in _swept(case, root)]
    return losses + [f"hidden and unforeseen: {name}" for name in _lasting(root) - wanted.hidden]


def _differences(wanted: Contents, found: Contents) -> list[str]:
    losses = [f"{name} is {'other' if name in found else 'missing'}" for name, digest in wanted.items()
              if found.get(name) != digest]  # fmt: skip
    return losses + [f"{name} is too much" for name in found if name not in wanted]


def _swept(case: Case, root: Path) -> list[str]:
    """Drafts that are still there when days later the command is given once more, and a run removed."""
    if not drafts(root):
        return []
    for path in root.rglob("*"):
        if not path.is_symlink():
            long_ago = path.stat().st_mtime - LONG_AGO
            os.utime(path, (long_ago, long_ago))
    removals = [["runs", "rm", name, "--force"] for name in newest(root)[-1:]]
    ended(root, [*case.command, *case.sweeper], *removals, watched=False)
    return drafts(root)


def _changed(before: Contents, after: Contents, wanted: Contents) -> list[str]:
    """What was there, was not to be changed or removed by the command, and is not as it was."""
    return [f"{name} was finished and is {'another' if name in after else 'gone'}" for name, digest in before.items()
            if wanted.get(name) == digest and after.get(name) != digest]  # fmt: skip


def _lasting(root: Path) -> set[str]:
    """Hidden files and folders, but locks and drafts."""
    return {name for name in hidden(root) if ".lock" not in name} - {*drafts(root)}


def moments_of(numbers: Sequence[int], count: int, offset: int = 0) -> list[int]:
    """``count`` of the numbers, evenly, the ``offset`` turning which."""
    if len(numbers) <= count:
        return list(numbers)
    return sorted({numbers[(k * len(numbers) // count + offset) % len(numbers)] for k in range(count)})


def kill(number: int, how: str = "kill") -> Fault:
    """SIGKILL before the operation ``number`` of those that change something."""
    return Fault(how, number)
