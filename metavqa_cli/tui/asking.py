"""The one thread of the dashboard that owns torch: it loads a HyperLDM with its CLIP model and does what rooms submit.

Nothing here imports torch in the event loop; what rooms get back they get in this thread, and post it to themselves.
"""

import gc
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from metavqa_cli.engine.configuration import DEFAULT_PRESET, resolve_config
from metavqa_cli.engine.opening import named_ldm, newest_ldm, own_config
from metavqa_cli.schema.errors import JobError, MetaVQAError
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.beside import beside

if TYPE_CHECKING:
    from metavqa_cli.engine.ask import Asker

T = TypeVar("T")
State = Literal["cold", "loading", "ready", "failed"]
Checkpoint = Callable[[], None]
"""To be called between two parts of a long work: raises ``Cancelled`` when its outcome is no longer wanted."""


class Cancelled(Exception):
    """The outcome is no longer wanted: it was cancelled, or a newer work of its kind took its place."""


@dataclass(frozen=True)
class Status:
    """Where the service stands. ``run`` is the HyperLDM that is loaded; ``reason`` a sentence when it failed."""

    state: State = "cold"
    run: str | None = None
    reason: str = ""


@dataclass(eq=False)
class _Job:
    kind: str
    run: str | None
    work: "Callable[[Asker, Checkpoint], Any] | None"
    then: Callable[[Any], None]
    unwanted: threading.Event = field(default_factory=threading.Event)

    def checkpoint(self) -> None:
        if self.unwanted.is_set():
            raise Cancelled


class Asking:
    """One HyperLDM, loaded when asked for, and the works that wait for it; the newest of a kind wins.

    All methods return at once and may be called from any thread. ``dataset``: the newest HyperLDM is the newest on this
    dataset. ``open_asker`` makes an ``Asker`` of a run's id (None: the newest), and is called in the thread.
    """

    def __init__(
        self,
        workspace: Workspace,
        dataset: str | None = None,
        open_asker: "Callable[[Workspace, str | None, str | None], Asker] | None" = None,
    ) -> None:
        self.workspace, self.dataset = workspace, dataset
        self._open = open_asker or open_newest_or_named
        self._status = Status()
        self._listeners: list[Callable[[Status], None]] = []
        self._wake = threading.Condition()
        self._waiting: list[_Job] = []
        self._running: _Job | None = None
        self._wanted: str | None = None
        self._asker: Asker | None = None
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> Status:
        return self._status

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return self._running is not None or bool(self._waiting)

    def listen(self, listener: Callable[[Status], None]) -> Callable[[], None]:
        """Have ``listener`` called, in whatever thread, with each new status; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def load(self, run: str | None = None) -> None:
        """Load the HyperLDM ``run`` (None: the newest finished one), unless it is loaded. After a failure: try again.

        What is submitted from now on is asked of this run.
        """
        with self._wake:
            self._wanted = run
            self._put(_Job("load", run, None, lambda _: None))

    def submit(
        self,
        work: "Callable[[Asker, Checkpoint], T]",
        then: Callable[[T | Exception], None],
        kind: str = "ask",
        *,
        let_finish: bool = False,
    ) -> None:
        """Do ``work`` in the thread, with the run that was last asked for, and call ``then`` with what came of it.

        A work of the same ``kind`` that waits is dropped; one that runs is cancelled, unless ``let_finish`` (for a
        scrub, where an outcome that is a moment old is better than none). Both get ``Cancelled``.
        """
        with self._wake:
            if self._running is not None and self._running.kind == kind and not let_finish:
                self._running.unwanted.set()
            self._put(_Job(kind, self._wanted, work, then))

    def cancel(self, kind: str | None = None) -> None:
        """Drop what waits, and end what runs at its next checkpoint: all, or what is of ``kind``. Loading goes on."""
        with self._wake:
            doomed = [job for job in self._waiting if job.work is not None and kind in (None, job.kind)]
            self._waiting = [job for job in self._waiting if job not in doomed]
            if self._running is not None and kind in (None, self._running.kind):
                self._running.unwanted.set()
        for job in doomed:
            job.then(Cancelled())

    def _put(self, job: _Job) -> None:
        """Queue ``job`` in place of one of its kind. The caller holds the lock."""
        replaced = [other for other in self._waiting if other.kind == job.kind]
        self._waiting = [*(other for other in self._waiting if other.kind != job.kind), job]
        for other in replaced:
            other.then(Cancelled())
        if self._thread is None:
            self._thread = beside(self._serve, "asking")
        self._wake.notify_all()

    # In the thread

    def _serve(self) -> None:
        while True:
            with self._wake:
                self._running = None
                while not self._waiting:
                    self._wake.wait()
                self._running = job = self._waiting.pop(0)
            self._hand_over(job, self._outcome(job))

    def _hand_over(self, job: _Job, outcome: Any) -> None:
        """Nothing that a receiver raises may end the thread: nobody would be answered any more."""
        try:
            job.then(outcome)
        except Exception as error:
            self._tell(Status("failed", job.run, sentence(error)))

    def _outcome(self, job: _Job) -> Any:
        """What came of a job: its value, or the exception that ended it, which names itself in a sentence."""
        try:
            asker = self._loaded(job.run)
            job.checkpoint()
            return None if job.work is None else job.work(asker, job.checkpoint)
        except (Cancelled, MetaVQAError) as error:
            return error
        except BaseException as error:  # a library that would leave the program too: this thread answers on
            return JobError(sentence(error))

    def _loaded(self, run: str | None) -> "Asker":
        """The run, loaded if it is not. Its failure becomes the status, and is raised."""
        if self._asker is not None and run in (None, self._asker.ldm.run.id):
            self._tell(Status("ready", self._asker.ldm.run.id))
            return self._asker
        self._tell(Status("loading", run))
        try:
            self._asker = None  # before the next one: two may not fit into the memory
            self._asker = self._open(self.workspace, run, self.dataset)
            gc.freeze()  # torch's half a million objects stay: the collector need not walk through them again and again
        except BaseException as error:
            reason = sentence(error)
            self._tell(Status("failed", run, reason))
            raise JobError(reason) from error
        self._tell(Status("ready", self._asker.ldm.run.id))
        return self._asker

    def _tell(self, status: Status) -> None:
        if status != self._status:
            self._status = status
            for listener in list(self._listeners):
                listener(status)


def open_newest_or_named(workspace: Workspace, run: str | None, dataset: str | None) -> "Asker":
    """The HyperLDM ``run`` (None: the newest, on ``dataset`` if given), as `metavqa ask` opens it without options.

    Chosen before torch is imported: what is missing is known at once. Errors of the store, the session and ``Asker``.
    """
    preset = os.environ.get("METAVQA_PRESET") or DEFAULT_PRESET
    file = Path(os.environ["METAVQA_CONFIG"]) if os.environ.get("METAVQA_CONFIG") else None
    if run is None:
        chosen = newest_ldm(workspace, resolve_config(preset, file).config, dataset)
    else:
        chosen = named_ldm(workspace, run, None)
    config = resolve_config(preset, file, resumed=own_config(chosen)).config
    try:
        from metavqa_cli.engine.ask import Asker
        from metavqa_cli.engine.session import Session, prepare_torch
    except Exception as error:  # a broken installation raises whatever its libraries do
        raise JobError(f"torch cannot be imported ({_first_line(error)}); install it again, then try again") from error
    prepare_torch(config)
    asker = Asker(Session(workspace, config), chosen)
    _ = asker.known_e  # read now: a dataset that is deleted later is still known
    return asker


def sentence(error: BaseException) -> str:
    """What went wrong, with a way out, for a person."""
    first = _first_line(error)
    if isinstance(error, MetaVQAError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in first or "DefaultCPUAllocator" in first:
        return f"out of memory ({first}); end other programs, or choose another device (METAVQA_RUNTIME__DEVICE=cpu)"
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename!s}: {error.strerror}"
    return f"unexpected {type(error).__name__} ({first}); the same with `metavqa ask --debug` tells more"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
