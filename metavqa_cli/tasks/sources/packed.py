"""The bytes of files that may be packed in a zip archive: never extracted, never trusted."""

import codecs
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import ZipFile, ZipInfo, is_zipfile

from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError
from metavqa_cli.store.zips import Zip
from metavqa_cli.tasks.sources.material import Progress, unwatched

MAX_BYTES = 2 * 1024**3  # VQA's largest file has 277 MB
CHUNK = 1024**2
ENCRYPTED = 1


@dataclass(frozen=True)
class Source:
    """A file, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """Its own name, without folders."""
        return PurePosixPath(self.member).name if self.member else self.path.name

    def __str__(self) -> str:
        return str(self.path / self.member if self.member else self.path)


def absolute(path: str | Path) -> Path:
    """The path from the root, with the home folder written out; links stay."""
    try:
        path = Path(path).expanduser()
    except RuntimeError:  # no such user
        path = Path(path)
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow links)


def check_file(path: Path) -> int:
    """The size of a regular file. ``MissingError`` when there is none, ``JobError`` for a folder, pipe or nothing."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MissingError(f"{path} cannot be read: {reason}; check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise JobError(f"{path} is not a file; name the file itself")
    if status.st_size == 0:
        raise JobError(f"{path} is empty (0 bytes); copy or download it again")
    return status.st_size


@contextmanager
def opened_zip(path: Path) -> Iterator[ZipFile]:
    """The archive at ``path``. Whatever goes wrong inside the block is told as a ``JobError`` about the archive."""
    check_file(path)
    try:
        with Zip(path) as archive:
            yield archive
    except MetaVQAError:
        raise
    except PermissionError as error:
        raise MissingError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
    except Exception as error:  # damaged bytes lead zipfile to BadZipFile, zlib.error, EOFError, struct.error, …
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise JobError(f"{path} is no complete zip archive ({reason}); copy or download it again") from error


def members(path: Path) -> list[ZipInfo]:
    """The files in an archive, in its order. ``JobError`` for a damaged archive and for one with a password."""
    with opened_zip(path) as archive:
        found = [info for info in archive.infolist() if not info.is_dir()]
    locked = next((info for info in found if info.flag_bits & ENCRYPTED), None)
    if locked:
        raise JobError(f"{path} is locked with a password ({locked.filename}); unpack it and name the folder instead")
    return found


def looks_packed(path: Path) -> bool:
    """Whether a file is an archive: by its name, or by its bytes."""
    try:
        return path.suffix.lower() == ".zip" or (path.is_file() and is_zipfile(path))
    except (OSError, ValueError):
        return False


def text_of(source: Source, progress: Progress = unwatched) -> Iterator[str]:
    """The text of a UTF-8 file in chunks, without a byte order mark.

    ``JobError`` naming the byte where it is not UTF-8, the archive when that is damaged, or the size when that is
    beyond ``MAX_BYTES``. ``progress`` counts bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen = 0
    for chunk in _chunks(source, progress):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise JobError(
                f"{source} is not UTF-8 text (byte {seen - pending + error.start + 1:,}); "
                "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
            ) from None
        yield text if seen else text.removeprefix("\ufeff")
        seen += len(chunk)


def _chunks(source: Source, progress: Progress) -> Iterator[bytes]:
    """The bytes, then an empty chunk."""
    if source.member is not None:
        with opened_zip(source.path) as archive, archive.open(source.member) as packed:
            yield from _counted(packed.read, source, archive.getinfo(source.member).file_size, progress)
        return
    total = check_file(source.path)
    try:
        with source.path.open("rb") as file:
            yield from _counted(file.read, source, total, progress)
    except OSError as error:
        raise MissingError(f"{source} cannot be read: {error.strerror or error}; check its permissions") from None


def _counted(read: Callable[[int], bytes], source: Source, total: int, progress: Progress) -> Iterator[bytes]:
    done = 0
    while True:
        chunk = read(CHUNK)
        done += len(chunk)
        if max(done, total) > MAX_BYTES:  # before the first chunk is used, when the archive itself says so
            raise JobError(
                f"{source} has {max(done, total):,} bytes, expected at most {MAX_BYTES:,}; name the right file"
            )
        if not done:
            raise JobError(f"{source} is empty (0 bytes); copy or download it again")
        progress(f"reading {source.name}", done, max(done, total))
        yield chunk
        if not chunk:
            return
