"""What a process holds at one moment, and how fast that grows."""

import gc
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """What a process held after so many ``steps`` (or questions, or polls)."""

    steps: int
    rss: int
    """Resident memory in bytes."""
    blocks: int
    """Memory blocks of Python's allocator; one more for each float, two or more for each tensor that is kept."""
    files: int
    threads: int


@dataclass(frozen=True)
class Slope:
    """Growth in a thousand steps: the median of the slopes between all pairs of samples (Theil and Sen), which a few
    jumps of the allocator do not move, with its 95 % interval."""

    per_thousand: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.per_thousand:+,.0f} [{self.low:+,.0f}, {self.high:+,.0f}]"


class Meter:
    """Samples of this process, kept as plain numbers so that taking them leaves no trace in what is measured."""

    def __init__(self) -> None:
        self._numbers = array("q")

    def take(self, steps: int) -> None:
        """What the process holds now, without what is only waiting to be collected."""
        gc.collect()
        self._numbers.extend((steps, resident("self"), sys.getallocatedblocks(), *handles("self")))

    @property
    def samples(self) -> list[Sample]:
        """Those taken, in order."""
        rows = zip(*[iter(self._numbers)] * 5, strict=True)
        return [Sample(*row) for row in rows]


@contextmanager
def settled() -> Iterator[None]:
    """What is there when the body begins is not looked through by every collection: a hundred times as fast."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def resident(process: int | str) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


def peak_mb() -> float:
    """The most memory that this process has had resident, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def handles(process: int | str) -> tuple[int, int]:
    """How many files a process has open, and how many threads it has."""
    files, threads = (len([*Path(f"/proc/{process}/{kind}").iterdir()]) for kind in ("fd", "task"))
    return files, threads


def slope(samples: Sequence[Sample], what: str) -> Slope:
    """How fast the field ``what`` of the samples grows."""
    from scipy.stats import theilslopes

    values = [getattr(one, what) for one in samples]
    found, _, low, high = theilslopes(values, [one.steps / 1000 for one in samples])
    return Slope(float(found), float(low), float(high))


def after(samples: Sequence[Sample], steps: int) -> list[Sample]:
    """Those taken after the warm-up of so many steps."""
    return [one for one in samples if one.steps >= steps]


def risen(samples: Sequence[Sample], what: str) -> int:
    """How much higher the field ``what`` is at the end than it was at the beginning: medians of a fifth each, so that
    one moment of the allocator does not count."""
    fifth = max(1, len(samples) // 5)
    first, last = (sorted(getattr(one, what) for one in part) for part in (samples[:fifth], samples[-fifth:]))
    return last[len(last) // 2] - first[len(first) // 2]
