"""The results of the room Ask: side by side, and the list of the last ones; pinned, saved, copied as a command."""

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.tui.answer_text import history_line
from metavqa_cli.tui.ask_history import History
from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.results import Result, command, file_name, save
from metavqa_cli.tui.widgets.answer_view import Answers
from metavqa_cli.tui.widgets.dialogs import Confirm
from metavqa_cli.tui.widgets.path_dialog import PathDialog

if TYPE_CHECKING:
    from metavqa_cli.tui.app import Dashboard


class ResultDesk(Vertical):
    """Owns the history. Keys belong to the room, which calls ``pin``, ``save`` and ``copy``."""

    class BroughtBack(Message):
        """An earlier result is in front again."""

        def __init__(self, result: Result) -> None:
            super().__init__()
            self.result = result

    class Saved(Message):
        """A classifier was written to a path, or not, for the reason given."""

        def __init__(self, value: Any) -> None:
            super().__init__()
            self.value = value

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.history = History()

    def compose(self) -> ComposeResult:
        yield Answers(self.dashboard.look, id="ask-results")
        yield OptionList(Option(Text("none yet"), disabled=True), id="ask-history", compact=True)

    @property
    def dashboard(self) -> "Dashboard":
        return cast("Dashboard", self.app)

    @property
    def current(self) -> Result | None:
        """The result in front; without one, says so."""
        if self.history.current is None:
            self.dashboard.say("ask a question first: there is no result yet")
        return self.history.current

    def focus_answers(self) -> None:
        self.query_one(Answers).views[0].focus()

    def add(self, result: Result) -> None:
        """Put a new result in front."""
        self.history.add(result)
        self._show()

    def on_resize(self, event: Resize) -> None:
        if self.history.results:
            self._show_list()

    def _show(self) -> None:
        self.query_one(Answers).show(self.history.shown())
        self._show_list()

    def _show_list(self) -> None:
        listed, look = self.query_one("#ask-history", OptionList), self.dashboard.look
        width = max(20, listed.scrollable_content_region.width)
        lines = [history_line(one, look, one in self.history.pinned, width) for one in self.history.results]
        listed.set_options(Text(line, no_wrap=True) for line in lines)
        if self.history.current in self.history.results:
            listed.highlighted = self.history.results.index(self.history.current)

    @on(OptionList.OptionSelected, "#ask-history")
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        result = self.history.bring_back(event.option_index)
        self._show()
        self.post_message(self.BroughtBack(result))

    def pin(self) -> None:
        """Keep the result in front beside the next ones, or let it go."""
        if self.current is not None:
            self.history.pin()
            self._show()

    def copy(self) -> None:
        """Copy the command line that gives the result in front."""
        result = self.current
        if result is None:
            return
        try:
            self.dashboard.copy(shlex.join(["metavqa", *command(result, self.dashboard.workspace.root)]))
        except MetaVQAError as error:
            self.dashboard.say(str(error), wrong=True)

    def save(self) -> None:
        """Write the classifier of the result in front to a file that is asked for."""
        result = self.current
        if result is not None:
            dialog = PathDialog("Save the classifier as", file_name(result))
            self.app.push_screen(dialog, partial(self._save, result))

    def _save(self, result: Result, typed: str | None) -> None:
        if typed is None:
            return
        try:
            path = Path(typed).expanduser()
            is_folder, is_there = path.is_dir(), path.exists()
        except (OSError, RuntimeError) as error:  # too long a name, no such home
            reason = getattr(error, "strerror", None) or error
            self.dashboard.say(f"{typed[:200]!r} is no path that can be written: {reason}", wrong=True)
            return
        if is_folder:
            self.dashboard.say(f"{path} is a folder; name a file in it", wrong=True)
        elif is_there:
            question = Confirm(self.dashboard.look.text(f"{path} exists. Replace it?"), (("y", "replace"),))
            self.app.push_screen(question, lambda answer: self._write(result, path) if answer == "y" else None)
        else:
            self._write(result, path)

    def _write(self, result: Result, path: Path) -> None:
        beside(lambda: post(self, self.Saved(save(result, path))), "save")  # it needs no model, and waits for none

    def on_result_desk_saved(self, event: Saved) -> None:
        if isinstance(event.value, Path):
            read = f"metavqa predict {shlex.quote(str(event.value))} IMAGE... judges with it"
            self.dashboard.say(f"wrote {event.value}; {read}")
        else:
            self.dashboard.say(str(event.value) or "the classifier was not saved", wrong=True)
