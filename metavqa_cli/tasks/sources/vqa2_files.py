"""Where VQA v2's files are: in any of the usual layouts, unpacked or in the archives they are published in."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.tasks.sources.packed import Source, absolute, check_file, looks_packed, members

What = Literal["questions", "annotations"]
SPLITS = {"train2014": "Train", "val2014": "Val"}  # pooled in this order
FOLDERS = frozenset({"questions", "annotations", "vqa", "vqa2", "vqav2", "vqa_v2", "vqa-v2", "data", "downloads"})
DEPTH = 3
DOWNLOAD = "`metavqa dataset download vqa2`"


@dataclass(frozen=True)
class Split:
    """The two files of one split of VQA."""

    questions: Source
    annotations: Source


def json_name(what: What, split: str) -> str:
    """The published name of a split's file."""
    return f"v2_{'OpenEnded_' if what == 'questions' else ''}mscoco_{split}_{what}.json"


def zip_name(what: What, split: str) -> str:
    """The published name of the archive that it is in."""
    return f"v2_{what.capitalize()}_{SPLITS[split]}_mscoco.zip"


def find_splits(config: Dataset) -> list[Split]:
    """The files that ``config`` names, else train2014 and val2014 below its path.

    ``MissingError`` naming what was looked for, and where; ``UsageError`` when the configuration cannot be followed.
    """
    if config.question_files or config.annotation_files:
        if len(config.question_files) != len(config.annotation_files):
            raise UsageError(
                f"dataset.question_files has {len(config.question_files)} files and dataset.annotation_files "
                f"{len(config.annotation_files)}, expected as many; name an --annotation-file for each "
                "--question-file, in the same order"
            )
        pairs = zip(config.question_files, config.annotation_files, strict=True)
        return [Split(_named("questions", questions), _named("annotations", said)) for questions, said in pairs]
    folders = list(known_folders(source_folder(config, "the VQA files"), FOLDERS))
    return [Split(_find("questions", name, folders), _find("annotations", name, folders)) for name in SPLITS]


def source_folder(config: Dataset, what: str) -> Path:
    """The folder ``dataset.path``. ``UsageError`` when none is named, ``MissingError`` when there is none."""
    if not config.path:
        raise UsageError(f"dataset.path is empty, expected the folder with {what}; name it with --path")
    folder = absolute(config.path)
    if not is_folder(folder):
        is_file = os.path.isfile(folder)  # noqa: PTH113 (unlike Path.is_file it never raises)
        found = f"{folder} is a file" if is_file else f"there is no folder {folder}"
        raise MissingError(f"{found}, expected the folder with {what}; check --path")
    return folder


def is_folder(path: Path) -> bool:
    """Whether there is a folder at ``path``; names that no file can have are none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_subfolder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a folder; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def known_folders(top: Path, names: frozenset[str], depth: int = DEPTH) -> Iterator[Path]:
    """``top`` and the folders below it whose names (in lower case) are known, nearest first, in a stable order."""
    level = [top]
    for _ in range(depth + 1):
        yield from level
        level = [below for folder in level for below in _subfolders(folder, names)]


def _subfolders(folder: Path, names: frozenset[str]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry) for entry in entries if entry.name.lower() in names and is_subfolder(entry))
    except OSError as error:
        raise MissingError(f"{folder} cannot be read: {error.strerror or error}; check its permissions") from None


def _find(what: What, split: str, folders: Sequence[Path]) -> Source:
    wanted, packed = json_name(what, split), zip_name(what, split)
    for folder in folders:
        if (folder / wanted).is_file():
            return Source(folder / wanted)
    for folder in folders:
        if (folder / packed).is_file():
            return _in_zip(folder / packed, wanted)
    raise MissingError(
        f"neither {wanted} nor {packed} is in {folders[0]} (or a folder like Questions, Annotations or vqa in it); "
        f"get it with {DOWNLOAD}, or name the files (of one split, or of more) with --question-file and "
        "--annotation-file"
    )


def _named(what: What, name: str) -> Source:
    path = absolute(name)
    try:
        check_file(path)
    except MissingError:
        raise MissingError(
            f"there is no file {path} (in dataset.{what[:-1]}_files); check --{what[:-1]}-file, or get it "
            f"with {DOWNLOAD}"
        ) from None
    return _in_zip(path, f"_{what}.json") if looks_packed(path) else Source(path)


def _in_zip(path: Path, ending: str) -> Source:
    """The member of an archive whose name ends so."""
    names = [info.filename for info in members(path)]
    found = [name for name in names if name.endswith(ending) and not name.startswith("__MACOSX/")]
    if len(found) == 1:
        return Source(path, found[0])
    inner = next((name for name in names if name.lower().endswith(".zip")), None)
    inside = f"another archive, {inner}; unpack the outer one" if inner else f"{_listed(names)}; copy it again"
    count = f"{len(found)} files" if found else "no file"
    raise JobError(f"{path} holds {count} with a name like {ending}, expected one, beside {inside}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "") or "nothing"
