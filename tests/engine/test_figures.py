"""Figures: the numbers of the rows at their places, the same bytes every time, nothing told by colour alone."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metavqa_cli.engine import figures, table
from metavqa_cli.engine.table import Control, Judged, Row, Score, Setting
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from tests.cli.terminal import python

TASKS = 4
JUDGED = Judged(("q?",) * TASKS, ("",) * TASKS, ("",) * TASKS, np.ones((TASKS, 1), bool), np.zeros((TASKS, 1), bool))
BASE = np.array([0.2, 0.4, 0.5, 0.7])  # mean 45
FIGURES = [figures.gamma_figure, figures.descriptors_figure, figures.table_figure]
Draw = Callable[[Sequence[Row], Path], None]


def score(method: str, better: float, seed: int, **more: Any) -> Score:
    setting: Setting = more.pop("setting", "zero-shot")
    fields: dict[str, Any] = {"descriptors": 1.0, "gamma": None, "validated": False, "sampler": None, **more}
    found = (BASE + better)[:, None].astype(np.float32)
    return Score(method=method, label=f"The {method}", setting=setting, seed=seed, correct=found, **fields)


def made(seeds: int = 2) -> list[Row]:
    """Two curves over γ, one of them with half of the descriptors too; seeds differ by 2 points."""
    shuffled: Control = "shuffled"
    scores = []
    for seed in range(seeds):
        more = 0.02 * seed
        scores += [score("multitask", more, seed), score("maml", 0.2 + more, seed, setting="few-shot")]
        for gamma in (2.0, 0.0, 1.0):
            scores += [score("a-ldm", 0.05 * gamma + more, seed, gamma=gamma, sampler="ddim, 9 steps"),
                       score("b-ldm", 0.02 * gamma + more, seed, gamma=gamma, descriptors=0.5)]  # fmt: skip
        for share in (1.0, 0.5):
            scores.append(score("a-ldm", 0.1 * share, seed, gamma=1.0 + seed, validated=True, descriptors=share))
        scores.append(score("a-ldm", -0.1, seed, setting="control", control=shuffled, gamma=1.0, validated=True))
    return table.rows(scores, JUDGED, 100)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Draw, Sequence[Row]], Axes]:
    """Draw, and return the axes."""

    def draw(figure: Draw, rows: Sequence[Row]) -> Axes:
        kept: list[Figure] = []
        save = Figure.savefig
        with monkeypatch.context() as patch:
            patch.setattr(Figure, "savefig", lambda self, *args, **more: (kept.append(self), save(self, *args, **more)))
            figure(rows, tmp_path / "drawn.svg")
        return kept[0].axes[0]

    return draw


def lines(axes: Axes) -> dict[str, Any]:
    return {str(line.get_label()): line for line in axes.lines}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("suffix", [".svg", ".png", ".SVG"])
def test_the_same_rows_are_the_same_bytes(figure: Draw, suffix: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        figure(made(), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert b"<dc:date>" not in first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (figures.gamma_figure, ["guidance scale γ", "The a-ldm", "The b-ldm, 50 % of the questions",
                                "The multitask (46.0)", "few-shot ceiling, The maml (66.0)", "ddim, 9 steps",
                                "mean over 4 test tasks ± s.d. over 2 seeds", "γ chosen on validation tasks"]),
        (figures.descriptors_figure, ["questions known in training", "50 %", "100 %", "The a-ldm, γ validated"]),
        (figures.table_figure, ["95 % interval over tasks", "The maml", "The b-ldm, γ = 2, 50\xa0% of the questions",
                                "shuffled", "zero-shot", "few-shot", "control", "66.00 ± 1.41"]),
    ],
)  # fmt: skip
def test_everything_is_named_in_text(figure: Draw, words: list[str], tmp_path: Path) -> None:
    figure(made(), tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text("utf-8")
    assert all(any(word in line for line in text.splitlines()) for word in words), words


def test_curves_bands_levels_and_stars_stand_where_the_numbers_are(
    drawn: Callable[[Draw, Sequence[Row]], Axes],
) -> None:
    axes = drawn(figures.gamma_figure, made())
    curve = lines(axes)["The a-ldm"]
    assert [*curve.get_xdata()] == [0, 1, 2]
    assert [*curve.get_ydata()] == pytest.approx([46, 51, 56])
    band = axes.collections[0].get_paths()[0].vertices
    assert (min(band[:, 1]), max(band[:, 1])) == pytest.approx((46 - 2**0.5, 56 + 2**0.5), abs=1e-3)
    assert [*lines(axes)["The multitask (46.0)"].get_ydata()] == [46, 46]
    assert [*lines(axes)["few-shot ceiling, The maml (66.0)"].get_ydata()] == [66, 66]
    stars = [line for line in axes.lines if line.get_marker() == "*" and len(line.get_xdata())]  # type: ignore[arg-type]
    assert [(*star.get_xdata(), *star.get_ydata()) for star in stars] == [(1.5, 55)]  # type: ignore[misc]


def test_shares_of_descriptors_are_in_order(drawn: Callable[[Draw, Sequence[Row]], Axes]) -> None:
    axes = drawn(figures.descriptors_figure, made())
    curve = lines(axes)["The a-ldm, γ validated"]
    assert ([*curve.get_xdata()], [*curve.get_ydata()]) == ([0.5, 1], pytest.approx([50, 55]))
    assert not any("b-ldm" in label for label in lines(axes))  # known at one share only


def test_dots_have_the_intervals_of_the_rows(drawn: Callable[[Draw, Sequence[Row]], Axes]) -> None:
    rows = made()
    axes = drawn(figures.table_figure, rows)
    compared = [row for row in rows if (row["method"], row["setting"]) != ("multitask", "zero-shot")]
    assert len(axes.containers) == len(compared) == len(axes.get_yticks())
    for place, (bar, row) in enumerate(zip(axes.containers, compared, strict=True)):
        dot, _, (ends,) = bar
        assert (*dot.get_xdata(), *dot.get_ydata()) == (row["diff"], place)
        assert [*ends.get_segments()[0][:, 0]] == pytest.approx([row["diff_low"], row["diff_high"]])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top


def test_no_two_curves_differ_by_colour_alone(drawn: Callable[[Draw, Sequence[Row]], Axes]) -> None:
    scores = [score("multitask", 0, 0)]
    scores += [score(f"m{i}", 0.01 * i, 0, gamma=gamma) for i in range(12) for gamma in (1.0, 2.0)]
    axes = drawn(figures.gamma_figure, table.rows(scores, JUDGED, 100))
    looks = {(line.get_marker(), str(line._dash_pattern)) for line in axes.lines}  # type: ignore[attr-defined]
    assert len(looks) == 13


def test_one_seed_has_no_spread_to_speak_of(drawn: Callable[[Draw, Sequence[Row]], Axes]) -> None:
    axes = drawn(figures.gamma_figure, made(seeds=1))
    assert axes.get_title("left") == "mean over 4 test tasks over 1 seed; ddim, 9 steps"
    assert np.ptp(axes.collections[0].get_paths()[0].vertices[:, 1]) == pytest.approx(10)
    assert drawn(figures.table_figure, made(seeds=1)).texts[0].get_text() == "65.00"


@pytest.mark.parametrize("figure", FIGURES)
def test_another_suffix_is_refused(figure: Draw, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot draw sweep\.pdf: a figure's name ends in \.svg or \.png"):
        figure(made(), tmp_path / "sweep.pdf")


@pytest.mark.parametrize(
    ("figure", "sentence"),
    [(figures.gamma_figure, "no result has a guidance scale"), (figures.descriptors_figure, "several shares"),
     (figures.table_figure, "nothing to compare")],
)  # fmt: skip
def test_nothing_to_draw_is_a_sentence(figure: Draw, sentence: str, tmp_path: Path) -> None:
    for rows in ([], table.rows([score("multitask", 0, 0)], JUDGED, 100)):
        with pytest.raises(UsageError, match=sentence):
            figure(rows, tmp_path / "figure.svg")
    assert not any(tmp_path.glob("*.svg"))


def test_without_matplotlib_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError, match=r"pip install 'metavqa\[report\]'"):
        figures.gamma_figure(made(), tmp_path / "figure.svg")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot write"):
        figures.gamma_figure(made(), tmp_path / "file" / "figure.svg")


def test_the_settings_of_matplotlib_are_left_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figures.gamma_figure(made(), tmp_path / "figure.png")
    assert dict(matplotlib.rcParams) == before
    heavy = "[name for name in ('matplotlib', 'torch') if name in sys.modules]"
    assert python("-c", f"import sys, metavqa_cli.engine.figures; print({heavy})", cwd=tmp_path).out == "[]\n"
    drawing = (
        "import sys, tests.engine.test_figures as t, pathlib; t.figures.gamma_figure(t.made(), pathlib.Path('a.svg'))"
    )
    done = python("-c", drawing + "; print('matplotlib.pyplot' in sys.modules)", cwd=tmp_path)
    assert done.out == "False\n", done.err
