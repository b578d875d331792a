"""What can be done with runs and jobs from the dashboard: start, stop, resume, remove.

Each asks first where something could be lost, works beside the screen, and tells how it ended.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual.message import Message

from metavqa_cli.engine.configuration import preset_names
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store import removal
from metavqa_cli.store.runs import Run
from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.commands import first_wish, resuming
from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.jobs import Job, stop_run
from metavqa_cli.tui.room import Room
from metavqa_cli.tui.run_rows import children
from metavqa_cli.tui.widgets.choose import ChooseOne
from metavqa_cli.tui.widgets.dialogs import Confirm

if TYPE_CHECKING:
    from metavqa_cli.tui.widgets.command_form import Started

MOST_NAMED = 4


class Done(Message):
    """Something that was asked for has happened, or could not, and the sentence says why."""

    def __init__(self, sentence: str, wrong: bool) -> None:
        super().__init__()
        self.sentence, self.wrong = sentence, wrong


def new(room: Room, like: RunView | None) -> None:
    """Show the form that starts a training, on the dataset of ``like`` or of the newest run, if it is there."""
    from metavqa_cli.tui.widgets.job_form import JobForm  # not before the first paint

    app = room.dashboard
    view = like or next(reversed(app.snapshot.views), None)
    dataset = view.dataset if view and view.dataset in app.workspace.datasets() else None

    def start(answer: "Started | None") -> None:
        if answer is not None:
            app.start_job(answer[0], outlives=answer[1])

    app.push_screen(JobForm(preset_names(), room.look, first_wish(dataset)), start)


def stop(room: Room, view: RunView) -> None:
    """Ask the process that works on a run to write a checkpoint and to end."""
    if view.state != "running":
        room.dashboard.say(f"run {view.id} is not running: it is {view.state}", wrong=True)
        return
    question = f"stop {view.id}? It writes a checkpoint and can be resumed."
    _asking(room, question, "stop it", lambda: _stop(room, view))


def stop_one_of(room: Room, running: Sequence[Job]) -> None:
    """Ask a job that was started here to write a checkpoint and to end; of several, one is chosen first."""
    jobs = room.dashboard.jobs
    lines = {room.look.text(f"{job.process.pid}: {job.line}"): job for job in reversed(running)}

    def stop(line: str | None) -> None:
        if line is not None:
            jobs.stop(lines[line])

    if len(lines) > 1:
        room.dashboard.push_screen(ChooseOne("Stop which? It writes a checkpoint.", list(lines), None), stop)
    else:
        (line,) = lines
        question = f"stop {lines[line].line}? It writes a checkpoint and can be resumed."
        _asking(room, question, "stop it", lambda: stop(line))


def resume(room: Room, view: RunView) -> None:
    """Go on with an unfinished run, in a job."""
    try:
        room.dashboard.start_job(resuming(view), outlives=False)
    except MetaVQAError as error:
        room.dashboard.say(str(error), wrong=True)


def delete(room: Room, view: RunView) -> None:
    """Remove a run; the question names the runs that were made from it."""
    made = children(view.id, room.dashboard.snapshot.views)
    few = f"{', '.join(made[:MOST_NAMED])}{' and more' if len(made) > MOST_NAMED else ''}"
    but = f" {few} {'was' if len(made) == 1 else 'were'} made from it and will not load without it." if made else ""
    words = "remove all the same" if made else "remove it"
    _asking(room, f"remove {view.id} and its files?{but}", words, lambda: _remove(room, view, bool(made)))


def _remove(room: Room, view: RunView, force: bool) -> None:
    def work() -> str:
        removal.remove(Run(view.path), force)
        return f"removed {view.id}"

    _do(room, work, f"remove {view.id}")


def _stop(room: Room, view: RunView) -> None:
    def work() -> str:
        process = stop_run(Run(view.path))
        room.dashboard.jobs.asked(process)
        return f"asked process {process} to stop {view.id}; asked again, it stops at once"

    _do(room, work, f"stop {view.id}")


def _asking(room: Room, question: str, words: str, then: Callable[[], None]) -> None:
    room.dashboard.push_screen(
        Confirm(room.look.text(question), (("y", words),)), lambda answer: then() if answer == "y" else None
    )


def _do(room: Room, work: Callable[[], str], name: str) -> None:
    beside(partial(_told, room, work), name)


def _told(room: Room, work: Callable[[], str]) -> None:
    try:
        post(room, Done(work(), wrong=False))
    except (MetaVQAError, OSError) as error:
        post(room, Done(str(error), wrong=True))
