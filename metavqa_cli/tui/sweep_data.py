"""What the room γ sweep shows of a sweep, as pure functions: curves to be drawn, and what they say at one γ."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.plot import ASCII_MARKS, MARKS, RULE, STAR, Level, Series, plot
from metavqa_cli.tui.sweep_tasks import count

if TYPE_CHECKING:
    from metavqa_cli.engine.curves import Curve, Point, Reference, Sweep

BandName = Literal["seeds", "tasks", "none"]
BANDS: tuple[BandName, ...] = ("seeds", "tasks", "none")
COLORS = ("cyan", "magenta", "green", "yellow", "blue", "red")  # of curves, in turn; the marks say the same
HERE = " (here)"  # the curve that is scrubbed
LOWEST, COMFORTABLE = 8, 13  # lines of a plot without its legend
CurveKey = tuple[str, float, str | None]


@dataclass(frozen=True)
class Choice:
    """What a person chose to see: the curve that is scrubbed, curves put aside, one share of the questions (None: all),
    and what the bands are."""

    current: CurveKey | None = None
    hidden: frozenset[CurveKey] = frozenset()
    share: float | None = None
    band: BandName = "seeds"


def curve_name(curve: "Curve", curves: Sequence["Curve"]) -> str:
    """The method, its share of the questions, and its sampler if not all have the same."""
    share = "" if curve.descriptors == 1 else f" ({100 * curve.descriptors:g} % of the questions)"
    sampler = len({other.sampler for other in curves}) > 1
    return f"{curve.label}{share}{f', {curve.sampler}' if sampler else ''}"


def _short_name(curve: "Curve", curves: Sequence["Curve"]) -> str:
    """The method's key, and what tells it from others with the same one."""
    alike = [other for other in curves if other.method == curve.method and other is not curve]
    share = "" if curve.descriptors == 1 else f" {100 * curve.descriptors:g} %"
    sampler = any(other.descriptors == curve.descriptors for other in alike)
    return f"{curve.method}{share}{f', {curve.sampler}' if sampler else ''}"


def sampler_words(sweep: "Sweep", choice: Choice) -> str:
    """How the curve that is scrubbed was drawn; that it is that one's alone, where the others were drawn otherwise."""
    curve = current_curve(sweep, choice)
    if curve is None or not curve.sampler:
        return ""
    return curve.sampler + HERE * (len({other.sampler for other in shown_curves(sweep, choice)}) > 1)


def shares(sweep: "Sweep") -> list[float]:
    """The shares of the questions that the curves' methods knew, the largest first."""
    return sorted({curve.descriptors for curve in sweep.curves}, reverse=True)


def shown_curves(sweep: "Sweep", choice: Choice) -> list["Curve"]:
    """The curves that are drawn. One that is scrubbed always is."""
    fitting = [curve for curve in sweep.curves if choice.share in (None, curve.descriptors)] or list(sweep.curves)
    return [curve for curve in fitting if curve.key == choice.current or curve.key not in choice.hidden]


def current_curve(sweep: "Sweep", choice: Choice) -> "Curve | None":
    """The curve that is scrubbed: the chosen one, else the first that is shown."""
    shown = shown_curves(sweep, choice)
    return next((curve for curve in shown if curve.key == choice.current), shown[0] if shown else None)


def stops(curve: "Curve | None") -> tuple["Point", ...]:
    """Where a curve can be looked at: its points; one that has none, at its validated γ."""
    if curve is None:
        return ()
    return curve.points or ((curve.validated,) if curve.validated else ())


def stop_at(points: Sequence["Point"], gamma: float | None, curve: "Curve | None" = None) -> int:
    """The place of the point nearest to ``gamma``; without one, of the point nearest to the validated γ."""
    if gamma is None:
        validated = curve.validated if curve else None
        gamma = validated.gamma if validated else 1.0
    wanted = gamma
    return min(range(len(points)), key=lambda at: (abs(points[at].gamma - wanted), at), default=0)


# The plot


def drawn(sweep: "Sweep", choice: Choice, gamma: float | None, size: tuple[int, int], look: Look) -> list[str]:
    """Curves, levels and the line at ``gamma``, in a place of so many columns and lines, legend and all.

    Where the place is low, the legend is in short words; where it is lower still, its end is cut.
    """
    width, height = size
    band = band_words(sweep, choice)
    for short in (False, True):
        series, levels = series_of(sweep, choice, look, short=short), levels_of(sweep, short=short)
        legend = len(plot(series, levels, width, LOWEST, look.ascii, band=band)) - LOWEST
        if height - legend >= COMFORTABLE:
            break
    return plot(series, levels, width, max(LOWEST, height - legend), look.ascii, band=band, rule=gamma)[:height]


def series_of(sweep: "Sweep", choice: Choice, look: Look, *, short: bool = False) -> list[Series]:
    """Each shown curve with its bands, then a star at each validated γ; only that of the scrubbed one has an entry."""
    shown, current = shown_curves(sweep, choice), current_curve(sweep, choice)
    found = [
        Series((_short_name if short else curve_name)(curve, sweep.curves) + HERE * (curve is current),
               [point.gamma for point in curve.points], [point.mean for point in curve.points],
               [_spread(point, choice.band) for point in curve.points])
        for curve in shown
    ]  # fmt: skip
    for curve in shown:
        if curve.validated is not None:
            words = "validated" if short else f"γ chosen on validation tasks: {_gammas(curve.validated)}"
            label = words if curve is current else ""
            found.append(Series(label, [curve.validated.gamma], [curve.validated.mean], mark=STAR[look.ascii]))
    return found


def levels_of(sweep: "Sweep", *, short: bool = False) -> list[Level]:
    """Uncond. Multitask and the few-shot ceiling, where they were measured, with what they are over."""
    found = []
    if sweep.multitask:
        words = "Multitask" if short else f"{sweep.multitask.label}, zero-shot"
        found.append(Level(words, sweep.multitask.mean, _level_note(sweep.multitask, short=short)))
    if sweep.ceiling:
        best = f" (the best of {sweep.ceiling.among} on all test tasks)" if sweep.ceiling.among > 1 else ""
        words = "ceiling" if short else f"few-shot ceiling, {sweep.ceiling.label}{best}"
        found.append(Level(words, sweep.ceiling.mean, _level_note(sweep.ceiling, short=short)))
    return found


def _level_note(level: "Reference", *, short: bool) -> str:
    seeds = count(len(level.seeds), "seed")
    if short:
        interval = f"{level.low:.1f}–{level.high:.1f}, " if level.tasks > 1 else ""
        return f" ({interval}{seeds})"
    return f" % ({seeds}), {_interval(level)}"


def _interval(of: "Point | Reference") -> str:
    """ "95 % 52.88–55.43 (684 tasks)"; one task has no interval."""
    if of.tasks < 2:
        return "one task, so no interval"
    return f"95 % {of.low:.2f}–{of.high:.2f} ({count(of.tasks, 'task')})"


def band_words(sweep: "Sweep", choice: Choice) -> str:
    """What the bands are, with the numbers behind them."""
    if choice.band == "tasks":
        return f"95 % interval over {count(sweep.tasks, 'task')}"
    counts = sorted({len(point.seeds) for curve in shown_curves(sweep, choice) for point in curve.points})
    if len(counts) == 1:
        return f"± s.d. over {count(counts[0], 'seed')}"
    return f"± s.d. over {counts[0]} to {counts[-1]} seeds" if counts else "± s.d. over seeds"


def _spread(point: "Point", band: BandName) -> float | tuple[float, float] | None:
    if band == "seeds":
        return point.sd
    return (max(0.0, point.mean - point.low), max(0.0, point.high - point.mean)) if band == "tasks" else None


def colored(lines: Sequence[str], shown: int, look: Look) -> Text:
    """The plot as text whose marks are coloured as its curves are counted; dots, bands and lines recede."""
    text = Text("\n".join(lines), no_wrap=True)
    if look.color:
        marks = (ASCII_MARKS if look.ascii else MARKS)[:shown]
        for mark, color in zip(marks, COLORS * len(marks), strict=False):
            text.highlight_regex(_literal(mark), f"bold {color}")
        if not look.ascii:  # letters of ASCII mean other things too
            text.highlight_regex(_literal(STAR[0]), "bold yellow")
            text.highlight_regex("[░╌┈]", "dim")
            text.highlight_regex(RULE[0], "bold")
    return text


def _literal(mark: str) -> str:
    """A mark where it is one: a letter of ASCII only beside nothing of the alphabet."""
    import re

    return rf"(?<![a-zA-Z]){re.escape(mark)}(?![a-zA-Z])" if mark.isascii() else mark


# In words


def reading(sweep: "Sweep", curve: "Curve | None", point: "Point | None") -> list[str]:
    """What the plot says at the line: mean, intervals, the difference to Uncond. Multitask, and the validated γ."""
    if curve is None or point is None:
        return []
    lines = [f"γ = {point.gamma:g}: {_accuracy(point)}", *_difference(point, sweep)]
    if curve.validated is not None and curve.validated is not point:
        lines.append(f"validated γ, {_gammas(curve.validated)}: {_accuracy(curve.validated)}")
        lines += _difference(curve.validated, sweep)
    if sweep.kind == "eval":
        lines.append("one seed, from the newest evaluation; n starts a sweep")
    return [*lines, *(f"left out: {words}" for words in sweep.left_out)]


def _accuracy(point: "Point") -> str:
    """ "54.06 % ± 0.19 s.d. (2 seeds), 95 % 52.88–55.43 (684 tasks)"."""
    sd = f" ± {point.sd:.2f} s.d." if point.sd is not None else ""
    return f"{point.mean:.2f} %{sd} ({count(len(point.seeds), 'seed')}), {_interval(point)}"


def _difference(point: "Point", sweep: "Sweep") -> list[str]:
    """How far a point is from Uncond. Multitask, where both have a seed."""
    if point.diff is None or sweep.multitask is None:
        return []
    mean, low, high = point.diff
    interval = f", 95 % {low:+.2f} to {high:+.2f}" if point.tasks > 1 else ""
    fewer = f" (over {count(len(point.common), 'seed')})" if point.common != point.seeds else ""
    return [f"{mean:+.2f} points to {sweep.multitask.label}{interval}{fewer}"]


def _gammas(point: "Point") -> str:
    """ "1.25", or for each seed its own."""
    if len({*point.gammas}) == 1:
        return f"{point.gammas[0]:g}"
    return ", ".join(f"{gamma:g} (seed {seed})" for gamma, seed in zip(point.gammas, point.seeds, strict=True))


def curves_title(dataset: str | None, sweep: "Sweep | None") -> str:
    """What the plot is of."""
    of = f" on {dataset}" if dataset else ""
    if sweep is None or not sweep.family:
        return f"Accuracy against γ{of}"
    return f"Accuracy against γ{of}: {sweep.family}, {count(sweep.tasks, 'task')}"


def left_aside(curves: Sequence["Curve"], chosen: Collection[int]) -> frozenset[CurveKey]:
    """The curves that are not among the ``chosen`` places."""
    return frozenset(curve.key for place, curve in enumerate(curves) if place not in chosen)
