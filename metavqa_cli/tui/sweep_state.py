"""Where a person stands in the room γ sweep: which curve, γ, family and task. Says what is to be shown; no screen."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from metavqa_cli.tui.sweep_data import BANDS, Choice, CurveKey, current_curve, shares, stop_at, stops
from metavqa_cli.tui.sweep_feed import Board
from metavqa_cli.tui.sweep_live import Drawn, Model, live_head, stepped
from metavqa_cli.tui.sweep_tasks import ORDERS, JudgedImage, Order, TaskLine, judged_images, summary
from metavqa_cli.tui.sweep_tasks import task_lines as lines_of

if TYPE_CHECKING:
    from metavqa_cli.engine.curves import Curve, Point


@dataclass(frozen=True)
class State:
    """``gamma`` is where the line stands (None: where it stands by itself), ``before`` where it stood before.

    ``question`` names the task, whatever the order of the list; ``words`` filter it. ``live`` is the γ at which the
    task's classifier is generated anew by ``model`` (None: only what was measured is shown), ``drawn`` what came of it.
    """

    board: Board = Board()  # noqa: RUF009 (frozen)
    choice: Choice = Choice()  # noqa: RUF009
    gamma: float | None = None
    before: float | None = None
    family: str = ""
    words: str = ""
    order: Order = "file"
    question: str | None = None
    live: float | None = None
    model: Model | None = None
    drawn: Drawn | None = None

    @property
    def line(self) -> float | None:
        """Where the line of the plot stands."""
        here = self.here
        return self.live if self.live is not None else here.gamma if here else None

    @property
    def since(self) -> float | None:
        """The γ that changes are told from: where the line was before; live, the nearest measured one."""
        there = self.there if self.live is None else self.here
        return there.gamma if there else None

    @property
    def curve(self) -> "Curve | None":
        """The curve that is scrubbed."""
        return current_curve(self.board.sweep, self.choice) if self.board.sweep else None

    @property
    def of(self) -> tuple[str | None, CurveKey | None]:
        """What a live γ is of: the dataset and the curve. Of others it would be another model's."""
        return self.board.dataset, self.curve.key if self.curve else None

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
        """The line ``by`` points, or live ``by`` steps, to the right."""
        if self.live is not None:
            live = stepped(self.live, by)
            return replace(self, live=live, gamma=live)
        points = stops(self.curve)
        if not points:
            return self
        at = stop_at(points, self.gamma, self.curve)
        to = min(max(at + by, 0), len(points) - 1)
        return self if to == at else replace(self, before=points[at].gamma, gamma=points[to].gamma)

    def at_task(self, question: str | None) -> "State":
        """Another task; what was generated for the last one is void."""
        return self if question == self.question else replace(self, question=question, drawn=None)

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

    def judged(self, line: TaskLine | None, waiting: str) -> tuple[list[str], list[JudgedImage]]:
        """A task in words, and what was answered to its images at the line; nothing without a task.

        ``waiting`` is what is said while nothing was generated yet.
        """
        here, swept = self.here, self.board.swept
        if line is None or here is None or swept is None:
            return [], []
        from metavqa_cli.engine.judgements import judgements  # imported by now: the board came from it

        measured = judgements(swept, here.measured, line.number)
        if self.live is not None:
            head = live_head(line.question, line.family, self.drawn, self.live, waiting, self.model)
            return head, judged_images(self.drawn.judgements if self.drawn else (), measured)
        there = self.there
        images = judged_images(measured, judgements(swept, there.measured, line.number) if there else ())
        return summary(line, images, here, there), images
