"""Whole-file writes that either happen completely or not at all.

A file is written under a temporary name in its own folder, flushed to the disk, and moved into place in one step, so a
reader (or a resumed run) never meets half a file.
"""

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.text import json_text

TEMPORARY = ".tmp-"
ABANDONED_SECONDS = 86_400.0  # a temporary file that nobody touched for so long is left from a process that was killed
UMASK = os.umask(0)  # can only be read by setting it; some libraries write files that their owner alone may read
os.umask(UMASK)
ANOTHER_PLACE = "choose a writable folder (--workspace, or the output's own option)"
ANOTHER_DISK = "free some space, or choose another disk (--workspace, or the output's own option)"
REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", ANOTHER_DISK),
    errno.EDQUOT: ("the disk quota is used up", ANOTHER_DISK),
    errno.EFBIG: ("the file is larger than the system allows", "raise the limit (ulimit -f), or choose another disk"),
    errno.EROFS: ("the file system is read-only", ANOTHER_PLACE),
    errno.EACCES: ("permission denied", ANOTHER_PLACE),
    errno.EPERM: ("the operation is not permitted", ANOTHER_PLACE),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.EISDIR: ("a folder with that name is in the way", "choose another name"),
    errno.EEXIST: ("a part of the path is a file, not a folder", "choose another path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.ENOENT: ("a folder of the path does not exist", "create it, or choose another path"),
}


def write_failure(path: Path, error: OSError) -> JobError:
    """The user's view of an ``OSError`` met while writing ``path``: the path, the reason and the way out."""
    reason, way_out = REASONS.get(error.errno or 0, (error.strerror or str(error), ANOTHER_PLACE))
    return JobError(f"cannot write {path}: {reason}; {way_out}")


def temporary_name() -> str:
    """A name that nobody else uses, for a file or folder in the making."""
    return f"{TEMPORARY}{os.urandom(4).hex()}"


def sweep(folder: Path, age: float = ABANDONED_SECONDS, of: str = "") -> None:
    """Remove the temporary files and folders in ``folder`` that are ``age`` seconds old, those ``of`` one name if any.

    A kill leaves them. An age of 0 is for whoever alone writes there. What cannot be removed stays.
    """
    oldest = time.time() - age
    with suppress(OSError):
        for entry in [*os.scandir(folder)]:
            ours = entry.name.startswith(TEMPORARY) and entry.name.endswith(f"-{of}" if of else "")
            with suppress(OSError):
                if ours and (not age or entry.stat(follow_symlinks=False).st_mtime < oldest):
                    discard(Path(entry.path))


def delete(folder: Path) -> None:
    """Remove a folder with everything in it; of a link, the link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def discard(path: Path) -> None:
    """Remove a file or a folder with everything in it; of a link, the link alone. Gone already is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` about ``path`` (or about no particular file) into a ``JobError``; others pass unchanged.

    A path counts as "about" when it is ``path`` itself, lies inside it, or is one of its parents, or a temporary
    neighbour of it, so that an unreadable image met while writing a manifest is still reported as that image.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and not _concerns(Path(os.fsdecode(error.filename)), path):
            raise
        raise write_failure(path, error) from error


def _concerns(found: Path, path: Path) -> bool:
    neighbour = found.parent == path.parent and found.name.startswith(TEMPORARY)
    return neighbour or found in (path, *path.parents) or path in found.parents


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffix) to be written; on success it becomes ``path``.

    Missing parent folders are created. When the body raises, the temporary file is removed and ``path`` is untouched.
    Raises ``JobError`` naming path, reason and way out for a full disk, a read-only folder and the like, and for a
    device such as /dev/null, which a move would replace by a file. A symbolic link is followed.
    """
    with explained(path):  # a name that is too long is met here first
        special = path.is_char_device() or path.is_block_device() or path.is_fifo() or path.is_socket()
    if special:
        raise JobError(f"cannot write {path}: it is a device, not a file; choose another path")
    if path.is_symlink():
        path = Path(os.path.realpath(path))  # the link stays; what it points to is replaced
    name = _end(path.name)
    temporary = path.with_name(f"{temporary_name()}-{name}")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent, of=name)
            yield temporary
            with suppress(PermissionError):  # some file systems have no modes
                temporary.chmod(path.stat().st_mode & 0o777 if path.is_file() else 0o666 & ~UMASK)
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _end(name: str) -> str:
    """The end of a name, at most 100 bytes of it: beside the longest name a temporary one must still be possible."""
    return os.fsencode(name)[-100:].decode("utf-8", "ignore")


def sync_file(path: Path) -> None:
    """Make the contents of ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut (a no-op on Windows, which has no such call)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_everything() -> None:
    """Make all that was written survive a power cut: for many small files, of which each would wait for the disk."""
    if hasattr(os, "sync"):  # not on Windows
        os.sync()


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8 with the line ends it has."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, obj: Any) -> None:
    """Write ``obj`` to ``path`` atomically, as indented JSON with a final newline."""
    write_text(path, json_text(obj, 2) + "\n")
