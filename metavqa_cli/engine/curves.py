"""Accuracy against γ, of what ``swept`` read: curves with bands, for all test tasks or one question family.

Without torch. The numbers are those of ``table.rows``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from metavqa_cli.engine.judged import Judged
from metavqa_cli.engine.statistics import difference, estimate, spread
from metavqa_cli.engine.swept import Measured, Swept
from metavqa_cli.engine.table import REFERENCE, name
from metavqa_cli.methods.registry import BY_KEY

RESAMPLES = 2_000  # of the tasks, for intervals


@dataclass(frozen=True)
class Point:
    """One method at one γ, in per cent: ``mean`` over tasks and seeds, ``sd`` over seeds (None for one), ``low`` and
    ``high`` of the 95 % interval over tasks; ``diff``: paired difference to Uncond. Multitask over the ``common``
    seeds, with its interval (None without any). ``gammas`` are those of the seeds, which differ if each validated its
    own."""

    gammas: tuple[float, ...]
    seeds: tuple[int, ...]
    tasks: int
    mean: float
    sd: float | None
    low: float
    high: float
    diff: tuple[float, float, float] | None
    common: tuple[int, ...]
    measured: tuple[Measured, ...]

    @property
    def gamma(self) -> float:
        return sum(self.gammas) / len(self.gammas)


@dataclass(frozen=True)
class Curve:
    """A method's points in the order of γ, and the one at the γ that validation tasks chose."""

    method: str
    label: str
    descriptors: float
    sampler: str | None
    points: tuple[Point, ...]
    validated: Point | None

    @property
    def key(self) -> tuple[str, float, str | None]:
        return self.method, self.descriptors, self.sampler


@dataclass(frozen=True)
class Reference:
    """What curves are compared with, in per cent: ``mean`` over tasks and seeds, ``low`` and ``high`` of the 95 %
    interval over tasks. ``among``: of how many it is the best, chosen on all test tasks (1: it was not chosen)."""

    label: str
    mean: float
    seeds: tuple[int, ...]
    tasks: int
    low: float
    high: float
    among: int = 1


@dataclass(frozen=True)
class Sweep:
    """Accuracy against γ over the ``tasks`` of a family ("": of all). ``kind``: whether cells or an evaluation say it;
    ``left_out``: a sentence for what does not belong to the same picture."""

    family: str
    tasks: int
    kind: Literal["cell", "eval"]
    curves: tuple[Curve, ...]
    multitask: Reference | None
    ceiling: Reference | None
    left_out: tuple[str, ...] = ()


class Points:
    """Points that were computed before, as long as what they are of is there: a new cell costs its own point alone."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Point] = {}

    def point(
        self, measured: tuple[Measured, ...], multitask: tuple[Measured, ...], judged: Judged, family: str,
        resamples: int,
    ) -> Point:  # fmt: skip
        key = (measured, multitask, judged, family, resamples)
        if key not in self._known:
            self._known[key] = _point(*key)
        return self._known[key]

    def keep(self, measured: Iterable[Measured]) -> None:
        """Forget the points of whatever is not among ``measured``."""
        there = set(measured)
        self._known = {key: point for key, point in self._known.items() if there.issuperset(key[0] + key[1])}


def sweep(swept: Swept, family: str = "", resamples: int = RESAMPLES, points: Points | None = None) -> Sweep:
    """The curves of all methods with a guidance scale, and what they are compared with, on the tasks of a family.

    Cells say it; where none has a γ yet, the newest evaluation does. The numbers are those of ``table.rows``; those
    among ``points`` are not computed again. The few-shot ceiling is the same method for every family.
    """
    points = Points() if points is None else points
    points.keep(swept.measured)
    used, left_out = _belonging([one for one in swept.measured if one.control is None])
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for one in used:
        groups.setdefault(one.same, []).append(one)
    seeds = {same: tuple(sorted(found, key=lambda one: one.seed)) for same, found in groups.items()}
    multitask = next(
        (found for found in seeds.values() if (found[0].method, found[0].setting, found[0].control) == REFERENCE), ()
    )
    few = [found for found in seeds.values() if found[0].setting == "few-shot"]
    best = max(few, key=lambda found: float(_rows(found, swept.judged, "").mean()), default=())
    multitask_line, ceiling = (
        _reference(points.point(found, (), swept.judged, family, resamples), among) if found else None
        for found, among in ((multitask, 1), (best, len(few)))
    )
    guided = [found for found in seeds.values() if found[0].setting == "zero-shot" and found[0].gamma is not None]
    drawn = [points.point(found, multitask, swept.judged, family, resamples) for found in guided]
    return Sweep(
        family, int(_chosen(swept.judged, family).sum()), used[-1].kind if used else "cell", tuple(_curves(drawn)),
        multitask_line, ceiling, tuple(left_out),
    )  # fmt: skip


def _belonging(measured: Sequence[Measured]) -> tuple[list[Measured], list[str]]:
    """Those that belong into one picture: of one base network, and each method, γ and seed once, the newest."""
    cells = [one for one in measured if one.kind == "cell"]
    if not any(one.gamma is not None and one.setting == "zero-shot" for one in cells):
        evaluations = [one for one in measured if one.kind == "eval"]
        if evaluations:
            return [one for one in evaluations if one.run == evaluations[-1].run], []
    fitting = [one for one in cells if one.layout == cells[-1].layout]
    newest = {(*one.same, one.seed): one for one in fitting}
    kept = list(newest.values())
    left_out = []
    if others := len({one.run for one in cells} - {one.run for one in fitting}):
        left_out.append(f"{_cells(others)} of another base network than the newest")
    if older := len({one.run for one in fitting} - {one.run for one in kept}):
        left_out.append(f"{_cells(older)} measured again since")
    return kept, left_out


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number != 1)}"


def _chosen(judged: Judged, family: str) -> Bool[np.ndarray, " task"]:
    """Which tasks are of the family; "" is all."""
    return np.array([family in ("", one) for one in judged.families], bool)


def _rows(measured: Sequence[Measured], judged: Judged, family: str) -> Float[np.ndarray, "seed task"]:
    return np.stack([one.accuracies for one in measured])[:, _chosen(judged, family)]


def _point(
    measured: tuple[Measured, ...], multitask: tuple[Measured, ...], judged: Judged, family: str, resamples: int
) -> Point:
    accuracies = _rows(measured, judged, family)
    whole = estimate(accuracies.mean(0), resamples)
    common = tuple(sorted({one.seed for one in measured} & {one.seed for one in multitask}))
    diff = None
    if common:
        own, other = (
            _rows([one for one in group if one.seed in common], judged, family) for group in (measured, multitask)
        )
        diff = difference(own, other, resamples)[:3]
    gammas = tuple(float(one.gamma) for one in measured if one.gamma is not None)
    return Point(gammas, tuple(one.seed for one in measured), whole.n, whole.mean, spread(accuracies), whole.low,
                 whole.high, diff, common, measured)  # fmt: skip


def _reference(point: Point, among: int) -> Reference:
    first = point.measured[0]
    own = {"label": first.label, "gamma": first.gamma, "validated": first.validated, "control": None}
    called = name(own, chosen=len({*point.gammas}) < 2)
    return Reference(called, point.mean, point.seeds, point.tasks, point.low, point.high, among)


def _curves(points: Iterable[Point]) -> Iterator[Curve]:
    """The points method by method, in the order of the registry; larger shares of descriptors first."""
    found: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        first = point.measured[0]
        found.setdefault((first.method, first.descriptors, first.sampler), []).append(point)
    order = list(BY_KEY)
    for key in sorted(
        found, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), -key[1], key[2] or "")
    ):
        first = found[key][0].measured[0]
        fixed = sorted((p for p in found[key] if not p.measured[0].validated), key=lambda p: p.gamma)
        chosen = next((p for p in found[key] if p.measured[0].validated), None)
        yield Curve(first.method, first.label, first.descriptors, first.sampler, tuple(fixed), chosen)
