"""What methods answered to the query images of one test task, of what ``swept`` read. Without torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metavqa_cli.engine.swept import Measured, Swept
from metavqa_cli.tasks.taskset import Task

Verdict = Literal["right", "tie", "wrong"]


@dataclass(frozen=True)
class Judgement:
    """What was answered to a query image: each answer given, with its share of the samples, the most frequent first.

    Equal shares are in the order of the task's answers, which says nothing about them.
    """

    image: str
    right: str
    shares: tuple[tuple[str, float], ...]

    @property
    def most_frequent(self) -> tuple[str, ...]:
        """The answer that was given most often, or all that were given equally often."""
        return tuple(answer for answer, share in self.shares if share == self.share)

    @property
    def answer(self) -> str:
        """The most frequent answer; of several, "red = blue"."""
        return " = ".join(self.most_frequent)

    @property
    def share(self) -> float:
        """That of the most frequent answer, or of each of them."""
        return self.shares[0][1]

    @property
    def verdict(self) -> Verdict:
        """Whether the most frequent answer is right; a tie is one with the right answer among those it is between."""
        if self.right not in self.most_frequent:
            return "wrong"
        return "right" if len(self.most_frequent) == 1 else "tie"


def judgements(swept: Swept, measured: Sequence[Measured], task: int) -> tuple[Judgement, ...]:
    """What all samples of ``measured`` (one method's seeds) together answered to the query images of a task.

    Nothing where none kept its answers.
    """
    kept = [one.answers[:, swept.places[task]] for one in measured if one.answers is not None]
    if not kept:
        return ()
    drawn, asked = np.concatenate(kept), swept.tasks[task]
    return tuple(_judgement(asked, image, label, drawn[:, row].tolist())
                 for row, (image, label) in enumerate(asked.query))  # fmt: skip


def _judgement(task: Task, image: str, label: int, drawn: Sequence[int]) -> Judgement:
    counts = sorted(Counter(drawn).items(), key=lambda item: (-item[1], item[0]))
    return Judgement(image, task.answers[label], tuple((task.answers[a], n / len(drawn)) for a, n in counts))
