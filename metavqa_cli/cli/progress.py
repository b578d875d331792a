"""How the events of a running job look to the person watching: bars, plain lines, or nothing."""

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from metavqa_cli.cli import console
from metavqa_cli.schema.events import (
    DatasetBuilt,
    Event,
    Narrated,
    ProgressMade,
    Reused,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunStarted,
    StepLogged,
    TrainingDiverged,
    ValidationMeasured,
    divergence_text,
)

OUTCOMES = (RunFinished, Reused, DatasetBuilt, RunInterrupted, RunFailed)
PLAIN_SECONDS = 30.0
SHOWN_METRICS = ("loss", "accuracy")


class Display:
    """Shows how far each named piece of work is: here, not at all. A context manager."""

    def show(self, label: str, done: int, total: int, unit: str, detail: str) -> None:
        """``done`` of ``total`` units of ``label`` are finished; ``detail`` says how well it goes."""

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


def make_display() -> Display:
    """Bars on a terminal, a line every 30 s elsewhere, nothing when quiet."""
    if console.style.quiet:
        return Display()
    return Bars() if console.error_console().is_terminal else Plain()


def watch(events: Iterable[Event], display: Display) -> list[Event]:
    """Show every event as it comes; return those that state an outcome."""
    outcomes: list[Event] = []
    run = Narrator(display)
    with display:
        for event in events:
            run.tell(event)
            if isinstance(event, OUTCOMES):
                outcomes.append(event)
    return outcomes


class Narrator:
    """Remembers which run the steps belong to, and its latest metrics."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.run = RunStarted(run="steps", kind="", total_steps=0)
        self.details: dict[str, str] = {}
        self.step = 0

    def tell(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, RunStarted):
            self.run, self.step, self.details = event, event.resumed_at, {}
            self._show_run()
        elif isinstance(event, StepLogged):
            self.step, self.details["training"] = event.step, _metrics("", event.metrics)
            self._show_run()
        elif isinstance(event, ValidationMeasured):
            self.step, self.details["validation"] = event.step, _metrics("validation ", event.metrics)
            self._show_run()
        elif isinstance(event, ProgressMade):
            self.display.show(event.phase, event.done, event.total, event.unit, "")
        elif isinstance(event, TrainingDiverged):
            console.warn(f"{divergence_text(event)}; {event.way_out}")
        elif sentence := _sentence(event):
            console.narrate(sentence)

    def _show_run(self) -> None:
        detail = ", ".join(filter(None, self.details.values()))
        self.display.show(self.run.run, self.step, self.run.total_steps, "steps", detail)


def _metrics(prefix: str, metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{prefix}{name} {metrics[name]:.3g}" for name in SHOWN_METRICS if name in metrics)


def _sentence(event: Event) -> str:
    if isinstance(event, Narrated):
        return event.message
    if isinstance(event, Reused):
        return f"{event.kind} {event.name} is already there and is used again"
    if isinstance(event, DatasetBuilt):
        return f"dataset {event.name} is complete in {event.path}"
    if isinstance(event, RunFinished):
        return f"run {event.run} is finished"
    return ""


class Plain(Display):
    """One line every ``every`` seconds, for logs: what, how far, how fast, how long still, how well."""

    def __init__(self, every: float = PLAIN_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self.every, self.clock = every, clock
        self.printed = clock()
        self.begun: dict[str, tuple[float, int]] = {}

    def show(self, label: str, done: int, total: int, unit: str, detail: str) -> None:
        now = self.clock()
        since, before = self.begun.setdefault(label, (now, done))
        if now - self.printed < self.every:
            return
        self.printed = now
        rate = (done - before) / (now - since) if now > since else 0.0
        named = "" if unit == "bytes" else f" {unit}"
        parts = [f"{label}: {amount(done, unit)}/{amount(total, unit)}{named}"]
        if rate > 0:
            parts += [per_second(rate, unit), f"{duration((total - done) / rate)} left"]
        console.narrate(", ".join([*parts, *([detail] if detail else [])]))


class Bars(Display):
    """Rich progress bars with rate and time left."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), Count(), Rate(),
            TimeRemainingColumn(compact=True), TextColumn("{task.fields[detail]}", markup=False, style="dim"),
            console=console.error_console(),
        )  # fmt: skip

    def show(self, label: str, done: int, total: int, unit: str, detail: str) -> None:
        name = console.neutral(label, one_line=True)
        known = next((task for task in self.progress.tasks if task.description == name), None)
        if known is None:
            self.progress.add_task(name, total=total, completed=done, unit=unit, detail=detail)
        else:
            self.progress.update(known.id, completed=done, total=total, detail=detail)

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


class Count(ProgressColumn):
    """How many units of how many are done."""

    def render(self, task: Task) -> Text:
        unit, total = task.fields["unit"], int(task.total or 0)
        return Text(f"{amount(int(task.completed), unit)}/{amount(total, unit)}")


class Rate(ProgressColumn):
    """Units a second, as rich measures them over the last seconds."""

    def render(self, task: Task) -> Text:
        speed, unit = task.finished_speed or task.speed, task.fields["unit"]
        return Text(per_second(speed, unit) if speed else "")


def amount(count: int, unit: str) -> str:
    """A count, of bytes in the largest decimal unit that keeps it above one: "6.6 GB"."""
    if unit != "bytes":
        return str(count)
    power = min(4, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.{1 if power else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def per_second(speed: float, unit: str) -> str:
    """ "31.2 images/s", "12.5 MB/s"."""
    return f"{amount(round(speed), unit)}/s" if unit == "bytes" else f"{speed:.3g} {unit}/s"


def duration(seconds: float) -> str:
    """ "8 s", "3 min", "2 h 5 min"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
