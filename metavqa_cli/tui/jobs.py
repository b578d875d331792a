"""Jobs started from the dashboard: the same commands, as processes of their own that write to a log of their own."""

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metavqa_cli.schema.errors import JobError, UsageError
from metavqa_cli.store.atomic import write_failure
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace

LOG_END = 4096  # bytes
FOLDER = "jobs"
HOW_ENDED = {0: "done", 1: "failed", 2: "refused", 3: "something is missing", 4: "memory or device", 5: "busy",
             130: "interrupted"}  # fmt: skip


@dataclass(eq=False)
class Job:
    """A command that runs or ran. ``outlives``: it goes on when the dashboard is closed."""

    args: tuple[str, ...]
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float
    outlives: bool
    asked_to_stop: int = 0
    ended: float | None = None
    _words: str | None = None

    @property
    def line(self) -> str:
        """The command as it is typed."""
        return command_line(self.args)

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs, negative when a signal ended it."""
        return self.process.poll()

    def took(self, now: float) -> float:
        """Seconds from its start to its end (to when that was first seen), or to ``now`` while it runs."""
        if self.ended is None and self.code is not None:
            self.ended = now
        return (now if self.ended is None else self.ended) - self.started

    def ending(self) -> str:
        """How it stands, in words."""
        code = self.code
        if code is None:
            return "stopping" if self.asked_to_stop else "running"
        if code < 0:
            return f"killed by signal {-code} ({signal.strsignal(-code)})"
        return HOW_ENDED.get(code, f"exit code {code}")

    def last_words(self) -> str:
        """The last line that it printed, an error first; "" when there is none. After its end it is read once."""
        ended = self.code is not None
        if self._words is None or not ended:
            words = self._read_words()
            self._words = words if ended else None
            return words
        return self._words

    def _read_words(self) -> str:
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_END))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        return next((line for line in reversed(said) if line.startswith("error: ")), said[-1] if said else "")


def command_line(args: Sequence[str]) -> str:
    """``metavqa ARGS`` as a shell takes it."""
    return shlex.join(["metavqa", *args])


class Jobs:
    """The jobs of one dashboard. ``program`` is what ``metavqa`` is run as, ``environment`` what it is run in."""

    def __init__(self, workspace: Workspace, program: Sequence[str], environment: Mapping[str, str]) -> None:
        self.workspace, self.program, self.environment = workspace, tuple(program), dict(environment)
        self.all: list[Job] = []

    def start(self, args: Sequence[str], *, outlives: bool) -> Job:
        """Start ``metavqa ARGS`` on the workspace. ``JobError`` when its log or the process cannot be made."""
        log = self.workspace.root / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}.log"
        whole = [*self.program, "--workspace", str(self.workspace.root), *args]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                process = subprocess.Popen(
                    whole, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self.environment,
                    start_new_session=True,  # the terminal's end is not the job's
                )  # fmt: skip
        except OSError as error:
            if error.filename is not None and Path(os.fsdecode(error.filename)) == Path(self.program[0]):
                log.unlink(missing_ok=True)
                raise JobError(f"cannot start {self.program[0]}: {error.strerror}; is metavqa installed?") from None
            raise write_failure(log, error) from None
        job = Job(tuple(args), process, log, time.time(), outlives)
        self.all.append(job)
        return job

    def line(self, args: Sequence[str]) -> str:
        """Exactly what ``start`` runs, as a shell takes it; the workspace is left out where it is the usual one."""
        usual = "METAVQA_WORKSPACE" not in self.environment and self.workspace.root == Workspace.default_root()
        return command_line(args if usual else ("--workspace", str(self.workspace.root), *args))

    def running(self) -> list[Job]:
        """The jobs that have not ended."""
        return [job for job in self.all if job.code is None]

    def stop(self, job: Job) -> None:
        """As Ctrl-C: the first time it writes a checkpoint and ends, the second time it ends at once."""
        if job.code is None:
            job.asked_to_stop += 1
            job.process.send_signal(signal.SIGINT)

    def asked(self, process: int) -> None:
        """The job that is this process, if one is, was asked to stop by other means (``stop_run``)."""
        for job in self.all:
            if job.process.pid == process:
                job.asked_to_stop += 1

    def close(self) -> None:
        """The dashboard ends: those that should not outlive it are asked to write a checkpoint and to end."""
        for job in self.running():
            if not job.outlives:
                self.stop(job)


def stop_run(run: Run) -> int:
    """Ask the process that works on ``run`` to write a checkpoint and to end; its number. ``UsageError`` else."""
    if not run.is_held():
        raise UsageError(f"run {run.id} is not running")
    owner = run.owner()
    if owner is None:
        raise UsageError(f"run {run.id} is running, but not known in which process; stop it where it was started")
    if owner.host != socket.gethostname():
        raise UsageError(f"run {run.id} is running on {owner.host}; stop it there: kill -INT {owner.pid}")
    ended = UsageError(f"process {owner.pid} of run {run.id} has just ended")
    if owner.gone:  # another process may have its number now
        raise ended
    try:
        os.kill(owner.pid, signal.SIGINT)
    except (ProcessLookupError, OverflowError):
        raise ended from None
    except PermissionError:
        raise UsageError(f"process {owner.pid} of run {run.id} is somebody else's; ask its owner to stop it") from None
    return owner.pid
