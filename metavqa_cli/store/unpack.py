"""Unpack a zip archive that nobody vouches for: nothing leaves the folder or fills the disk.

The archive's own directory is judged before the first byte is written; a member is written under a temporary name,
checked against its size and CRC, and moved into place, so an interrupted unpacking goes on with the next member.
"""

import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store.atomic import TEMPORARY, explained, sync_everything
from metavqa_cli.store.zips import MAX_MEMBERS, Zip

CHUNK = 1 << 20
SMALL = 1 << 20  # a member up to here may be as regular as it likes
ENCRYPTED = 0x1 | 0x40 | 0x2000  # bits of the flags: encrypted, strongly, and with a masked directory
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: ``members``, ``bytes`` in all, and how often a member may be larger than packed.

    VQA's and COCO's largest have 82,784 members and 13.5 GB; their JSON packs 1 : 18; deflate reaches 1 : 1032.
    """

    members: int = MAX_MEMBERS
    bytes: int = 64 << 30
    ratio: int = 200


@dataclass(frozen=True)
class Unpacked:
    """How many files were ``written``, and how many were ``kept`` because they were there already."""

    written: int
    kept: int


def unpack(archive: Path, target: Path, tell: Callable[[Event], None], limits: Limits | None = None) -> Unpacked:
    """Unpack ``archive`` into the folder ``target``, of which the caller is the only user.

    A file that is there already is kept when it has the member's size and CRC (an image: its size). ``tell`` gets the
    progress in bytes; an exception that it raises stops the work, and the next call goes on. ``JobError`` names the
    member that is unsafe or damaged; an archive with one unsafe member is not unpacked at all.
    """
    workshop = target / f"{TEMPORARY}unpacking-{archive.name}"
    with _opened(archive) as opened:
        members = judged(archive, opened.infolist(), limits or Limits())
        total = sum(member.file_size for member in members)
        done = written = 0

        def progress(more: int) -> None:
            tell(ProgressMade(f"unpacking {archive.name}", done + more, total, "bytes"))

        try:
            for member in members:
                place = _place(target, member, archive)
                if not _is_there(place, member):
                    _extract(archive, _chunks(archive, opened, member), member, place, workshop, progress)
                    written += 1
                done += member.file_size
                progress(0)
            if written:
                sync_everything()
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    return Unpacked(written, len(members) - written)


def bytes_to_write(archive: Path, target: Path, limits: Limits | None = None) -> int:
    """How much of ``archive`` is not yet in ``target``, by size; errors as ``unpack``."""
    with _opened(archive) as opened:
        members = judged(archive, opened.infolist(), limits or Limits())
    return sum(member.file_size for member in members if _size(target / member.filename) != member.file_size)


def judged(archive: Path, members: Sequence[zipfile.ZipInfo], limits: Limits) -> list[zipfile.ZipInfo]:
    """The files among ``members``, when every one of them and all together are safe; else a ``JobError``."""
    if len(members) > limits.members:
        raise _unsafe(archive, f"it has {len(members)} members, more than {limits.members}")
    folders: set[str] = set()
    files: dict[str, str] = {}
    for member in members:
        if fault := _fault(member, limits):
            raise _unsafe(archive, f"its member {member.orig_filename!r} {fault}")
        key = _key(member.filename)
        folders.update(key[:at] for at, letter in enumerate(key) if letter == "/")
        if not _is_folder(member):
            if key in files:
                raise _unsafe(archive, f"its members {files[key]!r} and {member.filename!r} have one name")
            files[key] = member.filename
    if both := folders & files.keys():
        raise _unsafe(archive, f"its member {files[min(both)]!r} is a file and a folder")
    _judge_sums(archive, members, limits)
    return [member for member in members if not _is_folder(member)]


def _judge_sums(archive: Path, members: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    total = sum(member.file_size for member in members)
    if total > limits.bytes:
        raise _unsafe(archive, f"it would unpack to {total} bytes, more than {limits.bytes}")
    packed = sum(member.compress_size for member in members)
    if packed > archive.stat().st_size:
        raise _unsafe(archive, f"its members overlap: packed they have {packed} bytes, more than the archive")


def _is_folder(member: zipfile.ZipInfo) -> bool:
    return member.filename.endswith("/")  # `is_dir` fails on an empty name


def _fault(member: zipfile.ZipInfo, limits: Limits) -> str | None:
    """What is wrong with a member by its entry in the directory, as the end of a sentence; None when nothing is."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if _is_folder(member) else stat.S_IFREG):
        return "is a link or a special file, not a plain one"
    if member.flag_bits & ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in METHODS:
        return f"is packed with method {member.compress_type}; only stored and deflated ones are read"
    if member.file_size > max(SMALL, limits.ratio * member.compress_size):
        return f"would grow from {member.compress_size} to {member.file_size} bytes, more than {limits.ratio} times"
    return _fault_of_name(member.orig_filename)


def _fault_of_name(name: str) -> str | None:
    """Why a name could lead out of the folder, or mean something else on another system; None when it is plain."""
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or ".." in parts:
        return "leads out of the folder"
    if "\\" in name or ":" in name:
        return "has a backslash or a colon in its name"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "has a control character in its name"
    if any(part in ("", ".") or part != part.rstrip(" .") or part.startswith(TEMPORARY) for part in parts):
        return "has an empty part, a part that ends in a dot or a space, or a temporary one, in its name"
    return None


def _key(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name.casefold())


def _place(target: Path, member: zipfile.ZipInfo, archive: Path) -> Path:
    """Where the member goes. ``JobError`` when a link that is there already would lead it elsewhere."""
    place = target / member.filename
    for parent in (place, *place.parents):
        if parent == target:
            return place
        if parent.is_symlink() or (parent != place and parent.exists() and not parent.is_dir()):
            raise JobError(f"cannot unpack {archive} into {target}: {parent} is in the way; move it elsewhere")
    raise AssertionError(f"{place} is not in {target}")


def _is_there(place: Path, member: zipfile.ZipInfo) -> bool:
    if _size(place) != member.file_size:
        return False
    return place.suffix.lower() in IMAGE_SUFFIXES or _crc(place) == member.CRC


def _size(place: Path) -> int | None:
    return place.stat().st_size if place.is_file() else None


def _crc(place: Path) -> int:
    crc = 0
    with place.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _extract(
    archive: Path,
    chunks: Iterator[bytes],
    member: zipfile.ZipInfo,
    place: Path,
    workshop: Path,
    progress: Callable[[int], None],
) -> None:
    temporary, written = workshop / "member", 0
    with explained(place):
        workshop.mkdir(parents=True, exist_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                written += len(chunk)  # never more than the member's size: zipfile stops there
                progress(written)
        if written != member.file_size:
            raise _damaged(archive, f"member {member.filename!r} has {written} of its {member.file_size} bytes")
        temporary.replace(place)


def _chunks(archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member; ``JobError`` when it does not have its CRC."""
    try:
        with opened.open(member) as content:
            while chunk := content.read(CHUNK):
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise _damaged(archive, f"member {member.filename!r}: {error or 'it ends too early'}") from None


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        opened = Zip(archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _damaged(archive, str(error)) from None
    with opened:
        yield opened


def _unsafe(archive: Path, fault: str) -> JobError:
    return JobError(f"{archive} is not safe to unpack: {fault}; nothing of it was unpacked, and it is not VQA's own")


def _damaged(archive: Path, fault: str) -> JobError:
    return JobError(f"{archive} is damaged: {fault}; remove it and download it again")
