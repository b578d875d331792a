"""The dashboard: one frozen snapshot of the workspace, painted by five rooms. ``make_app`` builds it from plain values.

A thread beside the screen reads the workspace and posts ``SnapshotRead``; the room in front is given the snapshot. No
torch until the room Ask, or a live γ, asks for it (``asking.py``), and that in a thread too.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, cast

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.dom import DOMNode
from textual.filter import LineFilter, Monochrome, NoColor
from textual.reactive import reactive
from textual.screen import Screen

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.schema.text import neutral
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui import settings as settings_file
from metavqa_cli.tui.asking import Asking
from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.feed import RunsFeed
from metavqa_cli.tui.jobs import Job, Jobs
from metavqa_cli.tui.look import AsciiFilter, Look, SafeFilter
from metavqa_cli.tui.room import ROOMS, Room, RoomName
from metavqa_cli.tui.snapshot import Snapshot, SnapshotRead
from metavqa_cli.tui.widgets.dialogs import Confirm, Help

LOOK_SECONDS = 1.0  # between two looks at the workspace, or ten times as long as one takes, if that is more
INTERRUPTED = 130  # exit code
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
WARM_SECONDS = 0.5  # after the first paint: what rooms and forms need is imported beside, before it is asked for
SLOW_SECONDS = 3.0  # after which the screen says that the workspace does not answer
NO_COLOR, SAFE, ASCII = NoColor(), SafeFilter(), AsciiFilter()  # one of each: a line keeps what a filter made of it
COMMON_HELP = "Every room has a command that shows the same without a dashboard: metavqa tui --help lists them."


def make_app(
    root: Path,
    *,
    room: RoomName = "runs",
    selected: Sequence[str] = (),
    ascii: bool = False,
    color: bool = True,
    settings: Path | None = None,
    program: Sequence[str] = ("metavqa",),
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
    look_seconds: float = LOOK_SECONDS,
    dataset: str | None = None,
    asking: Callable[[Workspace, str | None], Asking] = Asking,
) -> "Dashboard":
    """The dashboard on the workspace in the folder ``root``, opened in ``room``, with these runs ``selected``.

    ``settings`` is the file of what it remembers (None: nothing is), ``program`` what ``metavqa`` is started as for
    jobs, ``environment`` what they run in (None: this process's), ``clock`` gives seconds since 1970, and ``dataset``
    is the one that Tasks, γ sweep and Ask begin with (None: that of the newest run). ``asking`` makes the service that
    owns torch, of the workspace and ``dataset``, when a room first needs it.
    """
    look, jobs = Look(ascii, color), Jobs(Workspace(root), program, os.environ if environment is None else environment)
    return Dashboard(Workspace(root), room, tuple(selected), look, settings, jobs, clock, look_seconds, dataset, asking)


def _make_room(name: RoomName) -> Room:
    """Rooms are imported when they are first entered: the first paint needs only one."""
    return cast(Room, import_module(f"metavqa_cli.tui.screens.{name}").make_room())


def _own_actions(kind: type[DOMNode]) -> set[str]:
    """The actions that this program binds to keys of a kind of widget: those that Textual brings nobody looks up."""
    own = [base.__dict__.get("BINDINGS", ()) for base in kind.__mro__ if base.__module__.startswith("metavqa_cli.")]
    return {binding.action for bindings in own for binding in bindings if isinstance(binding, Binding)}


def _warm() -> None:
    for name in (*(f"screens.{room}" for room in ROOMS), "widgets.job_form", "run_differences"):
        import_module(f"metavqa_cli.tui.{name}")


class Dashboard(App[int]):
    """Holds what the rooms share: the snapshot, the selected runs, jobs, settings. See ``make_app``."""

    TITLE = "metavqa"
    CSS_PATH = "app.tcss"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        name: cast(Callable[[], Screen[Any]], partial(_make_room, name)) for name in ROOMS
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help_pane", "Help", key_display="?"),
        Binding("q", "leave", "Quit"),
        Binding("ctrl+q", "leave", "Quit", show=False, priority=True),
        Binding("ctrl+c", "leave", "Quit", show=False),
        Binding("ctrl+z", "suspend_process", "Suspend (fg goes on)", show=False, priority=True),
        *(Binding(key, f"go('{name}')", title, show=False, priority=True) for name, (key, title) in ROOMS.items()),
    ]
    snapshot: reactive[Snapshot] = reactive(Snapshot(), init=False)

    def __init__(
        self, workspace: Workspace, room: RoomName, selected: tuple[str, ...], look: Look, settings: Path | None,
        jobs: Jobs, clock: Callable[[], float], look_seconds: float, dataset: str | None,
        asking: Callable[[Workspace, str | None], Asking],
    ) -> None:  # fmt: skip
        self.look = look
        with_color = os.environ.pop("NO_COLOR", None)  # Textual takes any, even an empty one, as a wish
        if not look.color:
            os.environ["NO_COLOR"] = "1"
        super().__init__()
        os.environ.pop("NO_COLOR", None)
        if with_color is not None:
            os.environ["NO_COLOR"] = with_color
        self.workspace, self.first_room, self.dataset_wish = workspace, room, dataset
        self.selected = selected
        """Ids of the runs that curves, differences and tasks are shown of, in the order of selection."""
        self.jobs, self.clock, self.look_seconds = jobs, clock, look_seconds
        self.settings_path, self._feed = settings, RunsFeed(workspace)
        self._make_asking = asking
        self.settings, self._settings_trouble = settings_file.load(settings)
        self._reading_since: float | None = None
        self._announced: set[int] = set()
        self._asked_to_leave = False
        self._wished: dict[RoomName, dict[str, Any]] = {}

    # Life

    async def on_mount(self) -> None:
        if self.settings.theme in self.available_themes:
            self.theme = self.settings.theme
        self.theme_changed_signal.subscribe(self, lambda theme: self.remember(theme=theme.name))
        await self.switch_mode(self.first_room)
        if not self.is_headless:
            self._end_at_signals()
            self.set_timer(WARM_SECONDS, lambda: beside(_warm, "warming up"))
        self._look()
        self.set_interval(min(0.25, self.look_seconds), self._tick)

    def get_line_filters(self) -> Sequence[LineFilter]:
        usual = super().get_line_filters()
        filters = [NO_COLOR if isinstance(one, Monochrome) else one for one in usual]  # greys are colours as well
        return [*filters, SAFE, *([ASCII] if self.look.ascii else [])]

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        for name, (key, title) in ROOMS.items():
            yield SystemCommand(f"Go to {title}", f"The room {title} ({key.upper()})", partial(self.action_go, name))
        for active in screen.active_bindings.values():
            if isinstance(active.node, Room) and active.binding.description:
                key = self.get_key_display(active.binding)
                act = partial(self.call_later, self.run_action, active.binding.action, active.node)
                yield SystemCommand(f"{active.binding.description}: here", f"The key {key} of this room", act)
        yield SystemCommand("Help", "Keys of the focused pane (?)", self.action_help_pane)
        yield SystemCommand("Theme", "Choose colours; the choice is kept", self.action_change_theme)
        yield SystemCommand("Save a picture", "Write the screen as SVG into this folder", self._save_picture)
        yield SystemCommand("Quit", "Leave the dashboard (q)", self.action_leave)

    def _end_at_signals(self) -> None:
        """Closed windows, kills and lost connections end the dashboard as q does, with the terminal as it was."""
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):
            if hasattr(signal, name):
                with suppress(NotImplementedError):  # Windows has no such handlers
                    loop.add_signal_handler(getattr(signal, name), partial(self.exit, return_code=INTERRUPTED))

    async def action_leave(self) -> None:
        """Quit; with jobs running, only after asking what becomes of them."""
        running = self.jobs.running()
        if not running or self._asked_to_leave:  # asked once more, the job ends with the dashboard
            self.exit(0)
            return
        self._asked_to_leave = True
        count = f"{len(running)} job{'s' * (len(running) > 1)}"
        answers = (("k", "keep running"), ("s", "stop with a checkpoint"))
        self.push_screen(Confirm(f"{count} started here: what becomes of them?", answers), self._leave)

    def _leave(self, answer: str | None) -> None:
        self._asked_to_leave = False
        if answer is not None:
            for job in self.jobs.all:
                job.outlives = answer == "k"
            self.exit(0)

    # The workspace

    def _tick(self) -> None:
        now = time.monotonic()
        if self._reading_since is None:
            if now >= self._next_look:
                self._look()
        elif now - self._reading_since > SLOW_SECONDS and self.room is not None:
            waited = now - self._reading_since
            self.room.trouble("slow", f"the workspace has not answered for {waited:.0f} s; what is shown is older")
        self._announce_jobs()

    def _look(self) -> None:
        self._reading_since = time.monotonic()
        beside(self._read, "runs feed")

    def look_now(self) -> None:
        """Read the workspace again without waiting (something was just changed)."""
        self._next_look = 0.0

    _next_look = 0.0

    def _read(self) -> None:
        now = self.clock()
        try:
            snapshot = Snapshot(self._feed.read(now), self._feed.damaged, None, now)
        except Exception as error:  # whatever it is: without an answer nobody would ever look again
            sentence = str(error) if isinstance(error, MetaVQAError | OSError) else f"{type(error).__name__}: {error}"
            snapshot = Snapshot(self.snapshot.views, self.snapshot.damaged, sentence, now)
        post(self, SnapshotRead(snapshot))

    def on_snapshot_read(self, message: SnapshotRead) -> None:
        now = time.monotonic()
        took = now - (self._reading_since or now)
        pause = took if self._feed.behind else max(self.look_seconds, 10 * took)
        self._reading_since, self._next_look = None, now + pause
        self.snapshot = message.snapshot
        if self.room is not None:
            self.room.trouble("slow", None)
            self.room.trouble("settings", self._settings_trouble)
            self.room.take(message.snapshot)

    @property
    def room(self) -> Room | None:
        """The room in front or under a dialog; None while the first one is made."""
        try:
            return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, Room)), None)
        except (IndexError, NoMatches):
            return None

    @cached_property
    def asking(self) -> Asking:
        """The one thread that owns torch; nothing is imported before it is told to ``load``."""
        return self._make_asking(self.workspace, self.dataset_wish)

    # What rooms share

    def remember(self, **changes: Any) -> None:
        """Change and keep settings; where that is not possible, the room says so and everything goes on."""
        if any(getattr(self.settings, name) != value for name, value in changes.items()):
            self._keep(replace(self._kept(), **changes))

    def _kept(self) -> settings_file.Settings:
        """The settings as they are now on disk: another dashboard may have changed them."""
        return self.settings if self.settings_path is None else settings_file.load(self.settings_path)[0]

    def _keep(self, settings: settings_file.Settings) -> None:
        self.settings = settings
        if self.settings_path is not None:
            self._settings_trouble = settings_file.save(self.settings_path, settings)
            if self.room is not None:
                self.room.trouble("settings", self._settings_trouble)

    def listed(self, of: str) -> list[str]:
        """The ``pinned`` or ``marked`` runs of this workspace."""
        return list(getattr(self.settings, of).get(str(self.workspace.root), []))

    def toggle(self, of: str, run: str) -> None:
        """Take a run into what is ``pinned`` or ``marked`` in this workspace, or out; runs that are gone go too."""
        kept, here = self._kept(), str(self.workspace.root)
        there = {view.id for view in self.snapshot.views} | {*self.snapshot.damaged}
        before = [one for one in getattr(kept, of).get(here, []) if one in there]
        after = [one for one in before if one != run]
        changed: dict[str, Any] = {of: {**getattr(kept, of), here: after if run in before else [*after, run]}}
        self._keep(replace(kept, **changed))

    def start_job(self, args: Sequence[str], *, outlives: bool) -> Job | None:
        """Start ``metavqa ARGS``; None, and a sentence on the screen, when that is not possible."""
        try:
            job = self.jobs.start(args, outlives=outlives)
        except MetaVQAError as error:
            self.say(str(error), wrong=True)
            return None
        self.say(f"started: {job.line}")
        self.look_now()
        return job

    def _announce_jobs(self) -> None:
        """Say once how each job ended."""
        for job in self.jobs.all:
            if job.code is not None and id(job) not in self._announced:
                self._announced.add(id(job))
                words = job.last_words() if job.code else ""
                self.say(f"{job.line}: {job.ending()}{f': {words}' if words else ''}", wrong=job.code not in (0, 130))
                self.look_now()

    def say(self, sentence: str, *, wrong: bool = False) -> None:
        """A sentence for a few seconds, whatever room is in front."""
        self.notify(self.look.text(sentence), severity="error" if wrong else "information", markup=False,
                    timeout=12 if wrong else 5)  # fmt: skip

    def copy(self, text: str) -> None:
        """Put ``text`` on the clipboard, where the terminal allows that (OSC 52), and show it in any case."""
        self.copy_to_clipboard(neutral(text, one_line=True))
        self.say(f"copied: {text}")

    def copy_to_clipboard(self, text: str) -> None:
        """As Textual does it, but nothing that a shell could take for a key when it is pasted there."""
        super().copy_to_clipboard(neutral(text))

    # Ways

    async def action_go(self, name: RoomName) -> None:
        """Enter a room, and wait until it stands: one that is left while it is made is torn."""
        if isinstance(self.screen, Room) and self.current_mode != name:
            await self.switch_mode(name)

    def visit(self, name: RoomName, **what: Any) -> None:
        """Enter a room with a wish: its ``welcome(**what)`` is called when it is in front."""
        self._wished[name] = what
        if self.current_mode == name:
            self.fulfil(name)
        else:
            self.call_later(self.action_go, name)

    def fulfil(self, name: RoomName) -> None:
        """Hand over the wish that a room was entered with, once (the room calls this when it comes to the front)."""
        wish = self._wished.pop(name, None)
        if wish is not None and self.room is not None:
            self.room.welcome(**wish)

    def action_help_pane(self) -> None:
        """The keys and the purpose of the pane that has the keyboard."""
        room = self.room
        if room is None or isinstance(self.screen, Help):
            return
        pane = room.focused_pane()
        paragraphs = [text for text in (pane.help if pane else "", room.HELP, COMMON_HELP) if text]
        panes = [(str(number), f"hide or show: {one.title}") for number, one in enumerate(room.PANES, 1)]
        rooms = [(key.upper(), f"go to {title}") for key, title in ROOMS.values()]
        keys = self._keys_here()
        title = f"{ROOMS[room.NAME][1]}{f': {pane.title}' if pane else ''}"
        self.push_screen(Help(title, paragraphs, [*keys, *panes, *rooms, ("ctrl+p", "all commands, by name")]))

    def _keys_here(self) -> list[tuple[str, str]]:
        """The keys that work where the keyboard is, and what they do: a line for each, without Textual's own."""
        found: dict[str, list[str]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if (
                binding.description
                and binding.action in _own_actions(type(active.node))
                and not (binding.priority or binding.description.startswith("Pane "))
            ):
                key = self.get_key_display(binding)
                found.setdefault(binding.description, []).append(key)
        return [(" ".join(dict.fromkeys(keys)), does) for does, keys in found.items()]

    def export_screenshot(self, *, title: str | None = None, simplify: bool = False) -> str:
        """The screen as SVG, without fonts from elsewhere and with spaces that every renderer keeps."""
        svg = super().export_screenshot(title=title, simplify=simplify)
        return FONTS.sub("", svg).replace("<svg ", '<svg xml:space="preserve" ', 1)

    def _save_picture(self) -> None:
        try:
            self.say(f"wrote {self.save_screenshot(path='.')}")
        except OSError as error:
            self.say(f"cannot write a picture into {Path.cwd()}: {error.strerror or error}", wrong=True)
