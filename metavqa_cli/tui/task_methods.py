"""What was measured task by task, grouped into methods: the seeds of one together, the newest run of each seed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metavqa_cli.tui.task_list import Accuracies

if TYPE_CHECKING:
    from metavqa_cli.engine.swept import Measured, Swept

SETTINGS = ("zero-shot", "few-shot", "control")
SHOWN_AT_FIRST = 3
Key = tuple[Any, ...]
Keys = tuple[Key, ...]


@dataclass(frozen=True, eq=False)
class Method:
    """A method's accuracy on each test task, in per cent, mean over its seeds.

    ``key`` stays the same when it is measured again.
    """

    key: Key
    method: str
    name: str
    setting: str
    validated: bool
    """γ was chosen on validation tasks."""
    seeds: int
    mean: float
    """Over the tasks."""
    accuracies: Accuracies

    @property
    def title(self) -> str:
        """The name with the setting and the number of seeds, where these are not the usual ones."""
        setting = "" if self.setting == "zero-shot" or self.setting in self.name else f", {self.setting}"
        return f"{self.name}{setting}{f' ({self.seeds} seeds)' if self.seeds > 1 else ''}"


def methods_of(swept: "Swept", numbers: Sequence[int], selected: Collection[str]) -> tuple[Method, ...]:
    """The methods that ``selected`` runs measured, or all runs where none of these did, best first in each setting.

    ``numbers`` are the places of the test tasks in the file.
    """
    chosen = [one for one in swept.measured if one.run in selected] or swept.measured
    groups: dict[Key, dict[int, Measured]] = {}
    for one in chosen:  # oldest first: of a seed that was measured twice the newest stays
        groups.setdefault(one.same, {})[one.seed] = one
    found = [_method(key, list(seeds.values()), numbers) for key, seeds in groups.items()]
    return tuple(sorted(found, key=lambda method: (SETTINGS.index(method.setting), -method.mean, method.name)))


def _method(key: Key, seeds: "Sequence[Measured]", numbers: Sequence[int]) -> Method:
    import numpy as np

    per_task = 100 * np.mean([one.accuracies for one in seeds], axis=0)
    names = {one.name for one in seeds}
    name = names.pop() if len(names) == 1 else f"{seeds[0].label}, γ validated"
    accuracies: Mapping[int, float] = dict(zip(numbers, per_task.tolist(), strict=True))
    return Method(
        key, seeds[0].method, name, seeds[0].setting, seeds[0].validated, len(seeds), float(per_task.mean()), accuracies
    )


def shown_at_first(methods: Sequence[Method]) -> Keys:
    """The keys of the methods to begin with: one of each kind, zero-shot before others, the best first.

    Of one at several γ it is the validated one: the best on these tasks would be chosen by what it is judged by.
    """
    usual: dict[Any, Key] = {}
    for method in methods:
        kind = (method.setting, method.method)
        if kind not in usual or method.validated:
            usual[kind] = method.key
    return tuple(usual.values())[:SHOWN_AT_FIRST]


def chosen(methods: Sequence[Method], keys: Keys) -> tuple[Keys, tuple[Method, ...]]:
    """Those of ``keys`` that are there, and the methods to show: theirs, or the usual ones if there are none."""
    known = {method.key: method for method in methods}
    there = tuple(key for key in keys if key in known)
    return there, tuple(known[key] for key in there or shown_at_first(methods))
