"""Whether a dataset still is what was built: its files against the record of them in ``dataset.json``. Without torch.

The record (``describe_files``) has an entry for each file, with its size and SHA-256. A folder of pictures, under
``images/``, has one entry for all its files: 24,000 of them would make the manifest larger than the tasks. The entry
of ``images.jsonl`` leaves out the first line, in which a person may change where the images are, and adds how many
images there are and how many bytes they have.
"""

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metavqa_cli.engine.contact import image_places
from metavqa_cli.engine.image_check import Difference, at_most, decode_all, file_size, look_for
from metavqa_cli.engine.indexing import Stamp, stamp
from metavqa_cli.engine.manifest import read_manifest, recorded
from metavqa_cli.engine.site import IMAGES, INDEX, MANIFEST, TASKS
from metavqa_cli.schema.errors import BusyError, JobError, MetaVQAError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store.images import ImageFile
from metavqa_cli.tasks.taskset import read_tasks

CHUNK = 1024**2

Entry = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What was looked at (``decoded`` images to the last pixel), and what differs."""

    files: int
    bytes: int
    images: int
    decoded: int
    differences: tuple[Difference, ...]


def describe_files(folder: Path) -> dict[str, Entry]:
    """The record of every file of the dataset in ``folder``, for its manifest: name -> ``bytes``, ``sha256`` and more.

    Names of folders of pictures end in a slash, and their entries say how many ``files``. Hidden and temporary files
    and the manifest itself are left out. ``JobError`` when a file cannot be read.
    """
    try:
        record = {
            name: {**_measure(name, paths), "sha256": _digest(name, paths)} for name, paths in _parts(folder).items()
        }
    except OSError as error:
        raise JobError(f"{error.filename or folder} cannot be read: {error.strerror}; check its permissions") from None
    if INDEX in record:
        _, sizes = look_for(image_places(folder, _images_used(folder)))
        record[INDEX] |= {"images": len(sizes), "image_bytes": sum(sizes.values())}
    return record


def check_files(folder: Path, manifest: Mapping[str, Any]) -> list[Difference]:
    """Every file of ``folder`` that is not as ``manifest["files"]`` records it. Looks at no image outside it."""
    return [found for found in _checked(_parts(folder), manifest) if found]


def verify_dataset(folder: Path, *, decode: bool = False, workers: int = 1) -> Generator[Event, None, Report]:
    """Compare the dataset in ``folder`` with its manifest, and look for its images; yields progress.

    With ``decode`` every image is read to its last pixel, by ``workers`` processes. Errors as ``read_manifest``;
    ``BusyError`` when another process builds the dataset anew, or removes it, meanwhile.
    """
    begun = stamp(folder / MANIFEST)
    manifest = read_manifest(folder)
    try:
        report = yield from _looked_through(folder, manifest, decode, workers)
    except (MetaVQAError, OSError):
        _refuse_another(folder, begun)
        raise
    if report.differences:
        _refuse_another(folder, begun)
    return report


def _refuse_another(folder: Path, begun: Stamp) -> None:
    """``BusyError`` when the dataset is not the one any more that was begun with: what differs is not damage."""
    if stamp(folder / MANIFEST) != begun:
        raise BusyError(f"the dataset {folder.name!r} was built anew or removed by another process while this one "
                        "read it; run the command again")  # fmt: skip


def _looked_through(
    folder: Path, manifest: Mapping[str, Any], decode: bool, workers: int
) -> Generator[Event, None, Report]:
    differences: list[Difference] = []
    parts = _parts(folder)
    for done, found in enumerate(_checked(parts, manifest), 1):
        differences += [found] if found else []
        yield ProgressMade("checking files", done, max(done, len(parts)), "files")
    places, wrong = _places(folder)
    gone, sizes = look_for(places)
    differences += [*wrong, *gone, *([] if wrong or gone or not places else _total_differs(manifest, sizes))]
    there = [(image, places[image]) for image in sorted(sizes) if decode and sizes[image]]
    for done, broken in decode_all(there, workers):
        differences += broken
        yield ProgressMade("decoding images", done, len(there), "images")
    counts = [_measure(name, paths) for name, paths in parts.items()]
    return Report(
        sum(count.get("files", 1) for count in counts), sum(count["bytes"] for count in counts),
        len(places), len(there), tuple(differences),
    )  # fmt: skip


# The files of the folder itself


def _parts(folder: Path) -> dict[str, list[Path]]:
    """What has an entry: its name and its files, sorted. Links to folders are followed at the top only."""
    found: dict[str, list[Path]] = {}
    for top in sorted(path for path in folder.iterdir() if not _hidden(path.name)):
        if not top.is_dir():
            found[top.name] = [top]
            continue
        for parent, folders, names in os.walk(top):
            folders[:] = [name for name in folders if not _hidden(name)]
            own, files = Path(parent), sorted(name for name in names if not _hidden(name))
            if files and top.name == IMAGES:
                found[f"{own.relative_to(folder).as_posix()}/"] = [own / name for name in files]
            elif files:
                found |= {(own / name).relative_to(folder).as_posix(): [own / name] for name in files}
    found.pop(MANIFEST, None)
    return dict(sorted(found.items()))


def _hidden(name: str) -> bool:
    """Temporary files, locks, and what file managers leave."""
    return name.startswith(".")


def _measure(name: str, paths: list[Path]) -> Entry:
    """What an entry says that takes no reading: the size, and of a folder how many files."""
    if name == INDEX:
        return {"bytes": sum(map(len, _contents(name, paths[0])))}
    size = sum(file_size(path) or 0 for path in paths)
    return {"files": len(paths), "bytes": size} if name.endswith("/") else {"bytes": size}


def _digest(name: str, paths: list[Path]) -> str:
    """SHA-256 of a file's content; of a folder's, over the name, the size and the content of each file."""
    digest = hashlib.sha256()
    for path in paths:
        if name.endswith("/"):
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        for chunk in _contents(name, path):
            digest.update(chunk)
    return digest.hexdigest()


def _contents(name: str, path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if name == INDEX:
            file.readline()
        while chunk := file.read(CHUNK):
            yield chunk


def _checked(found: Mapping[str, list[Path]], manifest: Mapping[str, Any]) -> Iterator[Difference | None]:
    """The difference, if any, of each part of the folder or of the record."""
    record = recorded(manifest)
    if record is None:
        detail = "it has no list of files, so that their content cannot be checked; build the dataset again"
        yield Difference(MANIFEST, "unrecorded", detail)
        return
    for name in sorted({*record, *found}):
        if name not in found:
            yield Difference(name, "missing", "it was built and is not there")
        elif name not in record:
            begun = (
                " (a build with features was begun; the same build finishes it)"
                if manifest.get("encoder", {}) is None
                else ""
            )
            yield Difference(name, "extra", f"it is there and was not built{begun}")
        else:
            yield _compared(name, found[name], record[name])


def _compared(name: str, paths: list[Path], wanted: Entry) -> Difference | None:
    if odd := next((path for path in paths if not path.is_file()), None):  # reading a pipe would wait for ever
        return Difference(name, "damaged", f"{odd.name} is not a regular file")
    try:
        measured = _measure(name, paths)
        for key, value in measured.items():
            if value != wanted.get(key):
                return Difference(name, "size", f"{_count(value)} {key}, expected {_count(wanted.get(key))}")
        digest = _digest(name, paths)
    except OSError as error:
        return Difference(name, "damaged", f"{error.filename or name} cannot be read: {error.strerror}")
    if digest == wanted.get("sha256"):
        return None
    detail = f"its sha256 is {digest[:12]}..., expected {str(wanted.get('sha256'))[:12]}..."
    return Difference(name, "content", detail)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else repr(value)


# The images, which may be anywhere


def _images_used(folder: Path) -> list[str]:
    tasks = (task for _, task in read_tasks(folder / TASKS))  # one at a time
    return sorted({image for task in tasks for image, _ in (*task.support, *task.query)})


def _places(folder: Path) -> tuple[dict[str, ImageFile], list[Difference]]:
    """Where the images are that tasks use; and what prevents knowing it."""
    try:
        used = _images_used(folder)
    except MetaVQAError as error:
        return {}, [Difference(TASKS, "damaged", str(error))] if (folder / TASKS).is_file() else []
    try:
        places = image_places(folder, used)
    except MetaVQAError as error:
        return {}, [Difference(INDEX, "damaged", str(error))]
    lost = [image for image in used if image not in places] if places else []
    return places, at_most([Difference(image, "missing", f"{INDEX} does not say where it is") for image in lost])


def _total_differs(manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> list[Difference]:
    """Images that were replaced by others, as far as sizes tell."""
    entry = (recorded(manifest) or {}).get(INDEX)
    found = sum(sizes.values())
    if entry is None or (wanted := entry.get("image_bytes")) == found:
        return []
    detail = f"its images have {found:,} bytes in all, expected {_count(wanted)}; --images finds those that are damaged"
    return [Difference(INDEX, "size", detail)]
