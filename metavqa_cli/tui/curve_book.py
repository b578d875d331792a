"""The curves of the shown runs: their logs are followed slice by slice, and reduced to what a picture needs."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.axes import Window
from metavqa_cli.tui.chart import Curve
from metavqa_cli.tui.curve_data import (
    Drawing,
    Reading,
    Reduced,
    Spread,
    band_reading,
    ordered,
    reading,
    reduced,
    reduced_band,
)
from metavqa_cli.tui.followed import FollowedRun, one_of_each_seed
from metavqa_cli.tui.series import Series, extent

FIRST_CHARTS = 6  # that are drawn before it is known which are in sight

Shown = Mapping[str, Mapping[str, Series]]  # run, metric


@dataclass(frozen=True)
class Wish:
    """What the room wants to show. ``metrics``: the charts in sight (None: the first ones); ``window``: the steps in
    sight (None: all); ``logs``: the metrics on a log axis; ``paused``: as it was when that began."""

    number: int = 0
    runs: tuple[str, ...] = ()
    metrics: tuple[str, ...] | None = None
    columns: int = 120
    window: Window | None = None
    logs: frozenset[str] = frozenset()
    weight: float = 0.0
    spread: Spread | None = None
    cursor: float | None = None
    paused: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the charts: a run, or several that differ only in their seed. ``step``: the last one measured;
    ``readings``: what it says at the cursor, by metric."""

    number: int
    runs: tuple[str, ...]
    name: str
    step: float | None
    readings: Mapping[str, Reading]


@dataclass(frozen=True)
class ChartData:
    """The curves of one chart, and how many points in sight could not be drawn."""

    curves: tuple[Curve, ...]
    dropped: int


@dataclass(frozen=True)
class CurvesPicture:
    """What is known at one moment, drawn as the wish of this ``number`` asked."""

    number: int = 0
    names: tuple[str, ...] = ()
    """All metrics that the runs have, in the order of their charts."""
    charts: Mapping[str, ChartData] = field(default_factory=dict)
    logs: frozenset[str] = frozenset()
    """The metrics whose values are drawn as exponents of ten."""
    lines: tuple[Line, ...] = ()
    window: Window | None = None
    waiting: int = 0
    """Points that came since the pause began."""
    behind: bool = False
    """Whether there is more to read at once."""
    troubles: tuple[str, ...] = ()
    """What is wrong now."""
    notes: tuple[str, ...] = ()
    """What else there is to say of the lines, for as long as they are shown."""


class CurveBook:
    """Follows the logs of some runs, and makes pictures of what they hold. To be used by one thread.

    ``whole`` keeps every point, whatever memory that takes (``Follower``).
    """

    def __init__(self, workspace: Workspace, whole: bool = False) -> None:
        self.workspace, self.whole = workspace, whole
        self._followed: dict[str, FollowedRun] = {}
        self._turns: deque[FollowedRun] = deque()
        self._known: dict[tuple[int, str, bool], tuple[object, Reduced]] = {}
        self._frozen: dict[str, dict[str, int]] | None = None  # while paused: how many points of each curve are shown

    def follow(self, runs: tuple[str, ...]) -> None:
        """From now on these runs and no others."""
        if runs != tuple(self._followed):
            folder = self.workspace.runs_dir
            self._followed = {
                run: self._followed.get(run) or FollowedRun(Run(folder / run), self.whole) for run in runs
            }
            self._turns = deque(self._followed.values())
            self._known.clear()

    def read(self, enough: Callable[[], bool] = lambda: False) -> bool:
        """Read the next slice of each log, or of some until it is ``enough``; whether anything changed."""
        changed = False
        for _ in range(len(self._turns)):
            changed |= self._turns[0].read()
            self._turns.rotate(-1)
            if enough():
                break
        return changed

    @property
    def behind(self) -> bool:
        """Whether a log has more to read at once."""
        return any(followed.behind for followed in self._followed.values())

    def curve(self, run: str, metric: str, weight: float) -> Series | None:
        """All of one curve, smoothed; None if the run has not measured that."""
        followed = self._followed[run]
        found = followed.series(None).get(metric)
        return None if found is None else followed.smoothed(found, weight)

    def picture(self, wish: Wish) -> CurvesPicture:
        """What the wish asks for, of what was read."""
        self._freeze(wish.paused)
        shown = {
            run: followed.series(None if self._frozen is None else self._frozen.get(run, {}))
            for run, followed in self._followed.items()
        }
        names = ordered(name for series in shown.values() for name in series)
        ends = extent(curve for series in shown.values() for curve in series.values())
        window = None if ends is None else (wish.window.grown(*ends) if wish.window else Window.over(*ends))
        charts: dict[str, ChartData] = {}
        groups, notes = self._groups(wish.spread)
        readings: dict[tuple[str, ...], dict[str, Reading]] = {group: {} for group in groups}
        for name in names[:FIRST_CHARTS] if wish.metrics is None else wish.metrics:
            if name in names and window is not None:
                drawing = Drawing(wish.columns, window.start, window.stop, name in wish.logs, wish.spread)
                charts[name] = self._chart(name, readings, shown, drawing, wish)
        lines = tuple(
            Line(number, group, self._name(group), _last_step(shown[run] for run in group), readings[group])
            for number, group in enumerate(groups)
        )
        troubles = tuple(said for followed in self._followed.values() for said in followed.troubles)
        return CurvesPicture(
            wish.number, names, charts, wish.logs, lines, window, self._waiting(), self.behind, troubles, notes
        )

    def _chart(
        self, name: str, readings: Mapping[tuple[str, ...], dict[str, Reading]], shown: Shown, drawing: Drawing,
        wish: Wish,
    ) -> ChartData:  # fmt: skip
        """One chart; what its lines say at the cursor goes into ``readings``."""
        found: list[Reduced] = []
        for number, (group, said) in enumerate(readings.items()):
            raw = {run: shown[run][name] for run in group if name in shown[run]}
            if not raw:
                continue
            found.append(self._reduced(number, raw, drawing, wish.weight))
            if len(raw) > 1:
                band = self._reduced(number, raw, replace(drawing, log=False), wish.weight)
                read = band_reading(band.curve, wish.cursor, drawing)
            else:
                ((run, series),) = raw.items()
                read = reading(series, self._followed[run].smoothed(series, wish.weight), wish.cursor, drawing)
            if read is not None:
                said[name] = read
        return ChartData(tuple(one.curve for one in found), sum(one.dropped for one in found))

    def _reduced(self, number: int, raw: Mapping[str, Series], drawing: Drawing, weight: float) -> Reduced:
        """What is drawn of a line. What has not changed is not worked out again: four long runs take 0.25 s."""
        name = next(iter(raw.values())).name
        place, cuts = (number, name, drawing.log), [self._followed[run].follower.curves.cuts for run in raw]
        key = (tuple(raw), [*map(len, raw.values())], cuts, drawing, weight)
        known = self._known.get(place)
        if known is None or known[0] != key:
            smooth = [self._followed[run].smoothed(series, weight) for run, series in raw.items()]
            made = reduced_band(number, smooth, drawing) if len(smooth) > 1 else reduced(number, smooth[0], drawing)
            known = self._known[place] = (key, made)
        return known[1]

    def _groups(self, spread: Spread | None) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """The runs of each line, in the order of the wish, and what there is to say of them."""
        groups: dict[str, list[FollowedRun]] = {}
        for run, followed in self._followed.items():
            groups.setdefault(followed.group() if spread else run, []).append(followed)
        lines, notes = [], [said for followed in self._followed.values() for said in followed.notes]
        for group in groups.values():
            kept, left_out = one_of_each_seed(group) if spread else (group, [])
            lines.append(tuple(followed.run.id for followed in kept))
            notes += [followed.apart for followed in group if spread and followed.apart] + left_out
        return lines, tuple(notes)

    def _name(self, group: tuple[str, ...]) -> str:
        if len(group) == 1:
            return group[0]
        seeds = sorted((self._followed[run].seed for run in group), key=lambda seed: (len(seed), seed))
        return f"{self._followed[group[0]].what}, seeds {', '.join(seeds)}"

    def _freeze(self, paused: bool) -> None:
        if not paused:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = {run: followed.lengths() for run, followed in self._followed.items()}

    def _waiting(self) -> int:
        frozen = self._frozen or {}
        return sum(
            max(0, length - frozen[run].get(name, 0))
            for run, followed in self._followed.items() if run in frozen
            for name, length in followed.lengths().items()
        )  # fmt: skip


def _last_step(curves: Iterable[Mapping[str, Series]]) -> float | None:
    return max((series.steps[-1] for named in curves for series in named.values()), default=None)
