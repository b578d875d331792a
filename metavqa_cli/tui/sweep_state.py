"""Where a person stands in the room γ sweep: which curve, γ, family and task. Says what is to be shown; no screen."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from metavqa_cli.tui.sweep_data import BANDS, Choice, current_curve, shares, stop_at, stops
from metavqa_cli.tui.sweep_feed import Board
from metavqa_cli.tui.sweep_tasks import ORDERS, JudgedImage, Order, TaskLine, accuracies_at, judged_images, summary
from metavqa_cli.tui.sweep_tasks import task_lines as lines_of

if TYPE_CHECKING:
    from metavqa_cli.engine.curves import Curve, Point


@dataclass(frozen=True)
class State:
    """``gamma`` is where the line stands (None: where it stands by itself), ``before`` where it stood before.

    ``question`` names the task, whatever the order of the list; ``words`` filter it.
    """

    board: Board = Board()  # noqa: RUF009 (frozen)
    choice: Choice = Choice()  # noqa: RUF009
    gamma: float | None = None
    before: float | None = None
    family: str = ""
    words: str = ""
    order: Order = "file"
    question: str | None = None

    @property
    def curve(self) -> "Curve | None":
        """The curve that is scrubbed."""
        return current_curve(self.board.sweep, self.choice) if self.board.sweep else None

    @property
    def here(self) -> "Point | None":
        """The point at the line."""
        points = stops(self.curve)
        return points[stop_at(points, self.gamma, self.curve)] if points else None

    @property
    def there(self) -> "Point | None":
        """The point where the line was before; None if it was at no other."""
        points = stops(self.curve)
        if not points or self.before is None:
            return None
        found = points[stop_at(points, self.before)]
        return None if found is self.here else found

    # Ways

    def scrubbed(self, by: int) -> "State":
        """The line ``by`` points to the right."""
        points = stops(self.curve)
        if not points:
            return self
        at = stop_at(points, self.gamma, self.curve)
        to = min(max(at + by, 0), len(points) - 1)
        return self if to == at else replace(self, before=points[at].gamma, gamma=points[to].gamma)

    def next_family(self, by: int) -> "State":
        """Only the tasks of the next family, or of all."""
        families = ["", *(self.board.swept.families if self.board.swept else ())]
        at = families.index(self.family) if self.family in families else 0
        return replace(self, family=families[(at + by) % len(families)])

    def next_share(self) -> "State":
        """Only curves of methods that knew the next share of the questions, or all."""
        known: list[float | None] = [None, *(shares(self.board.sweep) if self.board.sweep else ())]
        at = known.index(self.choice.share) if self.choice.share in known else 0
        return replace(self, choice=replace(self.choice, share=known[(at + 1) % len(known)], current=None))

    def next_band(self) -> "State":
        """Bands over seeds, over tasks, or none."""
        at = BANDS.index(self.choice.band)
        return replace(self, choice=replace(self.choice, band=BANDS[(at + 1) % len(BANDS)]))

    def next_order(self) -> "State":
        orders = list(ORDERS)
        return replace(self, order=orders[(orders.index(self.order) + 1) % len(orders)])

    # What is shown

    def task_lines(self) -> list[TaskLine]:
        """The list of tasks."""
        if self.board.swept is None:
            return []
        return lines_of(self.board.swept, self.here, self.there, family=self.family, words=self.words,
                        order=self.order)  # fmt: skip

    def judged(self, line: TaskLine | None) -> tuple[list[str], list[JudgedImage]]:
        """A task in words, and what was answered to its images at the line; nothing without a task."""
        here, there, swept = self.here, self.there, self.board.swept
        if line is None or here is None or swept is None:
            return [], []
        from metavqa_cli.engine.swept import judgements  # imported by now: the board came from it

        earlier = judgements(swept, there.measured, line.number) if there else ()
        gamma = there.gamma if there else None
        images = judged_images(judgements(swept, here.measured, line.number), earlier)
        before = accuracies_at(there)[line.number] if there else None
        return summary(line.question, line.family, images, line.now, before, here.gamma, gamma), images
