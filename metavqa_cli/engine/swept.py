"""What finished cells and evaluations measured on a dataset's test tasks, read off their files without torch.

``Reader.read`` gives ``Swept``: the accuracy of every task under every method, and what was answered. Curves against γ
are made of it in ``curves``, and what was answered to one task's images is told in ``judgements``.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from metavqa_cli.engine.judged import Answers, Judged, by_task, judged_tasks, of_kinds
from metavqa_cli.engine.kept import kept_arrays
from metavqa_cli.engine.manifest import check_recorded, open_manifest
from metavqa_cli.engine.predictions import ANSWERS
from metavqa_cli.engine.scores import CellSpec, scores_of
from metavqa_cli.engine.site import TASKS
from metavqa_cli.engine.table import Setting, name
from metavqa_cli.methods.registry import BY_KEY, Control
from metavqa_cli.schema.errors import JobError, MetaVQAError
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.taskset import Task, TaskSet, load_tasks

KINDS = ("cell", "eval")
SETTINGS = ("zero-shot", "few-shot", "control")  # what is measured on the test tasks

TEXTS, NUMBERS = ("method", "label", "sampler", "control", "layout", "run"), ("gamma", "descriptors")  # in files
NEEDED = ("method", "label", "descriptors", "seed")  # where they are said at all: null is no value of theirs
ROUNDING = 1e-6  # by which a mean of shares may be above 1

EARLIER = "earlier"  # in place of a sentence: such runs are told together

Stamp = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Measured:
    """What one method, trained with one seed, answered to the query pairs of every test task.

    ``accuracies`` are 0 to 1, in the order of ``Swept.tasks``; ``answers`` is None where an earlier version did not
    keep them. ``validated``: γ was chosen on validation tasks. ``layout`` tells base networks apart; evaluations do not
    say it. ``created`` is the time of the run, which sorts as text. ``ldm`` is the run of the HyperLDM that the weights
    were drawn from (None: of none, or it is not told).
    """

    run: str
    kind: Literal["cell", "eval"]
    created: str
    method: str
    label: str
    setting: Setting
    descriptors: float
    gamma: float | None
    validated: bool
    seed: int
    sampler: str | None
    control: Control | None
    layout: str | None
    accuracies: Float[np.ndarray, " task"]
    answers: Answers | None
    ldm: str | None = None

    @property
    def name(self) -> str:
        """The method for people: with its γ, the share of questions that it knew, and what replaced the question."""
        own = {"label": self.label, "gamma": self.gamma, "validated": self.validated, "control": self.control}
        return name(own) + ("" if self.descriptors == 1 else f" ({100 * self.descriptors:g} % of the questions)")

    @property
    def same(self) -> tuple[Any, ...]:
        """What it has in common with the same method in other seeds."""
        gamma = None if self.validated else self.gamma
        return self.method, self.setting, self.descriptors, gamma, self.validated, self.sampler, self.control


@dataclass(frozen=True, eq=False)
class Swept:
    """All that was measured on the test tasks of ``dataset`` as it is now, oldest first.

    ``problems``: a sentence for everything that could not be read.
    """

    dataset: str
    tasks: tuple[Task, ...]
    judged: Judged
    measured: tuple[Measured, ...]
    problems: tuple[str, ...] = ()

    @cached_property
    def families(self) -> tuple[str, ...]:
        """The question families that the dataset tells, the one with most tasks first."""
        return tuple(family for family, _ in of_kinds(self.judged.families) if family)

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """Where the pairs of each task stand in ``Measured.answers``."""
        ends = np.cumsum(self.judged.mask.sum(1)).tolist()
        return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))


# Reading


class Reader:
    """Reads a workspace again and again: a file that has not changed is not read twice.

    For one thread at a time.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._dataset: tuple[Any, ...] = ()
        self._tasks: tuple[tuple[Task, ...], Judged] | None = None
        self._known: dict[str, tuple[tuple[Stamp, ...], tuple[Measured, ...], str]] = {}

    def read(self, dataset: str, runs: Iterable[Run] | None = None) -> Swept:
        """What the finished ones among ``runs`` (all of the workspace, if none are given) measured on the dataset.

        Runs of other kinds or datasets are passed over; damaged and vanished ones are named in ``problems``.
        ``MissingError`` or ``JobError`` when the dataset itself is gone or damaged.
        """
        path, manifest = open_manifest(self.workspace, dataset)
        fingerprint = str(manifest["fingerprint"])
        state = (dataset, fingerprint, _stamp(path / TASKS) if (path / TASKS).exists() else None)
        if state != self._dataset or self._tasks is None:
            self._tasks, self._known, self._dataset = _test_tasks(path / TASKS), {}, state
        tasks, judged = self._tasks
        chosen = [Run(self.workspace.runs_dir / name) for name in self._ids()] if runs is None else list(runs)
        found = {run.id: self._of(run, dataset, fingerprint, tasks, judged) for run in chosen}
        self._known = {name: known for name, known in self._known.items() if name in found}
        measured = sorted(
            chain.from_iterable(ones for ones, _ in found.values()), key=lambda one: (one.created, one.run)
        )
        earlier = [name for name, (_, problem) in found.items() if problem == EARLIER]
        problems = [problem for _, problem in found.values() if problem not in ("", EARLIER)]
        if earlier:
            who = f"run {earlier[0]} was" if len(earlier) == 1 else f"{len(earlier)} runs were"
            problems.append(f"{who} measured on an earlier version of the dataset {dataset!r}")
        return Swept(dataset, tasks, judged, tuple(measured), tuple(problems))

    def _ids(self) -> list[str]:
        try:
            return self.workspace.run_ids()
        except OSError as error:
            path, reason = self.workspace.runs_dir, error.strerror or error
            raise JobError(f"cannot list {path}: {reason}; choose another --workspace") from None

    def _of(
        self, run: Run, dataset: str, fingerprint: str, tasks: Sequence[Task], judged: Judged
    ) -> tuple[tuple[Measured, ...], str]:
        """What a run measured, and what is wrong with it; neither for one that is not about this."""
        try:
            stamps = tuple(_stamp(path) for path in (run.path / "run.json", run.path / "result.json", run.model_path))
            known = self._known.get(run.id)
            if known is None or known[0] != stamps:
                known = self._known[run.id] = (stamps, *_read(run, dataset, fingerprint, tasks, judged))
            return known[1:]
        except FileNotFoundError:
            self._known.pop(run.id, None)
            return (), "" if (run.path / "run.json").exists() else f"run {run.id} is gone"
        except OSError as error:
            return (), f"run {run.id} cannot be read: {error.strerror or error}"


def _stamp(path: Path) -> Stamp:
    """What changes when a file is replaced or written. ``OSError`` when it is not there."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _test_tasks(path: Path) -> tuple[tuple[Task, ...], Judged]:
    check_recorded(path.parent, path.name)
    tasks: TaskSet = load_tasks(path)
    test = tuple(tasks.of("test"))
    if not test or not all(task.query for task in test):
        raise JobError(f"{path} has no test tasks, or one without query images; build the dataset again")
    return test, judged_tasks(tasks, None)


def _read(
    run: Run, dataset: str, fingerprint: str, tasks: Sequence[Task], judged: Judged
) -> tuple[tuple[Measured, ...], str]:
    try:
        manifest = run.manifest()
        made = manifest["dataset"]
        if manifest["kind"] not in KINDS or made["name"] != dataset:
            return (), ""
        if not isinstance(manifest["created"], str):
            raise ValueError(f"created is {manifest['created']!r}, no time")
        if made["fingerprint"] != fingerprint:
            return (), EARLIER
        read = _cell if manifest["kind"] == "cell" else _evaluation
        return tuple(_checked(one, tasks, judged) for one in read(run, manifest, judged)), ""
    except MetaVQAError as error:
        return (), str(error)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        way_out = f"`metavqa runs rm {run.id}` removes it"
        return (), f"run {run.id} is damaged ({type(error).__name__}: {error}); {way_out}"


def _cell(run: Run, manifest: dict[str, Any], judged: Judged) -> Iterator[Measured]:
    result = run.result() or {}
    for said in (manifest["cell"], result):
        _refuse_odd(said)
    layout, ldm = result["layout"], manifest["parents"].get("ldm")
    for score in scores_of(run, CellSpec(**manifest["cell"])):
        if score.correct.shape != judged.mask.shape:
            raise ValueError(f"scores of shape {score.correct.shape}, where {judged.mask.shape} were judged")
        yield Measured(
            run.id, "cell", manifest["created"], score.method, score.label, score.setting, score.descriptors,
            score.gamma, score.validated, score.seed, score.sampler, score.control, layout,
            by_task(score.correct, judged.mask), score.answers, ldm,
        )  # fmt: skip


def _evaluation(run: Run, manifest: dict[str, Any], judged: Judged) -> Iterator[Measured]:
    """The rows about test tasks. Their methods are called as in the tables; γ and control are fields there."""
    arrays = kept_arrays(run)
    share = run.config().get("questions", {}).get("descriptors", 1.0)
    _refuse_odd({"descriptors": share})
    for number, row in enumerate((run.result() or {})["rows"]):
        if row["setting"] not in SETTINGS:
            continue
        _refuse_odd(row)
        method = str(row["method"]).removesuffix("-validated").removesuffix("-shuffled")
        known = BY_KEY.get(method)
        yield Measured(
            run.id, "eval", manifest["created"], method, known.label if known else row["label"], row["setting"],
            share if known and known.conditional else 1.0, row["gamma"], row["method"].endswith("-validated"),
            row["seed"], row["sampler"], "shuffled" if row["setting"] == "control" else None, None,
            arrays[f"{number:02d}"].astype(np.float64), arrays.get(f"{number:02d}.{ANSWERS}"),
            row.get("run") if known and known.gammas else None,
        )  # fmt: skip


def _refuse_odd(said: Mapping[str, Any]) -> None:
    """``ValueError`` for a value that is none of its name: JSON and people write what they like, NaN among it."""
    for key, value in said.items():
        if value is None and key not in NEEDED:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if key in TEXTS and not isinstance(value, str):
            raise ValueError(f"{key} is {value!r}, no text")
        if key in NUMBERS and not number:
            raise ValueError(f"{key} is {value!r}, no finite number")
        if key == "seed" and not (number and isinstance(value, int)):
            raise ValueError(f"seed is {value!r}, no whole number")


def _checked(one: Measured, tasks: Sequence[Task], judged: Judged) -> Measured:
    """``ValueError`` for numbers of other tasks than these, or none that shares can be; for unknown answers."""
    if one.accuracies.shape != (len(tasks),):
        raise ValueError(f"accuracies of {len(one.accuracies)} tasks, where there are {len(tasks)}")
    if not ((one.accuracies >= 0) & (one.accuracies <= 1 + ROUNDING)).all():
        raise ValueError("an accuracy is not between 0 and 1")
    if one.answers is not None:
        most = np.array([len(task.answers) for task in tasks for _ in task.query])
        if one.answers.shape[1:] != most.shape or (one.answers < 0).any() or (one.answers >= most).any():
            raise ValueError(f"answers of shape {one.answers.shape} to {len(most)} pairs, or unknown ones")
    return one
