"""Fetch one large file over HTTP so that nothing is asked for twice and nothing wrong is kept.

``NAME.part`` holds what is there, ``NAME.part.json`` what the server said of the whole (address, validator, size). A
fetch goes on from there with ``Range`` and ``If-Range``, and becomes ``NAME`` only with the expected size and sha256.
"""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import IO, Any

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.events import Event, Narrated, ProgressMade
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.store import web
from metavqa_cli.store.atomic import explained, sync_folder, write_json
from metavqa_cli.store.web import RangeRefused, TooSlow, Trouble

CHUNK = 1 << 18
LEAST_RATE = 1000  # bytes a second; at it VQA v2 would take most of a year
BACKOFF_SECONDS, LONGEST_BACKOFF, LONGEST_WAIT = 1.0, 60.0, 900.0
Tell = Callable[[Event], None]
Gate = AbstractContextManager[object]  # entered for every change to files, one inside another too
OPEN: Gate = nullcontext()


@dataclass(frozen=True)
class Remote:
    """A file on a server: its address, its exact size in bytes, and its sha256 (64 lower-case hex) where known."""

    url: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Patience:
    """How long to try: ``retries`` in a row that bring nothing new, ``timeout`` seconds of silence on a connection, or
    of less than ``LEAST_RATE``."""

    retries: int = 8
    timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Fetched:
    """A file that is complete: its sha256, and from which byte this fetch went on."""

    sha256: str
    resumed_at: int


def fetch(remote: Remote, path: Path, tell: Tell, patience: Patience | None = None, gate: Gate = OPEN) -> Fetched:
    """Bring ``remote`` to ``path``, from where an earlier fetch stopped; the caller makes sure that it is the only one.

    ``tell`` gets progress in bytes and, in words, every new attempt; an exception that it raises stops the fetch, with
    the part kept. So does one that ``gate`` raises when it is entered: files change only within it, so who shuts it
    knows that nothing changes from then on, however long the server is silent.

    ``MissingError`` when the server does not have the file or cannot be reached, ``JobError`` when what it sends is not
    the expected file, or when it cannot be written.
    """
    patience = patience or Patience()
    part = _Part(path, remote, tell, gate)
    resumed_at = best = part.length
    failures = 0
    while part.length < remote.size:
        try:
            _attempt(remote, part, patience.timeout, tell)
        except Trouble as trouble:
            failures = 0 if part.length > best and not isinstance(trouble, TooSlow) else failures + 1
            best = max(best, part.length)
            _pause(trouble, failures, remote, part, patience, tell)
    return Fetched(part.finish(), resumed_at)


def _pause(trouble: Trouble, failures: int, remote: Remote, part: "_Part", patience: Patience, tell: Tell) -> None:
    """Wait before the next attempt, or raise the ``MissingError`` that ends the fetch."""
    kept = (
        f"{part.length} of {remote.size} bytes are kept, and the same command goes on from there"
        if part.is_known
        else "the same command begins anew, for nothing tells if the server still has the same file (--sha256 would)"
    )
    if failures > patience.retries:
        raise MissingError(f"cannot fetch {remote.url}: {trouble}, in {failures} attempts in a row; {kept}")
    backoff = min(LONGEST_BACKOFF, BACKOFF_SECONDS * 2 ** max(0, min(failures, 10) - 1))
    wait = backoff if trouble.wait is None else trouble.wait
    if wait > LONGEST_WAIT:
        raise MissingError(f"cannot fetch {remote.url} now: {trouble}, asking for {wait:.0f} s of patience; {kept}")
    tell(
        Narrated(
            f"{part.name}: {trouble}; trying again in {wait:.0f} s, from byte {part.length if part.is_known else 0}"
        )
    )
    patience.sleep(wait)


def sha256_of(path: Path, tell: Tell) -> str:
    """The sha256 of a file, in hex; ``tell`` gets the progress of reading it."""
    return _digest(path, path.stat().st_size, tell).hexdigest()


def tidy(path: Path) -> None:
    """Remove the note that a fetch killed in its last moment leaves beside the finished file ``path``."""
    if not _beside(path, ".part").exists():
        _beside(path, ".part.json").unlink(missing_ok=True)


def part_length(remote: Remote, path: Path) -> int:
    """How many bytes an unfinished fetch of ``remote`` left that the next one can build on."""
    part, note = _beside(path, ".part"), _read_note(_beside(path, ".part.json"))
    if note.get("url") != remote.url or note.get("size") != remote.size or not part.is_file():
        return 0
    if _noted_validator(note) is None and remote.sha256 is None:
        return 0  # nothing could tell whether the server still has the same file
    length = part.stat().st_size
    return length if length <= remote.size else 0


class _Part:
    """The unfinished file: how long it is, its running sha256, and the validator of what the server sent."""

    def __init__(self, path: Path, remote: Remote, tell: Tell, gate: Gate) -> None:
        self.name, self.target, self.remote, self.gate = path.name, path, remote, gate
        self.path, self.note = _beside(path, ".part"), _beside(path, ".part.json")
        self.length = part_length(remote, path)
        self.validator = _noted_validator(_read_note(self.note)) if self.length else None
        self.digest = _digest(self.path, self.length, tell) if self.length else hashlib.sha256()

    @property
    def is_known(self) -> bool:
        """Whether something can tell that what the server sends next belongs to what is there."""
        return not self.length or bool(self.validator or self.remote.sha256)

    def begin(self, validator: str | None) -> None:
        """Empty the part, then note what the server is about to send: a kill in between leaves an empty part."""
        with self.gate:
            with explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_bytes(b"")
            self.length, self.digest, self.validator = 0, hashlib.sha256(), validator
            write_json(self.note, {"url": self.remote.url, "size": self.remote.size, "validator": validator})

    def append(self, chunk: bytes, file: IO[bytes]) -> None:
        """Add bytes at the end; what is on disk never lags behind ``length``."""
        with self.gate, explained(self.path):
            file.write(chunk)
            file.flush()
        self.digest.update(chunk)
        self.length += len(chunk)

    def discard(self) -> None:
        """Remove it: what it holds is not what was asked for."""
        with self.gate:
            self.path.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)
        self.length, self.digest, self.validator = 0, hashlib.sha256(), None

    def finish(self) -> str:
        """Move the complete part into place and return its sha256. ``JobError`` when it is not the expected one."""
        found, expected = self.digest.hexdigest(), self.remote.sha256
        if expected not in (None, found):
            self.discard()
            raise JobError(
                f"{self.remote.url} has the sha256 {found}, but {expected} was expected; what was fetched is removed: "
                "fetch it again, from another mirror, or correct what is expected (--sha256, checksums.json)"
            )
        with self.gate, explained(self.target):
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            self.path.replace(self.target)
            sync_folder(self.target.parent)
            self.note.unlink(missing_ok=True)
        return found


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _read_note(path: Path) -> dict[str, Any]:
    """What is noted beside a part; nothing when there is none, or it is damaged."""
    try:
        note = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _noted_validator(note: dict[str, Any]) -> str | None:
    """The validator of a note, when it is one that can stand in a header."""
    found = note.get("validator")
    return found if isinstance(found, str) and found.isascii() and found.isprintable() else None


def _digest(path: Path, length: int, tell: Tell) -> Any:
    """The running sha256 of the first ``length`` bytes of a file, which may be added to."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(min(CHUNK, length - done)):
            digest.update(chunk)
            done += len(chunk)
            tell(ProgressMade(f"checking {path.name.removesuffix('.part')}", done, length, "bytes"))
    return digest


def _attempt(remote: Remote, part: _Part, timeout: float, tell: Tell) -> None:
    """One request, and as much of its body as comes. ``Trouble`` when the file is not complete after it."""
    headers = {}
    if part.length and part.is_known:
        headers["Range"] = f"bytes={part.length}-"
        if part.validator:
            headers["If-Range"] = part.validator
    try:
        response = web.request(remote.url, headers, timeout)
    except RangeRefused as refused:
        part.discard()
        raise Trouble(f"{refused}, the server has less than was fetched before") from None
    with response:
        if not _continues(response, remote, part):
            if part.length:
                tell(Narrated(f"{part.name}: the server begins anew (no ranges, or another file), and so does this"))
            part.begin(web.validator(response.headers))
        _receive(response, remote, part, timeout, tell)


def _continues(response: HTTPResponse, remote: Remote, part: _Part) -> bool:
    """Whether the body goes on where the part ends; False when it is the whole file.

    ``JobError`` for another size, ``Trouble`` for another range or another version than asked for (the part is given
    up: a server that ignores ``If-Range`` would otherwise mend one version with the end of another).
    """
    if response.status != web.PARTIAL:
        _check_size(web.content_length(response.headers), remote)
        return False
    first, total = web.content_range(response.headers) or (None, None)
    _check_size(total, remote)
    if first != part.length or web.contradicts(part.validator, response.headers):
        part.discard()
        raise Trouble("the server sends another range or version than asked for")
    return part.length > 0


def _check_size(total: int | None, remote: Remote) -> None:
    if total not in (None, remote.size):
        raise JobError(
            f"{remote.url} has {total} bytes, but {remote.size} were expected: it is another file; {web.WAY_OUT}"
        )


def _receive(response: HTTPResponse, remote: Remote, part: _Part, timeout: float, tell: Tell) -> None:
    with explained(part.path):
        file = part.path.open("ab")
    begun, before = time.monotonic(), part.length
    with file:
        while chunk := web.read(response, CHUNK):
            if (now := time.monotonic()) - begun > timeout:
                if part.length - before < LEAST_RATE * (now - begun):
                    raise TooSlow(f"less than {LEAST_RATE} bytes a second came for {now - begun:.0f} s")
                begun, before = now, part.length
            if part.length + len(chunk) > remote.size:
                break
            tell(ProgressMade(part.name, part.length, remote.size, "bytes"))
            part.append(chunk, file)
    if chunk:
        part.discard()
        raise JobError(f"{remote.url} sends more than the {remote.size} bytes expected; {web.WAY_OUT}")
    if part.length < remote.size:
        raise Trouble(f"the connection ended after {part.length} of {remote.size} bytes")
    tell(ProgressMade(part.name, part.length, remote.size, "bytes"))
