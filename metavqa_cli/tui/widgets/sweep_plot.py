"""The curves of a sweep with a line where they are read, as large as their place."""

from typing import TYPE_CHECKING

from rich.text import Text
from textual.widget import Widget

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.sweep_data import Choice, colored, drawn, shown_curves

if TYPE_CHECKING:
    from metavqa_cli.engine.curves import Sweep


class SweepPlot(Widget, can_focus=True):
    """Draws when something has changed, not each time it is asked to."""

    DEFAULT_CSS = "SweepPlot { height: 1fr; width: 1fr; }"

    def __init__(self, look: Look, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.sweep: Sweep | None = None
        self.choice, self.gamma, self.nothing = Choice(), None, ""
        self._drawn: tuple[object, Text] = (None, Text())

    choice: Choice
    gamma: float | None
    nothing: str

    def show(self, sweep: "Sweep | None", choice: Choice, gamma: float | None, nothing: str) -> None:
        """The curves of ``sweep``, and a line at ``gamma``; without curves, the sentence ``nothing``."""
        self.sweep, self.choice, self.gamma, self.nothing = sweep, choice, gamma, nothing
        self.refresh()

    def render(self) -> Text:
        size = (self.content_size.width, self.content_size.height)
        key = (self.sweep, self.choice, self.gamma, self.nothing, size)
        if self._drawn[0] != key:
            self._drawn = (key, self._draw(size))
        return self._drawn[1]

    def _draw(self, size: tuple[int, int]) -> Text:
        if self.sweep is None or not self.sweep.curves:
            return Text(self.look.text(self.nothing))
        lines = drawn(self.sweep, self.choice, self.gamma, size, self.look)
        return colored([self.look.text(line) for line in lines], len(shown_curves(self.sweep, self.choice)), self.look)
