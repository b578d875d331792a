"""Some trainings for 400 steps in one process: ``python -m tests.endurance.short WORKSPACE`` says what a step kept.

Blocks of Python's allocator, files and threads a step over the second half, by training; the last one
keeps every loss on purpose.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

from metavqa_cli.engine.regression import RegressionTraining
from metavqa_cli.store.workspace import Workspace
from tests.endurance.meter import after
from tests.endurance.trainings import endured

NAMES, STEPS, EVERY = ("multitask", "mnet-maml", "hvae task", "ldm", "hyperclip"), 400, 40
LEAKING = "regression that keeps its losses"


@contextmanager
def leaking() -> Iterator[None]:
    """A training that keeps the loss of every step, with what it was computed from."""
    kept: list[Any] = []
    usual = RegressionTraining.loss

    def loss(self: RegressionTraining, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        found = usual(self, *args)
        kept.append(found[0].detach())
        return found

    with patch.object(RegressionTraining, "loss", loss):
        yield


def kept_a_step(name: str, workspace: Workspace) -> dict[str, float]:
    """What each step of the second half left behind."""
    first, *_, last = after(endured(name, workspace, STEPS, EVERY), STEPS // 2)
    steps = last.steps - first.steps
    return {what: (getattr(last, what) - getattr(first, what)) / steps for what in ("blocks", "files", "threads")}


def main() -> None:
    workspace = Workspace(Path(sys.argv[1]))
    kept_a_step("regression", workspace)  # the first training of a process fills the caches of torch
    found = {name: kept_a_step(name, workspace) for name in NAMES}
    with leaking():
        found[LEAKING] = kept_a_step("regression", workspace)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
