"""The curves that a run's log holds, followed while it grows, in memory that a long log does not exceed. No screen."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from metavqa_cli.schema.events import Event, RunStarted, StepLogged, ValidationMeasured
from metavqa_cli.store.runs import Run
from metavqa_cli.tui.series import MOST_KEPT, Series, thin
from metavqa_cli.tui.tail import Tail

SLICE_BYTES = 1 << 16  # of a log at a time: about 400 steps, 6 ms
SIFTED_BYTES = 32 << 20  # of a longer log not every step is drawn
STEP_LINE = b'{"event": "StepLogged"'


class Curves:
    """Everything that one run measured while training, as named series; validation metrics begin ``validation.``

    The series grow in place (a copy of each at every poll would cost more than the polling), so they are to be read in
    the thread that polls.
    """

    def __init__(self, most: int | None = MOST_KEPT) -> None:
        self.series: dict[str, Series] = {}
        self.most = most
        """Points kept of a metric: of a longer series the lows and highs are. None keeps all."""
        self.version = 0
        """Rises with every change: a plot drawn at this version is up to date."""
        self.cuts = 0
        """Rises when points are taken back or left out: until then series only grow at their ends."""

    def absorb(self, events: Iterable[Event]) -> None:
        """Add the points of ``events``. A run that went on from step n repeats what came after n: that is dropped."""
        for event in events:
            if isinstance(event, StepLogged):
                self._add(event.step, event.metrics, "")
            elif isinstance(event, ValidationMeasured):
                self._add(event.step, event.metrics, "validation.")
            elif isinstance(event, RunStarted):
                self._go_back_to(event.resumed_at)

    def _add(self, step: int, metrics: Mapping[str, float], prefix: str) -> None:
        for name, value in metrics.items():
            label = prefix + name
            curve = self.series.get(label)
            if curve is None:
                curve = self.series[label] = Series(label)
            steps = curve.steps
            if steps and steps[-1] >= step:  # logged before a resume: what comes later holds
                _cut(curve, bisect_left(steps, step))
                self.cuts += 1
            steps.append(step)
            curve.values.append(value)
            if self.most is not None and len(steps) > self.most:
                thin(curve)
                self.cuts += 1
        self.version += 1

    def _go_back_to(self, step: int) -> None:
        for curve in self.series.values():
            _cut(curve, bisect_right(curve.steps, step))
        self.version += 1
        self.cuts += 1

    def clear(self) -> None:
        """Forget everything (the log was replaced)."""
        self.series.clear()
        self.version += 1
        self.cuts += 1


class Follower:
    """The curves of one run's log, kept up to date, in bounded memory unless ``whole``.

    Of a log that is longer than ``SIFTED_BYTES`` when it is opened, only every ``stride``-th step is taken, so that a
    year of steps is there in seconds; of validations every one. What is logged from then on is taken whole.
    """

    def __init__(self, run: Path, whole: bool = False) -> None:
        self.tail = Tail(Run(run).events_path)
        self.whole = whole
        self.curves = Curves(most=None if whole else MOST_KEPT)
        self.stride = 1
        self._sifted_until = self._passed = 0

    def poll(self) -> bool:
        """Read the next slice of what is new; whether the curves changed. ``tail.behind`` says that there is more."""
        if not self.tail.offset:
            self._plan()
        before, restarts = self.curves.version, self.tail.restarts
        lines = self.tail.lines(SLICE_BYTES * self.stride)
        if self.tail.restarts != restarts:
            self.curves.clear()
            self._sifted_until = 0
        self.curves.absorb(self.tail.events(self._sifted(lines)))
        return self.curves.version != before

    def _plan(self) -> None:
        """How much of a log that nothing was read of yet is taken."""
        size = 0
        with suppress(OSError):
            size = self.tail.path.stat().st_size
        self.stride = 1 if self.whole else 1 + size // SIFTED_BYTES
        self._sifted_until = size if self.stride > 1 else 0

    def _sifted(self, lines: list[bytes]) -> Iterable[bytes]:
        if self.stride == 1 or self.tail.offset > self._sifted_until:
            return lines
        return (line for line in lines if not line.startswith(STEP_LINE) or self._is_taken())

    def _is_taken(self) -> bool:
        self._passed += 1
        return self._passed % self.stride == 0


def _cut(curve: Series, length: int) -> None:
    del curve.steps[length:], curve.values[length:]
