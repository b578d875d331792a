"""The results table: the scores of methods and seeds on one dataset, as rows of numbers and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from metavqa_cli.engine.judged import Judged, by_task, mean_over_tasks, of_kinds, pooled, rounded
from metavqa_cli.engine.statistics import closed, difference, estimate, spread
from metavqa_cli.methods.registry import Control

Setting = Literal["zero-shot", "few-shot", "control"]
Row = dict[str, Any]
Against = tuple[str, float | None]
"""What others are compared with: a method, zero-shot, and its γ (None: the validated one, or it has none)."""

MULTITASK: Against = ("multitask", None)
REFERENCE = ("multitask", "zero-shot", None)  # method, setting and control of where the way to the ceiling begins
NOVELTIES = ("wording", "combination", "family")
IN_PLACE = {
    "shuffled": ", shuffled questions",
    "empty": ", empty question",
    "random-words": ", random words",
    "other": ", another question",
}


@dataclass(frozen=True, eq=False)
class Score:
    """What one method trained with one seed got right.

    ``label`` names the method alone: γ, the share of ``descriptors`` (0 to 1; 1 for methods without conditioning) and
    the ``control`` stand in fields of their own. ``validated``: γ was chosen on validation tasks, so it may differ from
    seed to seed. ``correct`` is the share of samples, 0 to 1, that judged the example rightly.
    """

    method: str
    label: str
    setting: Setting
    descriptors: float
    gamma: float | None
    validated: bool
    seed: int
    sampler: str | None
    correct: Float[np.ndarray, "task example"]
    control: Control | None = None
    trust: float | None = None
    """For an anchored HyperLDM: the part of γ with which its denoiser is guided, chosen on validation tasks."""
    answers: Int[np.ndarray, "sample pair"] | None = None
    """What was answered to the examples, task after task; None where a cell of an earlier version did not keep it."""

    @property
    def kind(self) -> tuple[Any, ...]:
        """What scores of the same method in different seeds have in common."""
        gamma = None if self.validated else self.gamma
        return (self.method, self.label, self.setting, self.descriptors, gamma, self.validated, self.sampler,
                self.control)  # fmt: skip

    @property
    def role(self) -> tuple[str, str, str | None]:
        return self.method, self.setting, self.control

    @property
    def twin(self) -> tuple[Any, ...]:
        """What a control has in common with the method's own score."""
        return (self.method, self.descriptors, None if self.validated else self.gamma, self.validated, self.sampler)


@dataclass(frozen=True, eq=False)
class _Group:
    """The scores of one row, in the order of their seeds."""

    scores: tuple[Score, ...]
    judged: Judged

    @property
    def first(self) -> Score:
        return self.scores[0]

    @cached_property
    def accuracies(self) -> np.ndarray:
        """[seed, task]"""
        return np.stack([by_task(score.correct, self.judged.mask) for score in self.scores])

    @cached_property
    def correct(self) -> np.ndarray:
        """[task, example], mean over seeds."""
        return np.stack([score.correct for score in self.scores]).mean(0, dtype=np.float64)

    @property
    def mean(self) -> float:
        return 100 * float(self.accuracies.mean())

    def unshared(self) -> float | None:
        """Over the tasks that have such examples, without the images that training tasks have too."""
        some_shared = bool((self.judged.mask & self.judged.shared).any())
        return mean_over_tasks(self.correct, self.judged.unshared) if some_shared else None

    def soft(self) -> float | None:
        """Soft accuracy, mean over tasks and seeds."""
        found = [soft for score in self.scores if (soft := self.judged.soft(score.answers)) is not None]
        means = [by_task(soft.values, soft.mask).mean() for soft in found]
        return 100 * float(np.mean(means)) if len(means) == len(self.scores) else None

    def by(self, kinds: Sequence[str]) -> dict[str, float]:
        """Mean for each kind of task, sorted; tasks of unknown kind in none."""
        of = np.array(kinds)
        return {kind: 100 * float(self.accuracies[:, of == kind].mean()) for kind in sorted({*kinds} - {""})}

    def kinds(self) -> list[Row]:
        """Tasks, mean and pooled mean of each kind of question, the kind with most tasks first."""
        found = [(kind, chosen, self.judged.mask & chosen[:, None]) for kind, chosen in of_kinds(self.judged.families)]
        return [
            {"kind": kind, "tasks": int(chosen.sum()), "mean": 100 * float(self.accuracies[:, chosen].mean()),
             "pooled": pooled(self.correct, mask)}
            for kind, chosen, mask in found if kind
        ]  # fmt: skip


def rows(scores: Sequence[Score], judged: Judged, resamples: int, against: Against = MULTITASK) -> list[Row]:
    """One row with stable keys for each method, setting, γ and so on, over its seeds; in order of first appearance.

    In per cent: ``mean`` over tasks and seeds; ``sd`` over seeds; ``ci_low``, ``ci_high``: 95 % interval over tasks of
    the accuracies averaged over seeds; ``diff``, ``diff_low``, ``diff_high``: paired difference to what is named in
    ``against`` (Uncond. Multitask if nothing else is), zero-shot and with as many questions known, over the tasks and
    common seeds; ``drop``…: for a control, by how much it is below the method's own
    score, paired in the same way; means over the tasks that are new in ``wording``, ``combination`` or ``family``, and
    by question family (``families``, and ``kinds`` with numbers of tasks and pooled); ``pooled`` over images;
    ``unshared`` without the images that training tasks have; ``soft``: VQA's soft accuracy, mean over tasks and seeds.
    ``closed`` is a fraction: of the distance from Uncond. Multitask to the highest few-shot mean. None: not known.

    ``ValueError`` for scores of another shape than ``judged``, a task without examples, or the same seed twice.
    """
    groups = _grouped(scores, judged)
    others = {group.first.descriptors: group for group in groups if _is(group.first, against)}
    reference = next((group for group in groups if group.first.role == REFERENCE), None)
    ceiling = max((group.mean for group in groups if group.first.setting == "few-shot"), default=None)
    own = {group.first.twin: group for group in reversed(groups) if group.first.setting == "zero-shot"}
    return [
        _row(group, reference, others.get(group.first.descriptors, others.get(1.0)), ceiling,
             own.get(group.first.twin), resamples)
        for group in groups
    ]  # fmt: skip


def _is(score: Score, against: Against) -> bool:
    """Whether the score is of what others are compared with."""
    method, gamma = against
    own = score.validated or score.gamma is None if gamma is None else score.gamma == gamma and not score.validated
    return score.method == method and score.setting == "zero-shot" and own


def _grouped(scores: Sequence[Score], judged: Judged) -> list[_Group]:
    if not judged.mask.any(1).all():
        raise ValueError(f"task {judged.questions[int(judged.mask.any(1).argmin())]!r} has no examples")
    found: dict[tuple[Any, ...], dict[int, Score]] = {}
    for score in scores:
        if score.correct.shape != judged.mask.shape:
            raise ValueError(f"{score.label}, seed {score.seed}: {score.correct.shape} scores instead of the "
                             f"{judged.mask.shape} (task, example) that were judged")  # fmt: skip
        known = found.setdefault(score.kind, {}).get(score.seed)
        if known is not None and not np.array_equal(known.correct, score.correct):
            raise ValueError(f"{score.label} ({score.setting}) is given twice for seed {score.seed}")
        found[score.kind][score.seed] = score
    return [_Group(tuple(seeds[seed] for seed in sorted(seeds)), judged) for seeds in found.values()]


def _row(
    group: _Group, reference: _Group | None, other: _Group | None, ceiling: float | None, own: _Group | None,
    resamples: int,
) -> Row:  # fmt: skip
    score, whole, of = group.first, estimate(group.accuracies.mean(0), resamples), group.by(group.judged.novelties)
    gammas, trusts = [score.gamma for score in group.scores], [score.trust for score in group.scores]
    diff, diff_low, diff_high = _difference(group, other, resamples)
    drop, drop_low, drop_high = _difference(own, group if score.setting == "control" else None, resamples)
    return rounded({
        "method": score.method, "label": score.label, "setting": score.setting, "control": score.control,
        "descriptors": score.descriptors, "gamma": gammas[0] if len({*gammas}) == 1 else None,
        "validated": score.validated, "gammas": None if {*gammas} == {None} else gammas,
        "trust": None if {*trusts} == {None} else trusts, "sampler": score.sampler,
        "seeds": [score.seed for score in group.scores], "tasks": whole.n,
        "mean": whole.mean, "sd": spread(group.accuracies), "ci_low": whole.low, "ci_high": whole.high,
        "diff": diff, "diff_low": diff_low, "diff_high": diff_high, "against": None if diff is None else _of(other),
        "closed": None if reference is None or ceiling is None else closed(group.mean, reference.mean, ceiling),
        "drop": drop, "drop_low": drop_low, "drop_high": drop_high,
        **{kind: of.get(kind) for kind in NOVELTIES},
        "pooled": pooled(group.correct, group.judged.mask), "unshared": group.unshared(), "soft": group.soft(),
        "families": group.by(group.judged.families), "kinds": group.kinds(),
    })  # fmt: skip


def _of(group: _Group | None) -> str | None:
    """The method of a group for people, with its γ."""
    if group is None:
        return None
    score = group.first
    fields = {"label": score.label, "gamma": score.gamma, "validated": score.validated, "control": score.control}
    return name(fields, chosen=False)


def _difference(
    group: _Group | None, other: _Group | None, resamples: int
) -> tuple[float | None, float | None, float | None]:
    """``group`` minus ``other``, paired, over the seeds that both have, with its interval; thrice None without any."""
    common = {score.seed for score in group.scores} & {score.seed for score in other.scores} if group and other else ()
    if group is None or other is None or not common:
        return None, None, None
    a, b = ([score.seed in common for score in each.scores] for each in (group, other))
    found = difference(group.accuracies[a], other.accuracies[b], resamples)
    return found.mean, found.low, found.high


def name(row: Row, chosen: bool = True) -> str:
    """The row's method for people: with its γ, and what stood in place of the question.

    A γ that was chosen on validation tasks may differ between rows of a method; without ``chosen`` it is left out.
    """
    if row["validated"] and not chosen:
        row = {**row, "gamma": None}
    own = "" if row["gamma"] is None else f" ({row['gamma']:g})"
    gamma = f", γ validated{own}" if row["validated"] else own and f", γ = {row['gamma']:g}"
    return f"{row['label']}{gamma}{IN_PLACE.get(row['control'], '')}"


def is_reference(row: Row) -> bool:
    """Whether the way to the few-shot ceiling begins at the row."""
    return (row["method"], row["setting"], row["control"]) == REFERENCE


def is_compared_with(row: Row) -> bool:
    """Whether the row is the one that others are compared with."""
    return row["setting"] == "zero-shot" and row["against"] == name(row, chosen=False)


def pivot(rows: Sequence[Row]) -> dict[str, list[dict[str, str]]]:
    """For each setting a table for people, with three columns for each share of descriptors; see ``caption``.

    "zero-shot" is Table 1 of the paper, "few-shot" its Table 4. The columns are "50 %": mean ± s.d. over seeds,
    "diff 50 %": interval of the difference, "closed 50 %": part of the distance to the few-shot ceiling.
    """
    tables: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        same, line = tables.setdefault(row["setting"], {}), name(row, chosen=False)
        known = same.setdefault(line, {"method": name(row)})
        known.update(_cells(row) | ({} if known["method"] == name(row) else {"method": line}))
    shares = {setting: sorted({row["descriptors"] for row in rows if row["setting"] == setting}) for setting in tables}
    return {setting: [_line(line, shares[setting]) for line in lines.values()] for setting, lines in tables.items()}


def _line(cells: dict[str, str], shares: Sequence[float]) -> dict[str, str]:
    columns = ["method", *(column for share in shares for column in _columns(share))]
    return {column: cells.get(column, "") for column in columns}


def _columns(share: float) -> tuple[str, str, str]:
    return f"{100 * share:g} %", f"diff {100 * share:g} %", f"closed {100 * share:g} %"


def _cells(row: Row) -> dict[str, str]:
    mean = f"{row['mean']:.2f}" + ("" if row["sd"] is None else f" ± {row['sd']:.2f}")
    diff = "" if row["diff"] is None or is_compared_with(row) else f"[{row['diff_low']:+.1f}, {row['diff_high']:+.1f}]"
    part = "" if row["closed"] is None or is_reference(row) else f"{100 * row['closed']:.0f} %"
    return dict(zip(_columns(row["descriptors"]), (mean, diff, part), strict=True))


def caption(rows: Sequence[Row]) -> str:
    """What the numbers in ``pivot`` mean, and over how many tasks and seeds they are; "" without rows."""
    if not rows:
        return ""
    reference = next(filter(is_reference, rows), None)
    best = max((row for row in rows if row["setting"] == "few-shot"), key=lambda row: row["mean"], default=None)
    words = [f"accuracy in per cent, mean over {rows[0]['tasks']} tasks ± s.d. over {_seeds(rows)}"]
    against = next((row["against"] for row in rows if row["against"]), None)
    if against:
        words.append(f"diff: 95 % interval over tasks of the paired difference to {against} (zero-shot)")
    if reference and best:
        words.append(f"closed: part of the distance from {reference['label']} (zero-shot) to the few-shot ceiling "
                     f"({best['mean']:.2f}, {name(best)})")  # fmt: skip
    return "; ".join([*words, *dict.fromkeys(row["sampler"] for row in rows if row["sampler"])])


def _seeds(rows: Sequence[Row]) -> str:
    """ "5 seeds", and which methods have others."""
    counts = [len(row["seeds"]) for row in rows]
    usual = max(counts, key=counts.count)
    fewer = ", ".join(f"{name(row)}: {count}" for row, count in zip(rows, counts, strict=True) if count != usual)
    return f"{usual} seed{'s' * (usual != 1)}{f' ({fewer})' if fewer else ''}"


def breakdown(rows: Sequence[Row]) -> list[Row]:
    """The mean accuracy of each row by what is new in the task and by question family, for people."""
    families = list(dict.fromkeys(family for row in rows for family in row["families"]))
    return [
        {"method": name(row), "setting": row["setting"], "descriptors": _columns(row["descriptors"])[0],
         **{key: row[key] for key in ("mean", *NOVELTIES, "pooled", "unshared", "soft")},
         **{f"family {family}": row["families"].get(family) for family in families}}
        for row in rows
    ]  # fmt: skip


def by_kind(rows: Sequence[Row]) -> list[Row]:
    """The accuracy of each row on each kind of question, the kind with most tasks first, for people."""
    found = [
        {"kind": kind["kind"], "tasks": kind["tasks"], "method": name(row), "setting": row["setting"],
         "descriptors": _columns(row["descriptors"])[0], "mean": kind["mean"], "pooled": kind["pooled"]}
        for row in rows
        for kind in row["kinds"]
    ]  # fmt: skip
    return sorted(found, key=lambda line: (-line["tasks"], line["kind"]))


def verdicts(rows: Sequence[Row]) -> list[str]:
    """For each method that was also measured with shuffled questions: whether it uses the text, in one sentence."""
    return [_verdict(row) for row in rows if row["control"] == "shuffled" and row["drop"] is not None]


def _verdict(row: Row) -> str:
    who = name({**row, "control": None})
    who += "" if row["descriptors"] == 1 else f" ({_columns(row['descriptors'])[0]} of the descriptors)"
    if row["tasks"] < 2:
        return f"Whether {who} uses the text cannot be told from one task."
    found = (f"with shuffled questions its accuracy {'falls' if row['drop'] >= 0 else 'rises'} by "
             f"{abs(row['drop']):.2f} points (95 % interval of the fall, paired over {row['tasks']} tasks: "
             f"{row['drop_low']:+.2f} to {row['drop_high']:+.2f})")  # fmt: skip
    return f"{who} {'uses' if row['drop_low'] > 0 else 'does not use'} the text: {found}."
