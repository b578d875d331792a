"""`metavqa dataset download`: the files of VQA v2 and its COCO images, resumable, checked, several at a time."""

import queue
import shutil
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metavqa_cli.engine.archives import (
    CHECKSUMS,
    Archive,
    Checksum,
    Order,
    Plan,
    make_plan,
    read_checksums,
    remote,
    write_checksums,
)
from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError
from metavqa_cli.schema.events import Event, Narrated, ProgressMade
from metavqa_cli.store import fetch, locks
from metavqa_cli.store.atomic import sweep
from metavqa_cli.store.fetch import Patience, Remote
from metavqa_cli.store.unpack import bytes_to_write, unpack

LOCK = ".download.lock"
TOLD_EVERY_SECONDS, GOODBYE_SECONDS = 0.1, 2.0
LOOK_UP_SECONDS = 0.5  # Windows sees a Ctrl-C only between two waits
Outcome = Literal["there", "resumed", "downloaded"]


@dataclass(frozen=True)
class Downloaded:
    """A file that is complete and checked; ``unpacked`` is how many files of it are in the folder, None if packed."""

    archive: Archive
    path: Path
    sha256: str
    state: Outcome
    unpacked: int | None = None


def download(order: Order) -> Generator[Event, None, tuple[Downloaded, ...]]:
    """Bring every file of the order into its folder; yields progress in bytes and returns the files.

    Files come several at a time; when some fail the others are finished first. A file that is there is checked against
    the recorded sha256. Closing the generator keeps the parts for the next time. ``BusyError`` when another download
    uses the folder, ``JobError`` when the disk is too small, ``MissingError`` when offline and something is to fetch.
    """
    with locks.hold(order.folder / LOCK, f"the download folder {order.folder}"):
        sweep(order.folder)
        plan = make_plan(order)
        _check(plan, order)
        crew = _Crew(order)
        crew.start()
        try:
            yield from crew.events()
        finally:
            crew.stop()
    results = [crew.results[archive.name] for archive in order.archives if archive.name in crew.results]
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        raise _joined(failures, len(order.archives))
    return tuple(result for result in results if isinstance(result, Downloaded))


def _check(plan: Plan, order: Order) -> None:
    if order.offline and plan.remaining:
        urls = " ".join(file.url for file in plan.files if file.remaining)
        raise MissingError(
            f"--offline forbids the network, and {plan.remaining} bytes are missing in {order.folder}; on a machine "
            f"with a network run `metavqa dataset download vqa2` or `wget {urls}`, and copy the files there"
        )
    if not plan.fits:
        raise JobError(
            f"the disk of {order.folder} has {plan.free} bytes free, but {plan.needed} are needed; "
            "free some space, choose another disk with --to, or fewer files with --what"
        )


def _joined(failures: Sequence[BaseException], files: int) -> BaseException:
    """One error for all: of their common class if they have one, so that the exit code says what happened."""
    unforeseen = [failure for failure in failures if not isinstance(failure, MetaVQAError)]
    if unforeseen or len(failures) == 1:
        return [*unforeseen, *failures][0]
    kinds = {type(failure) for failure in failures}
    kind = kinds.pop() if len(kinds) == 1 else JobError
    sentences = "\n  ".join(str(failure) for failure in failures)
    return kind(f"{len(failures)} of {files} files were not downloaded:\n  {sentences}")


class _Stopped(Exception):
    """The person, or a failure of the program, ended the download; parts stay."""


class _Gate:
    """What one file's thread enters for every change to the folder. Shut, it raises ``_Stopped``."""

    def __init__(self) -> None:
        self._lock, self._is_shut = threading.RLock(), False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._is_shut:
            self._lock.release()
            raise _Stopped

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def shut(self) -> None:
        """Let nobody in any more; waits for a change that has begun."""
        with self._lock:
            self._is_shut = True


class _Crew:
    """Threads that each take the next file of the order, and the queue through which they tell what happens."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.results: dict[str, Downloaded | BaseException] = {}
        self.told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.waiting = iter(order.archives)
        self.recorded = read_checksums(order.folder)
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.gates = {archive.name: _Gate() for archive in order.archives}
        self.last: dict[str, float] = {}
        names = range(max(1, min(order.jobs, len(order.archives))))
        # Daemons: one that waits for a silent server must not keep the program from ending.
        self.threads = [threading.Thread(target=self._work, name=f"download-{i}", daemon=True) for i in names]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def events(self) -> Iterator[Event]:
        """What happens, until every thread has ended."""
        working = len(self.threads)
        while working:
            try:
                event = self.told.get(timeout=LOOK_UP_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                working -= 1
            else:
                yield event

    def stop(self) -> None:
        """Ask the threads to end; they do at their next byte, or are left waiting for it and change nothing then."""
        self.ended.set()
        for gate in self.gates.values():
            gate.shut()
        for thread in self.threads:
            thread.join(GOODBYE_SECONDS)

    def _work(self) -> None:
        try:
            while (archive := self._next()) is not None and not self.ended.is_set():
                try:
                    self.results[archive.name] = self._obtain(archive)
                except _Stopped:
                    return
                except BaseException as error:
                    self.results[archive.name] = error
                    self.told.put(Narrated(f"{archive.name} failed; the other files go on"))
        finally:
            self.told.put(None)

    def _next(self) -> Archive | None:
        with self.lock:
            return next(self.waiting, None)

    def _tell(self, event: Event) -> None:
        """Pass an event on, progress at most every tenth of a second. ``_Stopped`` when the work is to end."""
        if self.ended.is_set():
            raise _Stopped
        if isinstance(event, ProgressMade) and event.done < event.total:
            now = time.monotonic()
            if now - self.last.get(event.phase, -1.0) < TOLD_EVERY_SECONDS:
                return
            self.last[event.phase] = now
        self.told.put(event)

    def _sleep(self, seconds: float) -> None:
        if self.ended.wait(seconds):
            raise _Stopped

    def _obtain(self, archive: Archive) -> Downloaded:
        path, wanted = self.order.path(archive), remote(self.order, archive, self.recorded)
        state: Outcome = "there"
        if path.exists():
            sha256 = _verified(path, wanted, self._tell)
            fetch.tidy(path)
        else:
            patience = Patience(self.order.retries, sleep=self.order.sleep or self._sleep)
            fetched = fetch.fetch(wanted, path, self._tell, patience, self.gates[archive.name])
            sha256, state = fetched.sha256, "resumed" if fetched.resumed_at else "downloaded"
        self._record(archive, sha256)
        self._tell(Narrated(f"{archive.name} is complete: {archive.size} bytes, sha256 {sha256}"))
        return Downloaded(archive, path, sha256, state, self._unpacked(path) if self.order.unpack else None)

    def _record(self, archive: Archive, sha256: str) -> None:
        known = Checksum(archive.size, sha256)
        with self.gates[archive.name], self.lock:
            if self.recorded.get(archive.name) != known:
                self.recorded[archive.name] = known
                write_checksums(self.order.folder, self.recorded)

    def _unpacked(self, path: Path) -> int:
        needed, free = bytes_to_write(path, self.order.folder), shutil.disk_usage(self.order.folder).free
        if needed > free:
            raise JobError(f"cannot unpack {path}: {needed} bytes are needed, {free} are free; it can be used as it is")
        done = unpack(path, self.order.folder, self._tell)
        return done.written + done.kept


def _verified(path: Path, wanted: Remote, tell: fetch.Tell) -> str:
    """The sha256 of a file that is there. ``JobError`` when another one is expected."""
    found = fetch.sha256_of(path, tell)
    if wanted.sha256 not in (None, found):
        raise JobError(
            f"{path} has the sha256 {found}, but {wanted.sha256} was expected (--sha256, {CHECKSUMS}); "
            "remove the file to download it again, or correct what is expected"
        )
    return found
