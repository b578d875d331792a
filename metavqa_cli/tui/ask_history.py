"""The results of one visit to the room Ask: which is in front, which are pinned, what the newest is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from metavqa_cli.tui.results import Result

KEPT, PINNED = 50, 2  # results that are kept, and that stand beside the newest
JUDGED = 200_000  # probabilities that all results together keep, besides the newest: 40 MB


@dataclass(frozen=True)
class Shown:
    """A result as it is shown: pinned or not, compared with the one ``before``."""

    result: Result
    pinned: bool = False
    before: Result | None = None


class History:
    """The newest results first; pinned ones stay beside whatever is asked next."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.pinned: list[Result] = []
        self.current: Result | None = None
        self._before: Result | None = None
        self._asked = 0

    def add(self, result: Result) -> Result:
        """Put a new result in front; compared with the one that was there if that answers the same question."""
        self._asked += 1
        numbered = replace(result, number=self._asked)
        self._before = self.current if self.current is not None and is_comparable(self.current, numbered) else None
        self.current = numbered
        self.results = recent([numbered, *self.results])
        return numbered

    def bring_back(self, place: int) -> Result:
        """Put an earlier result in front, as it was."""
        self.current, self._before = self.results[place], None
        return self.current

    def pin(self) -> bool | None:
        """Pin the result in front, or unpin it; of two pinned ones the older makes room. None: there is none."""
        if self.current is None:
            return None
        if self.current in self.pinned:
            self.pinned.remove(self.current)
            return False
        self.pinned = [*self.pinned, self.current][-PINNED:]
        return True

    def shown(self) -> list[Shown]:
        """What stands side by side: the pinned ones, then the one in front if it is not among them."""
        shown = [Shown(result, True, self._before if result is self.current else None) for result in self.pinned]
        if self.current is not None and self.current not in self.pinned:
            shown.append(Shown(self.current, False, self._before))
        return shown


def recent(results: Sequence[Result]) -> list[Result]:
    """The first of ``results``: not too many, nor those of too many images together; one always."""
    sizes = [2 * len(one.answer.judgements) * len(one.answer.classifier.answers) for one in results]
    kept = [one for one, total in zip(results, accumulate(sizes), strict=True) if total <= JUDGED]
    return (kept or list(results[:1]))[:KEPT]


def is_comparable(before: Result, after: Result) -> bool:
    """Whether both answer one question about at least one common image."""
    same = before.answer.classifier.question == after.answer.classifier.question
    return same and bool(before.tops.keys() & after.tops.keys())
