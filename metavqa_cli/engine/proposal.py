"""What is known of a question before a classifier is made: training questions like it, and answers to propose.

Without torch: questions are compared by their words. ``Asker.neighbours`` compares them as the model sees them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from heapq import nlargest

from metavqa_cli.tasks.taskset import Task

NEAREST = 3  # training questions whose answers are proposed
SHORTLIST = 40  # that share words with the question, of which the spelling is compared: it takes 0.1 ms each


@dataclass(frozen=True)
class Neighbour:
    """A training question and its similarity to the typed one: a cosine, or of spelling from 0 to 1."""

    question: str
    similarity: float


def proposed_answers(near: Sequence[Task]) -> list[str]:
    """The answers of the nearest task and of those of ``near`` that share some: a question about sizes beside two about
    patterns has nothing to add."""
    first = set(near[0].answers) if near else set()
    alike = [task for task in near if first.intersection(task.answers)]
    return list(dict.fromkeys(answer for task in alike for answer in task.answers))


def nearest_by_words(question: str, tasks: Sequence[Task], most: int = NEAREST) -> list[tuple[Task, float]]:
    """The tasks whose questions are spelled most alike, nearest first, with the similarity from 0 to 1.

    The last word may be unfinished. Nothing is near an empty question.
    """
    words = _words(question)
    if not words:
        return []
    text = " ".join(words)
    shared = ((_shared(words, _words(task.question)), -number) for number, task in enumerate(tasks))
    short = [tasks[-number] for count, number in nlargest(SHORTLIST, shared) if count]
    matcher = SequenceMatcher(b=text, autojunk=False)
    found = []
    for task in short:
        matcher.set_seq1(" ".join(_words(task.question)))
        found.append((task, matcher.ratio()))
    return sorted(found, key=lambda pair: -pair[1])[:most]


def _words(question: str) -> list[str]:
    return question.lower().replace("?", " ").split()


def _shared(words: Sequence[str], others: Sequence[str]) -> float:
    """How many of ``words`` are among ``others``, less the share of those that are not asked for."""
    known = set(others)
    count = sum(word in known for word in words[:-1])
    count += words[-1] in known or any(other.startswith(words[-1]) for other in known)
    return count and count - len(known.difference(words)) / (len(known) + 1)
