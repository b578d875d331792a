"""Where images are: every folder and archive is listed once, whatever the number of images that are looked for."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.store.images import ImageFile
from metavqa_cli.tasks.sources.material import Progress, unwatched
from metavqa_cli.tasks.sources.packed import absolute, looks_packed, members
from metavqa_cli.tasks.sources.vqa2_files import is_folder, is_subfolder, source_folder

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
FOLDERS = frozenset({"images", "mscoco", "coco", "train2014", "val2014", "data", "downloads"})
DEPTH = 4  # data/Images/mscoco/train2014
ARCHIVES = frozenset({"train2014.zip", "val2014.zip"})


def image_roots(config: Dataset) -> list[Path]:
    """The folders and archives to look in. ``MissingError`` naming one that is not there."""
    if not config.image_roots:
        if not config.path:
            raise UsageError("dataset.image_roots and dataset.path are empty; name the images with --image-root")
        return [source_folder(config, "the images")]
    roots = [absolute(root) for root in config.image_roots]
    for root in roots:
        if not is_folder(root) and not looks_packed(root):
            raise MissingError(f"{root} (in dataset.image_roots) is no folder and no zip of images; check --image-root")
    return roots


def find_coco(
    wanted: Collection[str], roots: Sequence[Path], progress: Progress = unwatched
) -> tuple[dict[str, ImageFile], tuple[str, ...]]:
    """Images by name (``COCO_train2014_000000000009``), and the names of those that are nowhere, sorted.

    Looks in each root, in its folders with usual names (``Images/mscoco/train2014``) and in ``train2014.zip`` and
    ``val2014.zip`` there; unpacked files are preferred.
    """
    names = frozenset(wanted)
    found: dict[str, ImageFile] = {}
    for root in roots:
        for place, packed, files in _listings(root):
            for name in files:
                stem, suffix = os.path.splitext(PurePosixPath(name).name)  # noqa: PTH122 (several times faster)
                if stem in names and stem not in found and suffix.lower() in SUFFIXES:
                    found[stem] = ImageFile(place, name, packed)
            progress(f"looking for images in {place.name}", len(found), len(names))
            if len(found) == len(names):
                return found, ()
    return found, tuple(sorted(names - found.keys()))


def _listings(root: Path) -> Iterator[tuple[Path, bool, list[str]]]:
    """Every folder with its files, nearest first, then (True) every archive with its members; each is listed once."""
    archives = [] if is_folder(root) else [root]
    level = [root] if not archives else []
    while level:
        below = []
        for folder in level:
            files, folders = _scan(folder)
            yield folder, False, files
            archives += [folder / name for name in files if name.lower() in ARCHIVES]
            below += [folder / name for name in folders if name.lower() in FOLDERS]
        level = [folder for folder in below if len(folder.relative_to(root).parts) <= DEPTH]
    for archive in archives:
        yield archive, True, [info.filename for info in members(archive)]


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """The names of files and of folders in ``folder``, each sorted."""
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name, is_subfolder(entry)) for entry in entries)
    except OSError as error:
        raise MissingError(f"{folder} cannot be read: {error.strerror or error}; check its permissions") from None
    return [name for name, is_dir in names if not is_dir], [name for name, is_dir in names if is_dir]


def find_paths(
    wanted: Collection[str], roots: Sequence[Path], progress: Progress = unwatched
) -> tuple[dict[str, ImageFile], tuple[str, ...]]:
    """Images by path (relative to a root, or absolute), and those that are nowhere, sorted."""
    listings: dict[Path, frozenset[str]] = {}

    def is_there(folder: Path, name: str) -> bool:
        if folder not in listings:
            listings[folder] = frozenset(_scan(folder)[0] if is_folder(folder) else ())
        return name in listings[folder]

    found: dict[str, ImageFile] = {}
    for path in sorted(path for path in wanted if Path(path).is_absolute()):
        if is_there(Path(path).parent, Path(path).name):
            found[path] = ImageFile(Path(path).parent, Path(path).name)
    rest = sorted(path for path in wanted if not Path(path).is_absolute())
    for root in roots:
        packed = not is_folder(root)
        inside = frozenset(info.filename for info in members(root)) if packed else frozenset()
        for path in rest:
            is_here = path in inside if packed else is_there((root / path).parent, Path(path).name)
            if is_here and path not in found:
                found[path] = ImageFile(root, path, packed)
        progress(f"looking for images in {root.name}", len(found), len(wanted))
    return found, tuple(sorted(frozenset(wanted) - found.keys()))
