"""Members of zip archives as bytes, with the archives kept open: a listing of 80,000 members takes a second to read."""

import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError
from metavqa_cli.store.zips import Zip

MAX_MEMBER = 200_000_000  # bytes unpacked; a photograph has a few million
HELD = 4  # archives open at once
ENCRYPTED = 0x1
AGAIN = "download or copy it again"

_archives: "OrderedDict[tuple[str, int, int], zipfile.ZipFile]" = OrderedDict()
_lock = threading.Lock()  # a ZipFile shares one file position between its readers


def read_member(archive: Path, name: str) -> bytes:
    """The unpacked bytes of the member ``name``, its checksum verified. At most ``MAX_MEMBER`` are ever unpacked.

    ``MissingError`` when archive or member is not there; ``JobError`` when either is damaged, encrypted or too large.
    """
    with _lock:
        return _read(_open(archive), archive, name)


def _open(archive: Path) -> zipfile.ZipFile:
    """The open archive; one that was replaced since is opened anew."""
    try:
        status = archive.stat()
        key = (str(archive), status.st_mtime_ns, status.st_size)
        if key not in _archives:
            if len(_archives) >= HELD:
                _archives.popitem(last=False)[1].close()
            _archives[key] = Zip(archive)
    except FileNotFoundError:
        raise MissingError(f"{archive} does not exist; check the path of the zip archive") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MissingError(f"{archive} cannot be read: {reason}; check the path of the zip archive") from None
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise JobError(f"{archive} is not a complete zip archive ({error}); {AGAIN}") from None
    _archives.move_to_end(key)
    return _archives[key]


def _read(opened: zipfile.ZipFile, archive: Path, name: str) -> bytes:
    try:
        member = opened.getinfo(name)
    except KeyError:
        raise MissingError(f"{name} is not in {archive}; check that this is the archive of these images") from None
    if refusal := _refusal(member, archive):
        raise refusal
    try:
        with opened.open(member) as file:
            return file.read(member.file_size)  # without a limit all would be unpacked, and what is too much cut off
    except RuntimeError as error:  # a compression that is not known here (NotImplementedError), or a password
        raise JobError(f"{name} in {archive} cannot be unpacked ({error}); unpack the archive to a folder") from None
    except Exception as error:  # damaged bytes lead to errors of zipfile, of the disk, and of every compression
        reason = str(error) or "it ends too early"
        raise JobError(f"{name} in {archive} is damaged ({reason}); {AGAIN}") from None


def _refusal(member: zipfile.ZipInfo, archive: Path) -> MetaVQAError | None:
    """Why a member is not read at all; its size is the one that unpacking stops at, so it cannot be a lie."""
    where = f"{member.filename} in {archive}"
    if member.is_dir():
        return JobError(f"{where} is a folder; name an image file inside it")
    if member.flag_bits & ENCRYPTED:
        return JobError(f"{where} is encrypted; unpack the archive to a folder with its password")
    if member.file_size > MAX_MEMBER:
        return JobError(f"{where} unpacks to {member.file_size:,} bytes, more than {MAX_MEMBER:,}; make it smaller")
    if member.file_size == 0:
        return JobError(f"{where} is empty (0 bytes); {AGAIN}")
    return None
