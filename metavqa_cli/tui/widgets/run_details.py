"""Beside the list of runs: what the highlighted one is, where the selected ones differ, and the jobs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Static

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.runs import Run
from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.jobs import Job
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.run_rows import details, duration
from metavqa_cli.tui.snapshot import Snapshot

if TYPE_CHECKING:
    from metavqa_cli.tui.run_differences import Row

MOST_COMPARED = 8
NO_DIFFERENCES = "Select two or more runs with space to see where they differ."


class _Words(VerticalScroll):
    """A pane of text that scrolls."""

    def compose(self) -> ComposeResult:
        yield Static("")

    def say(self, text: Text) -> None:
        """Show this text."""
        self.query_one(Static).update(text)


class RunDetails(_Words):
    """What the highlighted run is."""

    def show(self, view: RunView | None, views: Sequence[RunView], look: Look) -> None:
        """Show one run; its lineage is looked up among ``views``."""
        text = Text()
        for name, value in details(view, views, look) if view else ():
            text.append(f"{name:9} ", "bold").append(f"{value}\n", "bold" if name == "error" else "")
        self.say(text if view else Text("no run is highlighted"))


class Differences(_Words):
    """Where the selected runs differ. Their files are read beside the screen, once for each selection."""

    class Found(Message):
        """The differences of the runs with these ids, or why they are not known."""

        def __init__(self, ids: tuple[str, ...], rows: "list[Row]", wrong: str | None) -> None:
            super().__init__()
            self.ids, self.rows, self.wrong = ids, rows, wrong

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.asked: tuple[tuple[str, str], ...] | None = None
        self.waiting = False
        self.rows: list[Row] = []

    def show(self, selected: Sequence[str], snapshot: Snapshot, look: Look) -> None:
        """Compare the first of these runs, unless that was done and none has changed its state since."""
        chosen = [view for run in selected[:MOST_COMPARED] if (view := snapshot.view(run)) is not None]
        asked = tuple((view.id, view.state) for view in chosen)
        self.border_subtitle = f"the first {MOST_COMPARED} of {len(selected)}" if len(selected) > MOST_COMPARED else ""
        if asked == self.asked:
            return
        self.asked, self.look, self.rows = asked, look, []
        self.waiting = len(chosen) >= 2
        if self.waiting:
            runs = [Run(view.path) for view in chosen]
            beside(lambda: post(self, self._compared(runs)), "differences")
        else:
            self.say(Text(NO_DIFFERENCES))

    def _compared(self, runs: Sequence[Run]) -> Message:
        from metavqa_cli.tui.run_differences import differences  # brings pydantic: not before the first paint

        ids = tuple(run.id for run in runs)
        try:
            return self.Found(ids, differences(runs), None)
        except (MetaVQAError, OSError) as error:
            return self.Found(ids, [], str(error))

    def on_differences_found(self, message: Found) -> None:
        if message.ids != tuple(run for run, _ in self.asked or ()):
            return  # another selection has been made since
        self.waiting, self.rows = False, message.rows
        self.say(difference_text(message.ids, message.rows, message.wrong, self.look))


class JobList(_Words):
    """The jobs started here, the newest first."""

    def show(self, jobs: Sequence[Job], now: float, look: Look) -> None:
        """Show how each job stands."""
        self.set_class(not jobs, "idle")
        text = Text()
        for job in reversed(jobs):
            text.append(f"{job.ending()} ", "bold").append(f"{duration(job.took(now))} ")
            lines = [f"{job.line}{' (goes on after quitting)' if job.outlives else ''}"]
            if job.code not in (None, 0) and (words := job.last_words()):
                lines.append(f"  {words}")
            text.append("".join(f"{look.text(line)}\n" for line in lines))
        self.say(text if jobs else Text("n starts a training, u resumes the highlighted run"))


def difference_text(ids: Sequence[str], rows: "Sequence[Row]", wrong: str | None, look: Look) -> Text:
    """Each key with the value of each run beneath it."""
    if wrong:
        return Text(f"! {look.text(wrong)}")
    names = [look.text(run) for run in ids]
    if not rows:
        return Text(f"{', '.join(names)} do not differ")
    text = Text()
    width = max(map(cell_len, names))
    for row in rows:
        text.append(f"{look.text(row['key'])}\n", "bold")
        for run, name in zip(ids, names, strict=True):
            text.append(f"  {set_cell_size(name, width)}  {look.text(_value_text(row.get(run)))}\n")
    return text


def _value_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)
