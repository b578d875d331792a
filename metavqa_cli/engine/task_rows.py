"""The accuracy of every test task under what was measured, as rows with stable keys. Without torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metavqa_cli.engine.swept import Measured, Swept

Row = dict[str, Any]


def task_rows(swept: Swept, measured: Sequence[Measured]) -> list[Row]:
    """A row for each test task and each of ``measured``, over its seeds; task by task as in the dataset.

    ``accuracy`` in per cent of the task's query ``pairs``, mean over the ``seeds``; ``method`` names it for people as
    tables do, ``key`` is the row of the table. Of the same seed measured twice the newer counts.
    """
    groups: dict[tuple[Any, ...], dict[int, Measured]] = {}
    for one in measured:
        groups.setdefault(one.same, {})[one.seed] = one
    found = [_of_method(list(seeds.values()), swept) for seeds in groups.values()]
    return [row for of_task in zip(*found, strict=True) for row in of_task]


def _of_method(seeds: Sequence[Measured], swept: Swept) -> list[Row]:
    first, gammas = seeds[0], {one.gamma for one in seeds}
    accuracies = 100 * np.mean([one.accuracies for one in seeds], axis=0)
    same = {
        "method": first.name if len(gammas) == 1 else f"{first.label}, γ validated", "key": first.method,
        "setting": first.setting, "control": first.control, "descriptors": first.descriptors,
        "gamma": first.gamma if len(gammas) == 1 else None, "validated": first.validated,
        "seeds": [one.seed for one in seeds], "runs": [one.run for one in seeds],
    }  # fmt: skip
    return [
        {"question": task.question, "family": task.family or None, **same, "accuracy": round(accuracy, 3),
         "pairs": len(task.query)}
        for task, accuracy in zip(swept.tasks, accuracies.tolist(), strict=True)
    ]  # fmt: skip
