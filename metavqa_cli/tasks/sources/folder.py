"""A person's own data: a CSV, TSV or JSONL table with the columns image, question and answer."""

import csv
import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path, PurePath
from typing import Any, NoReturn

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.schema.strict import kind
from metavqa_cli.schema.text import neutral
from metavqa_cli.tasks.kinds import kind_of
from metavqa_cli.tasks.prompts import to_template
from metavqa_cli.tasks.protocol import group_instances
from metavqa_cli.tasks.sources.cutting import make_tasks, wanted_questions
from metavqa_cli.tasks.sources.image_files import find_paths, image_roots
from metavqa_cli.tasks.sources.json_files import DECODER, shown
from metavqa_cli.tasks.sources.material import Material, Progress, unwatched
from metavqa_cli.tasks.sources.packed import Source, absolute, check_file, text_of
from metavqa_cli.tasks.sources.texts import check_length, has_words, oddity
from metavqa_cli.tasks.sources.vqa2_files import is_folder

COLUMNS = ("image", "question", "answer")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
LINES = frozenset({".jsonl", ".ndjson"})
SUFFIXES = frozenset({*DELIMITERS, *LINES})

Row = tuple[int, dict[str, Any]]  # line number, cells by column
Instance = tuple[str, str, str]  # image, question, answer


def inputs(config: Dataset) -> list[Path]:
    """The table. Errors as ``read``."""
    return [find_table(config.path)]


def read(config: Dataset, progress: Progress = unwatched) -> Material:
    """The tasks of a table, cut by the protocol of ``config``, and where their images are.

    ``MissingError`` when there is no table, ``UsageError`` when there are several, ``JobError`` naming file and line
    for a row that cannot be used, and with the counts at each filter when no task is left.
    """
    path = find_table(config.path)
    roots = [] if config.tasks_only else image_roots(config) if config.image_roots else [path.parent]
    is_wanted = wanted_questions(config)
    notes: list[str] = []
    rows = list(_instances(path, progress, notes))
    kept = [row for row in rows if is_wanted(row[1])]
    funnel = [("rows", len(rows)), ("that dataset.match and dataset.exclude leave", len(kept))]
    groups = group_instances(kept)
    tasks = make_tasks(groups, config, lambda task: (to_template(task.question).text, kind_of(task.question)), funnel)
    if repeated := len(kept) - sum(map(len, groups.values())):
        notes.append(f"{repeated:,} rows ask a question of an image again; the first answer counts")
    images, missing = find_paths(tasks.image_ids(), roots, progress) if roots else ({}, ())
    return Material(tasks, images, missing, notes=tuple(notes))


def find_table(path: str) -> Path:
    """The table that ``dataset.path`` names, or the only one in the folder that it names."""
    if not path:
        raise UsageError(
            "dataset.path is empty, expected a CSV, TSV or JSONL table, or its folder; name it with --path"
        )
    place = absolute(path)
    if not is_folder(place):
        check_file(place)
        if place.suffix.lower() not in SUFFIXES:
            raise UsageError(f"dataset.path is {place}, expected a folder or a file ending in .csv, .tsv or .jsonl")
        return place
    tables = sorted(found for found in place.iterdir() if found.suffix.lower() in SUFFIXES and found.is_file())
    if len(tables) == 1:
        return tables[0]
    if tables:
        names = ", ".join(table.name for table in tables[:5])
        raise UsageError(f"{place} has {len(tables)} tables ({names}), expected one; name the file with --path")
    raise MissingError(
        f"there is no CSV, TSV or JSONL table in {place}; write one with the columns {', '.join(COLUMNS)}"
    )


def _instances(path: Path, progress: Progress, notes: list[str]) -> Iterator[Instance]:
    """The rows that can be part of a task. Notes what was left out or ignored."""
    text = "".join(text_of(Source(path), progress))
    rows = _records(path, text) if path.suffix.lower() in LINES else _table(path, text)
    ignored: Counter[str] = Counter()
    wordless: list[int] = []
    for line, cells in rows:
        ignored.update(cells.keys() - {*COLUMNS})
        place = f"{path}, line {line}"
        image, question, answer = (_cell(cells, column, place) for column in COLUMNS)
        if has_words(question):
            yield _image_id(image, place), question, answer
        else:
            wordless.append(line)
    if ignored:
        notes.append(f"ignored the columns {', '.join(map(shown, sorted(ignored)))} of {path.name}")
    if wordless:
        notes.append(f"left out {len(wordless):,} rows of {path.name} whose question has no letter or digit "
                     f"(the first in line {wordless[0]})")  # fmt: skip


def _cell(cells: dict[str, Any], column: str, place: str) -> str:
    """A cell with white space at its ends removed and, but for images, inside made single spaces."""
    value = cells.get(column)
    if not isinstance(value, str):
        _refuse(place, f"the {column} is {shown(value)}" if column in cells else f"there is no {column}", "a text")
    value = value.strip() if column == "image" else " ".join(value.split())
    if not value:
        _refuse(place, f"the {column} is empty", "a text")
    if found := oddity(value):
        _refuse(place, f"the {column} has {found}", "plain text")
    return value if column == "image" else check_length(value, column, place)


def _image_id(path: str, place: str) -> str:
    """The path as written, in one spelling. ``JobError`` for one that leads out of the folder."""
    if PurePath(path).is_absolute():
        return str(absolute(path))
    normal = posixpath.normpath(path.replace("\\", "/"))
    if normal.startswith("../") or normal in ("..", "."):
        _refuse(place, f"the image {path!r} leads out of the table's folder", "a path inside it or an absolute one")
    return normal


def _table(path: Path, text: str) -> Iterator[Row]:
    """The rows of a CSV or TSV file; quoted cells may hold line ends."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if header is None:
                header = _header(path, cells)
            elif cells:
                if len(cells) != len(header):
                    _refuse(f"{path}, line {line}", f"there are {len(cells)} cells", f"{len(header)}, as in the header")
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        what = neutral(str(error), one_line=True)
        raise JobError(f"{path}, line {line}: {what}; mend the quotes in this row") from None


def _delimiter(path: Path, text: str) -> str:
    """What separates the cells: as the file's name says, unless only another usual one gives the three columns."""
    usual = DELIMITERS[path.suffix.lower()]
    first = text.split("\n", 1)[0]
    for delimiter in (usual, ";", "\t", ","):
        names = [cell.strip().strip('"').lower() for cell in first.split(delimiter)]
        if all(column in names for column in COLUMNS):
            return delimiter
    return usual


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    lacking = [column for column in COLUMNS if column not in names]
    if lacking:
        found = ", ".join(shown(cell) for cell in cells[:8]) or "nothing"
        _refuse(f"{path}, line 1", f"there is no column {' and no column '.join(lacking)} in the header ({found})",
                f"the columns {', '.join(COLUMNS)}, separated by {shown(DELIMITERS[path.suffix.lower()])}")  # fmt: skip
    if twice := next((column for column in COLUMNS if names.count(column) > 1), None):
        _refuse(f"{path}, line 1", f"there are {names.count(twice)} columns {twice}", "one")
    return names


def _records(path: Path, text: str) -> Iterator[Row]:
    """The objects of a JSONL file; empty lines are passed over."""
    for line, record in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not record.strip():
            continue
        place = f"{path}, line {line}"
        try:
            cells = json.loads(record, parse_constant=DECODER.parse_constant)
        except RecursionError:
            _refuse(place, "its values are nested too deeply", 'an object like {"image": …}')
        except ValueError as error:
            _refuse(place, f"not JSON ({error})", 'an object like {"image": …}')
        if not isinstance(cells, dict):
            _refuse(place, f"{kind(cells)} stands there", f"an object with {', '.join(COLUMNS)}")
        yield line, cells


def _refuse(place: str, found: str, expected: str) -> NoReturn:
    raise JobError(f"{place}: {found}, expected {expected}; mend the file")
