"""Pictures of the results table as SVG or PNG files, drawn with matplotlib (the extra ``report``)."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metavqa_cli.engine.table import Row, is_compared_with, is_reference, name
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.store.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours that stay apart for all kinds of colour vision and on white; marks and dashes say the same.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKS = ("o", "^", "s", "D", "v", "P", "X", "h")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (6, 2, 1, 2)), (0, (2, 1.5)), (0, (8, 2, 1, 2, 1, 2)))
STYLE: Any = {
    "svg.hashsalt": "metavqa", "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#e3e3e3", "grid.linewidth": 0.8, "axes.edgecolor": "#555555", "legend.frameon": False,
    "xtick.color": "#333333", "ytick.color": "#333333", "axes.titlesize": 11, "axes.titlelocation": "left",
    "lines.linewidth": 1.8, "lines.markersize": 6,
}  # fmt: skip
GREY = "#555555"


def gamma_figure(rows: Sequence[Row], path: Path) -> None:
    """Accuracy against the guidance scale with ± s.d. over seeds (Fig. 5 A), the validated γ starred.

    A curve for each method and share of descriptors among the zero-shot rows; Uncond. Multitask and the few-shot
    ceiling are lines. ``UsageError`` if no row has a γ, or for a suffix other than .svg and .png; ``MissingError``
    without matplotlib.
    """
    curves = _curves([row for row in rows if row["gamma"] is not None and not row["validated"]], "gamma", _curve_name)
    if not curves:
        raise UsageError("no result has a guidance scale; evaluate a HyperLDM run with several --gamma first")
    chosen = {_curve_name(row): row for row in rows if row["validated"] and row["setting"] == "zero-shot"}
    with _drawing(path) as (figure, axes):
        for (label, found), look in zip(curves.items(), _looks(), strict=False):
            _draw_curve(axes, found, "gamma", label, look)
            if label in chosen:
                _star(axes, chosen[label], look["color"])
        _levels(axes, rows)
        axes.set(xlabel="guidance scale γ", ylabel="accuracy in per cent")
        if chosen.keys() & curves.keys():
            axes.plot(
                [], [], "*", color="white", markeredgecolor="black", markersize=13, label="γ chosen on validation tasks"
            )
        _finish(figure, axes, rows)


def descriptors_figure(rows: Sequence[Row], path: Path) -> None:
    """Accuracy against the share of descriptors known in training (Fig. 5 B); errors as ``gamma_figure``.

    A curve for each zero-shot method that was trained with several shares.
    """
    curves = _curves(rows, "descriptors", partial(name, chosen=False))
    several = {label: found for label, found in curves.items() if len({row["descriptors"] for row in found}) > 1}
    if not several:
        raise UsageError("no method was trained with several shares of descriptors; train with --descriptors 0.5 too")
    with _drawing(path) as (figure, axes):
        for (label, found), look in zip(several.items(), _looks(), strict=False):
            _draw_curve(axes, found, "descriptors", label, look)
        _levels(axes, rows)
        axes.set(xlabel="questions known in training", ylabel="accuracy in per cent")
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        axes.set_xticks(sorted({row["descriptors"] for found in several.values() for row in found}))
        _finish(figure, axes, rows)


def table_figure(rows: Sequence[Row], path: Path) -> None:
    """Every row's paired difference to what they are compared with, as a dot with its interval; errors as above."""
    compared = [row for row in rows if row["against"] is not None and not is_compared_with(row)]
    if not compared:
        raise UsageError("nothing to compare: there is no zero-shot result of Uncond. Multitask beside another method")
    with _drawing(path, width=8.6, height=1.5 + 0.36 * len(compared)) as (figure, axes):
        looks = dict(zip(("zero-shot", "few-shot", "control"), _looks(), strict=False))
        for place, row in enumerate(compared):
            look = looks[row["setting"]]
            ends = [[row["diff"] - row["diff_low"]], [row["diff_high"] - row["diff"]]]
            axes.errorbar(row["diff"], place, xerr=ends, fmt=look["marker"], color=look["color"], capsize=3)
            axes.text(1.02, place, _accuracy(row), transform=axes.get_yaxis_transform(), va="center", fontsize=9)
        for setting in dict.fromkeys(row["setting"] for row in compared):
            look = looks[setting]
            axes.plot([], [], look["marker"], color=look["color"], label=setting)
        axes.axvline(0, color=GREY, linewidth=1.2)
        axes.set_yticks(range(len(compared)), [_table_name(row) for row in compared])
        axes.set_ylim(len(compared) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"points above {compared[0]['against']}, 95 % interval over tasks")
        _finish(figure, axes, rows, columns=3)


def _curve_name(row: Row) -> str:
    """The row's method without its γ."""
    share = "" if row["descriptors"] == 1 else f", {100 * row['descriptors']:g} % of the questions"
    return f"{row['label']}{share}"


def _table_name(row: Row) -> str:
    share = "" if row["descriptors"] == 1 else f", {100 * row['descriptors']:g}\xa0% of the questions"
    return "\n".join(textwrap.wrap(name(row) + share, 44))


def _accuracy(row: Row) -> str:
    return f"{row['mean']:.2f}" + ("" if row["sd"] is None else f" ± {row['sd']:.2f}")


def _curves(rows: Sequence[Row], x: str, label: Any) -> dict[str, list[Row]]:
    """The zero-shot rows of each curve, from the lowest ``x`` to the highest."""
    found: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if row["setting"] == "zero-shot"), key=lambda row: row[x]):
        found.setdefault(label(row), []).append(row)
    order = dict.fromkeys(label(row) for row in rows)
    return {key: found[key] for key in order if key in found}


def _looks() -> Iterator[dict[str, Any]]:
    """Colour, mark and dashes of one curve after the other."""
    for color, marker, dashes in zip(cycle(COLORS), cycle(MARKS), cycle(DASHES), strict=False):
        yield {"color": color, "marker": marker, "linestyle": dashes}


def _draw_curve(axes: "Axes", found: Sequence[Row], x: str, label: str, look: dict[str, Any]) -> None:
    xs, means, spread = ([row[key] or 0.0 for row in found] for key in (x, "mean", "sd"))
    axes.plot(xs, means, label=label, markeredgecolor="white", markeredgewidth=0.8, **look)
    low, high = ([mean + sign * sd for mean, sd in zip(means, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(xs, low, high, color=look["color"], alpha=0.14, linewidth=0)


def _star(axes: "Axes", row: Row, color: str) -> None:
    """The validated result at its γ; a thin line shows the range where the seeds chose different ones."""
    gammas = row["gammas"]
    if gammas[0] is None:
        return
    middle = sum(gammas) / len(gammas)
    axes.plot([min(gammas), max(gammas)], [row["mean"]] * 2, color="black", linewidth=1, zorder=4)
    axes.plot(middle, row["mean"], "*", color=color, markersize=15, markeredgecolor="black", zorder=5)


def _levels(axes: "Axes", rows: Sequence[Row]) -> None:
    """Uncond. Multitask and the few-shot ceiling as lines, named in the legend with their values."""
    reference = next(filter(is_reference, rows), None)
    ceiling = max((row for row in rows if row["setting"] == "few-shot"), key=lambda row: row["mean"], default=None)
    for row, words, dashes in ((reference, "", (0, (1, 1))), (ceiling, "few-shot ceiling, ", (0, (10, 3)))):
        if row is not None:
            axes.axhline(row["mean"], color=GREY, linewidth=1.4, linestyle=dashes,
                         label=f"{words}{row['label']} ({row['mean']:.1f})")  # fmt: skip


def _finish(figure: "Figure", axes: "Axes", rows: Sequence[Row], columns: int = 2) -> None:
    """The legend below the axes, where it hides nothing, and over what the means are."""
    seeds = sorted({len(row["seeds"]) for row in rows})
    counted = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    several = "s" if seeds[-1] > 1 else ""
    samplers = dict.fromkeys(row["sampler"] for row in rows if row["sampler"])
    spread = " ± s.d." if several else ""
    words = "; ".join([f"mean over {rows[0]['tasks']} test tasks{spread} over {counted} seed{several}", *samplers])
    axes.set_title(textwrap.fill(words, 105), color=GREY, fontsize=9)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", ncols=columns, handlelength=4.4, fontsize=9)


@contextmanager
def _drawing(path: Path, width: float = 7.2, height: float = 4.8) -> "Iterator[tuple[Figure, Axes]]":
    """An empty figure that is written to ``path`` at the end: the same bytes for the same drawing."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"cannot draw {path.name}: a figure's name ends in .svg or .png")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError("figures need matplotlib; install it with: pip install 'metavqa[report]'") from None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=160, metadata=metadata, facecolor="white", format=path.suffix[1:].lower())
