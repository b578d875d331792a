"""What the dashboard knows of the runs, read off their files: frozen snapshots and curves. No screen, no torch.

Nothing met in a run's folder raises an error here: another process may be writing or deleting it.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from metavqa_cli.schema.errors import JobError, MetaVQAError
from metavqa_cli.schema.events import (
    Event,
    ProgressMade,
    RunFailed,
    RunStarted,
    StepLogged,
    TrainingDiverged,
    ValidationMeasured,
    divergence_text,
)
from metavqa_cli.store import log
from metavqa_cli.store.locks import Owner
from metavqa_cli.store.runs import Run, RunState
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.follower import STEP_LINE, Curves, Follower
from metavqa_cli.tui.tail import Stamp, Tail, stamp_of

__all__ = ["Curves", "Follower", "RunView", "RunsFeed", "Tail", "read_runs"]

KEY_METRIC = "accuracy"  # of the validation tasks, in per cent: what training keeps the best parameters by
VALIDATION, TEST = "val", "test"
CONFIG_HEAD_BYTES = 4096
LOOK_BYTES = 8 << 20  # of a log that are read at one look: 40 ms


@dataclass(frozen=True)
class RunView:
    """One run at one moment. Two views of an unchanged run are equal, whenever they were read."""

    id: str
    path: Path
    kind: str
    variant: str | None
    state: RunState
    step: int | None
    """Last step in the log; None for a job that has no steps."""
    total_steps: int | None
    progress: float
    """0 to 1; 1 for every finished run, one that stopped early too."""
    metric_name: str
    """What ``accuracy`` is of: "val" or "test" tasks."""
    accuracy: float | None
    """In per cent: the best on validation tasks so far; of a measured method, that on test tasks."""
    created: float
    updated: float
    """Seconds since 1970, as ``created``: when the log or the result was last written."""
    parents: tuple[tuple[str, str], ...]
    """(role, run id) of what this run was made from."""
    dataset: str
    seed: int | None
    message: str | None
    """What the person saw when the run failed; else why its log cannot be read, or that the training diverges."""
    read_at: float = field(compare=False)
    holder: Owner | None = None
    """The process that works on it, where that is known."""

    @property
    def age(self) -> float:
        """Seconds from the run's creation to this reading."""
        return max(0.0, self.read_at - self.created)


class RunsFeed:
    """Snapshots of all runs of a workspace; a later ``read`` looks only into files that changed."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.damaged: tuple[str, ...] = ()
        """Ids of the folders whose run.json cannot be read."""
        self.behind = False
        """Whether a log is so long that the last ``read`` did not come to its end: the best accuracy may still rise."""
        self._known: dict[str, _Watched] = {}

    def read(self, now: float) -> tuple[RunView, ...]:
        """All runs, oldest first; ``now`` in seconds since 1970. ``JobError`` if the folder cannot be listed.

        Of each log ``LOOK_BYTES`` more are read, and where it ends.
        """
        try:
            ids = self.workspace.run_ids()
        except OSError as error:
            reason = error.strerror or error
            raise JobError(f"cannot list {self.workspace.runs_dir}: {reason}; choose another --workspace") from None
        # One that was removed since, and maybe made anew, is read again: only what is there can be damaged.
        views = {name: self._view(name, now) or self._view(name, now) for name in ids}
        self._known = {name: watched for name, watched in self._known.items() if views.get(name)}
        unread = [name for name, view in views.items() if view is None]
        self.damaged = tuple(name for name in unread if (self.workspace.runs_dir / name / "run.json").exists())
        self.behind = any(watched.tail.behind for watched in self._known.values())
        return tuple(sorted((view for view in views.values() if view), key=lambda view: (view.created, view.id)))

    def _view(self, name: str, now: float) -> RunView | None:
        run = Run(self.workspace.runs_dir / name)
        try:
            stamp = stamp_of(run.path / "run.json")
            known = self._known.get(name)
            if known is None or known.stamp != stamp:
                known = self._known[name] = _Watched(run, stamp)
            return known.view(now)
        except Exception:  # whatever one run's files hold (a number too large, a nest too deep), the others are shown
            return None


def read_runs(workspace: Workspace, now: float) -> tuple[RunView, ...]:
    """All runs of ``workspace`` with a sound manifest, oldest first; ``now`` in seconds since 1970."""
    feed = RunsFeed(workspace)
    views = feed.read(now)
    while feed.behind:
        views = feed.read(now)
    return views


class _Watched:
    """One run's manifest, read once, and what its log said so far."""

    def __init__(self, run: Run, stamp: Stamp) -> None:
        manifest = run.manifest()
        self.run, self.stamp = run, stamp
        self.kind, variant = str(manifest["kind"]), manifest.get("variant")
        self.variant = None if variant is None else str(variant)
        self.created = datetime.fromisoformat(manifest["created"]).timestamp()
        self.parents = tuple((str(role), str(name)) for role, name in manifest["parents"].items())
        self.dataset = str(manifest["dataset"].get("name"))
        self.seed: int | None = None
        with suppress(OSError):
            self.seed = _seed(run.path / "config.toml")
        self.tail = Tail(run.events_path)
        self.result: tuple[Stamp | None, tuple[str, float] | None] = (None, None)
        self._forget()

    def _forget(self) -> None:
        self.curves = Curves()
        self.step: int | None = None
        self.total: int | None = None
        self.phase = 0.0
        self.message: str | None = None
        self.warning: str | None = None
        self.ending: tuple[Stamp | None, RunState] | None = None

    def view(self, now: float) -> RunView:
        self._follow()
        done = self._result_stamp()
        state, (metric, measured) = self._state(done), self._accuracy(done)
        progress = min(1.0, (self.step or 0) / self.total) if self.total else self.phase
        written = [stamp[3] / 1e9 for stamp in (self.tail.stamp, self.result[0]) if stamp]
        return RunView(
            self.run.id, self.run.path, self.kind, self.variant, state, self.step, self.total,
            1.0 if state == "finished" else progress, metric, measured, self.created,
            max([self.created, *written]), self.parents, self.dataset, self.seed,
            self.message if state == "failed" else self.tail.trouble or self.warning, now, self._holder(state),
        )  # fmt: skip

    def _follow(self) -> None:
        restarts = self.tail.restarts
        lines = self.tail.lines(LOOK_BYTES)
        if self.tail.restarts != restarts:
            self._forget()
        # Nearly all lines are step lines, and only the last of those matters here.
        last = next((line for line in reversed(lines) if line.startswith(STEP_LINE)), b"")
        for line in lines:
            if line is last or not line.startswith(STEP_LINE):
                self._take(self.tail.parse(line))
        if self.tail.behind:
            self._glance()

    def _glance(self) -> None:
        """Where a log ends that has not been read to its end yet."""
        for event in log.newest_first(self.tail.path):
            if isinstance(event, StepLogged | ValidationMeasured | RunStarted):
                self.step = event.resumed_at if isinstance(event, RunStarted) else event.step
                break

    def _take(self, event: Event | None) -> None:
        if isinstance(event, RunStarted):
            self.total = event.total_steps or None
            self.step = event.resumed_at if event.total_steps else None
            self.warning = None
        elif isinstance(event, TrainingDiverged):
            self.warning = divergence_text(event)
        elif isinstance(event, StepLogged | ValidationMeasured):
            self.step = event.step
        elif isinstance(event, ProgressMade):
            self.phase = min(1.0, max(0.0, event.done / event.total)) if event.total > 0 else 0.0
        elif isinstance(event, RunFailed):
            self.message = event.message
        if isinstance(event, RunStarted | ValidationMeasured):
            self.curves.absorb([event])

    def _state(self, done: Stamp | None) -> RunState:
        """As ``Run.state``, but the end of the log is read again only when the log changed."""
        if done is not None:
            return "finished"
        if self.run.is_held():
            return "running"
        if self.ending is None or self.ending[0] != self.tail.stamp or self.ending[1] in ("running", "finished"):
            try:
                self.ending = (self.tail.stamp, self.run.state())
            except OSError:  # its log cannot be read, which the message says
                return "stale"
        return self.ending[1]

    def _holder(self, state: RunState) -> Owner | None:
        owner = self.run.owner() if state == "running" else None
        return None if owner is None or owner.gone else owner

    def _result_stamp(self) -> Stamp | None:
        with suppress(OSError):
            return stamp_of(self.run.path / "result.json")
        return None

    def _accuracy(self, done: Stamp | None) -> tuple[str, float | None]:
        if done != self.result[0]:
            self.result = (done, None if done is None else _measured(self.run))
        if self.result[1] is not None:
            return self.result[1]
        curve = self.curves.series.get(f"validation.{KEY_METRIC}")
        return VALIDATION, max((value for value in curve.values if value == value), default=None) if curve else None


def _seed(config: Path) -> int | None:
    """The seed at the head of a run's configuration: parsing the whole file takes a thousand times as long."""
    with config.open("rb") as file:
        head = file.read(CONFIG_HEAD_BYTES).decode("utf-8", "replace")
    top = re.split(r"^\s*\[", head, maxsplit=1, flags=re.MULTILINE)[0]
    match = re.search(r"^seed\s*=\s*(\d{1,19})\s*(?:#.*)?$", top, re.MULTILINE | re.ASCII)
    return int(match[1]) if match else None


def _measured(run: Run) -> tuple[str, float] | None:
    """The accuracy in the run's result, and on which tasks; None when it has none."""
    with suppress(MetaVQAError, OSError):
        result = run.result() or {}
        places = ((VALIDATION, "validation", KEY_METRIC), (TEST, "means", "zero-shot"), (TEST, "means", "few-shot"))
        for tasks, part, name in places:
            found = result.get(part)
            value = found.get(name) if isinstance(found, dict) else None
            if isinstance(value, float | int) and not isinstance(value, bool):
                return tasks, float(value)
    return None
