"""What a measurement keeps beside its result, read without torch."""

from typing import TYPE_CHECKING

from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_arrays

if TYPE_CHECKING:
    import numpy as np


def kept_arrays(run: Run) -> "dict[str, np.ndarray]":
    """The arrays that the finished ``run`` kept. Errors as ``load_arrays``; ``JobError`` for another run's."""
    remedy = f"measure it again: `metavqa runs rm {run.id}`"
    arrays, header = load_arrays(run.model_path, remedy=remedy)
    run.own(run.model_path, header, remedy)
    return arrays
