"""The curves of the shown runs: their logs are followed slice by slice, and reduced to what a picture needs."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from metavqa_cli.schema.errors import MetaVQAError
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
    seed_group,
)
from metavqa_cli.tui.feed import Follower
from metavqa_cli.tui.series import Series, Smoother, extent

SLICE_BYTES = 1 << 16  # of a log at a time: about 400 steps, 6 ms
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


class CurveBook:
    """Follows the logs of some runs, and makes pictures of what they hold. To be used by one thread."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._followed: dict[str, _Followed] = {}
        self._turns: deque[_Followed] = deque()
        self._frozen: dict[str, dict[str, int]] | None = None  # while paused: how many points of each curve are shown

    def follow(self, runs: tuple[str, ...]) -> None:
        """From now on these runs and no others."""
        if runs != tuple(self._followed):
            folder = self.workspace.runs_dir
            self._followed = {run: self._followed.get(run) or _Followed(Run(folder / run)) for run in runs}
            self._turns = deque(self._followed.values())

    def read(self, limit: int | None = SLICE_BYTES, enough: Callable[[], bool] = lambda: False) -> bool:
        """Read the next ``limit`` bytes of each log, or of some until it is ``enough``; whether anything changed."""
        changed = False
        for _ in range(len(self._turns)):
            changed |= self._turns[0].read(limit)
            self._turns.rotate(-1)
            if enough():
                break
        return changed

    @property
    def behind(self) -> bool:
        """Whether a log has more to read at once."""
        return any(followed.behind for followed in self._followed.values())

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
        groups = self._groups(wish.spread)
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
            wish.number, names, charts, wish.logs, lines, window, self._waiting(), self.behind, troubles
        )

    def _chart(
        self, name: str, readings: Mapping[tuple[str, ...], dict[str, Reading]], shown: Shown, drawing: Drawing,
        wish: Wish,
    ) -> ChartData:  # fmt: skip
        """One chart; what its lines say at the cursor goes into ``readings``."""
        found: list[Reduced] = []
        for number, (group, said) in enumerate(readings.items()):
            raw = [shown[run][name] for run in group if name in shown[run]]
            smooth = [
                self._followed[run].smoothed(shown[run][name], wish.weight) for run in group if name in shown[run]
            ]
            if len(group) > 1 and raw:
                found.append(reduced_band(number, smooth, drawing))
                read = band_reading(smooth, drawing, wish.cursor)
            elif raw:
                found.append(reduced(number, smooth[0], drawing))
                read = reading(raw[0], smooth[0], wish.cursor)
            if raw and read is not None:
                said[name] = read
        return ChartData(tuple(one.curve for one in found), sum(one.dropped for one in found))

    def _groups(self, spread: Spread | None) -> list[tuple[str, ...]]:
        """The runs of each line, in the order of the wish."""
        groups: dict[str, tuple[str, ...]] = {}
        for run, followed in self._followed.items():
            key = followed.group() if spread else run
            groups[key] = (*groups.get(key, ()), run)
        return list(groups.values())

    def _name(self, group: tuple[str, ...]) -> str:
        if len(group) == 1:
            return group[0]
        seeds = [str(self._followed[run].seed) for run in group]
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


class _Followed:
    """One run that is followed: its curves, their averages as far as they were asked for, and what is wrong with it."""

    def __init__(self, run: Run) -> None:
        self.run, self.follower = run, Follower(run.path)
        self.troubles: tuple[str, ...] = ()
        self.what, self.seed = run.id, None
        self._smoothers: dict[str, Smoother] = {}
        self._group: str | None = None
        self._apart = ""

    @property
    def behind(self) -> bool:
        return self.follower.tail.behind

    def read(self, limit: int | None) -> bool:
        """Read on; whether curves or troubles changed."""
        cuts, before = self.follower.curves.cuts, self.troubles
        changed = self.follower.poll(limit)
        if self.follower.curves.cuts != cuts:
            self._smoothers.clear()
        self.troubles = tuple(self._look())
        return changed or self.troubles != before

    def series(self, lengths: Mapping[str, int] | None) -> dict[str, Series]:
        """The curves that have points; with ``lengths``, what they were when they had so many points."""
        curves = {name: curve for name, curve in self.follower.curves.series.items() if len(curve)}
        if lengths is None:
            return curves
        return {
            name: Series(name, curve.steps[: lengths[name]], curve.values[: lengths[name]])
            for name, curve in curves.items() if lengths.get(name)
        }  # fmt: skip

    def lengths(self) -> dict[str, int]:
        return {name: len(curve) for name, curve in self.follower.curves.series.items()}

    def smoothed(self, series: Series, weight: float) -> Series:
        """The averages of a curve: only those of new points are worked out."""
        if weight == 0:
            return series
        smoother = self._smoothers.get(series.name)
        if smoother is None or smoother.weight != weight:
            smoother = self._smoothers[series.name] = Smoother(weight)
        smoother.extend(series.values[len(smoother.values) :])
        return replace(series, values=smoother.values[: len(series)])

    def group(self) -> str:
        """What it has in common with runs that differ only in their seed; its own id if that cannot be read."""
        if self._group is None:
            self._group = self.run.id
            try:
                manifest, config = self.run.manifest(), self.run.config()
                kind, variant = str(manifest["kind"]), manifest.get("variant")
                self.what, self.seed = f"{kind} {variant or ''}".strip(), config.get("seed")
                self._group = seed_group(kind, variant, manifest["dataset"], config)
            except (MetaVQAError, OSError) as error:
                self._apart = f"run {self.run.id} is shown apart from other seeds: {error}"
        return self._group

    def _look(self) -> list[str]:
        """Sentences on what is wrong, none if nothing is."""
        run, tail = self.run.id, self.follower.tail
        said = [self._apart, tail.trouble or ""]
        if not self.run.path.is_dir():
            known = "it was removed; its curves are as they were last read" if tail.stamp else "there is no such run"
            said.append(f"run {run}: {known}")
        elif tail.stamp and not tail.path.exists():
            said.append(f"run {run}: its log is gone; its curves are as they were last read")
        if tail.restarts:
            said.append(f"run {run}: its log was replaced or cut short, and was read again from the start")
        if tail.damaged:
            lines = "1 damaged line was" if tail.damaged == 1 else f"{tail.damaged} damaged lines were"
            said.append(f"run {run}: {lines} left out of its log")
        return [sentence for sentence in said if sentence]


def _last_step(curves: Iterable[Mapping[str, Series]]) -> float | None:
    return max((series.steps[-1] for named in curves for series in named.values()), default=None)
