"""`metavqa dataset show`: the tasks of a dataset as a list, or one of them with its images. Without torch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.console import Format
from metavqa_cli.cli.options import FormatOption, JsonOption, chosen_format, workspace
from metavqa_cli.cli.session import DatasetOption
from metavqa_cli.engine.configuration import resolve_config
from metavqa_cli.schema.errors import MetaVQAError, MissingError, UsageError

if TYPE_CHECKING:
    from metavqa_cli.engine.contact import Pair
    from metavqa_cli.tasks.taskset import Task

LIST_COLUMNS = ("question", "split", "family", "novelty", "answers", "support", "query")
ANSWER_COLUMNS = ("answer", "support", "query", "statement")
IMAGE_COLUMNS = ("set", "answer", "image")
SHOWN, DRAWN = 12, 200  # images on a terminal and in a file, unless --images says otherwise
NEAR = 3


def show(
    question: Annotated[
        str | None, typer.Argument(metavar="[QUESTION]", help="A task's question, or a part that only it has.")
    ] = None,
    dataset: DatasetOption = None,
    split: Annotated[str | None, typer.Option("--split", help="Only train, validation or test tasks.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Only tasks of this question family.")] = None,
    match: Annotated[
        str | None, typer.Option("--match", metavar="REGEX", help="Only questions in which this is found.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most tasks to list; 0 lists all.")] = 20,
    images: Annotated[
        int | None,
        typer.Option("--images", min=0, help=f"Most images of a task: {SHOWN} on a terminal, {DRAWN} in a file."),
    ] = None,
    part: Annotated[
        Literal["all", "support", "query"], typer.Option("--part", help="Only images of this set of the task.")
    ] = "all",
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Also draw the images to this file.")
    ] = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """List the tasks of a dataset, or show one with its answers and its images."""
    form = chosen_format(format, json)
    if question is None and (png or images is not None or part != "all"):
        raise UsageError("--images, --part and --png are about one task; name its question")
    if png is not None and png.suffix.lower() != ".png":
        raise UsageError(f"--png writes a PNG image, so {str(png)!r} should end in .png")
    name = dataset or resolve_config().config.dataset.name
    path, tasks = _tasks(name, split, family, match)
    if question is None:
        _list(tasks, limit, form)
        return
    _show(path, find(tasks, question, name), part, images, png, form)


def _tasks(name: str, split: str | None, family: str | None, match: str | None) -> "tuple[Path, list[Task]]":
    """The folder of the dataset, and its tasks that the options leave; ``UsageError`` when they leave none."""
    from metavqa_cli.engine.manifest import check_recorded, open_manifest
    from metavqa_cli.tasks.taskset import load_tasks

    try:
        pattern = re.compile(match or "", re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"--match {match!r} is not a regular expression: {error}") from None
    path, _ = open_manifest(workspace(), name)
    check_recorded(path, "tasks.jsonl")
    everything = load_tasks(path / "tasks.jsonl").tasks
    tasks = [
        task for task in everything
        if split in (None, task.split) and family in (None, task.family) and pattern.search(task.question)
    ]  # fmt: skip
    asked = {"--split": split, "--family": family, "--match": match}
    given = " and ".join(f"{option} {value!r}" for option, value in asked.items() if value is not None)
    if not tasks and given:
        raise UsageError(f"none of the {len(everything)} tasks of dataset {name!r} fits {given}; leave something out")
    return path, tasks


def _list(tasks: "Sequence[Task]", limit: int, form: Format) -> None:
    rows = [
        {"question": t.question, "split": t.split, "family": t.family, "novelty": t.novelty,
         "answers": ", ".join(t.answers), "support": len(t.support), "query": len(t.query)}
        for t in (tasks[:limit] if limit else tasks)
    ]  # fmt: skip
    console.emit(rows, form, LIST_COLUMNS)
    if len(rows) < len(tasks):
        console.narrate(f"{len(rows)} of {len(tasks)} tasks; --limit 0 shows all")


def find(tasks: "Sequence[Task]", question: str, dataset: str) -> "Task":
    """The task that asks ``question``: exactly, but for case, spaces and the final mark, or alone with these words.

    ``UsageError`` when several have it, ``MissingError`` with the nearest questions when none has.
    """
    exact = [task for task in tasks if task.question == question]
    same = exact or [task for task in tasks if _plain(task.question) == _plain(question)]
    words = re.compile(rf"(?<!\w){re.escape(_plain(question))}(?!\w)")
    having = same or [task for task in tasks if words.search(_plain(task.question))]
    if same or len(having) == 1:
        return having[0]
    if having:
        some = ", ".join(repr(task.question) for task in having[:NEAR])
        raise UsageError(
            f"{len(having)} tasks ask {question!r} or more ({some}{', ...' if len(having) > NEAR else ''}); "
            f"type more of the question, or list them with --match"
        )
    from difflib import get_close_matches

    near = get_close_matches(question, [task.question for task in tasks], n=NEAR)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    way = f"`metavqa dataset show --dataset {question}`" if question in workspace().datasets() else "--match REGEX"
    raise MissingError(f"no task of dataset {dataset!r} asks {question!r}; {hint}{way} lists tasks")


def _plain(question: str) -> str:
    return " ".join(question.casefold().split()).rstrip("?. ")


def _show(path: Path, task: "Task", part: str, images: int | None, png: Path | None, form: Format) -> None:
    from metavqa_cli.engine.contact import PARTS, choose, image_places, pairs_of, write_contact

    places = image_places(path, [image for image, _ in (*task.support, *task.query)])
    pairs = pairs_of(task, places, [name for name in PARTS if part in ("all", name)])
    if png is not None and not places:
        raise MissingError(f"dataset {path.name!r} has tasks only, no images to draw; build it without --tasks-only")
    if not places:
        console.narrate(f"dataset {path.name!r} has tasks only, no images")
    if png is not None:
        drawn = choose(pairs, DRAWN if images is None else images)
        for problem in write_contact(png, task, drawn):
            console.warn(problem)
        console.narrate(f"{len(drawn)} of {len(pairs)} images are in {png}")
    if form in ("json", "jsonl"):
        console.emit(describe(task, pairs), form)
    elif form == "csv":
        console.emit(_rows(pairs, images), form, IMAGE_COLUMNS)
    else:
        _print(task, pairs, images, form, draw=bool(places))


def describe(task: "Task", pairs: "Sequence[Pair]") -> dict[str, Any]:
    """The stable record of a task; pairs are ``[image file, answer]``."""
    from metavqa_cli.engine.contact import PARTS, tally

    return {
        "question": task.question, "template": task.template, "split": task.split, "family": task.family,
        "novelty": task.novelty,
        "answers": [
            {"answer": row.answer, "support": row.support, "query": row.query, "statement": row.statement}
            for row in tally(task)
        ],
        **{part: [[_file(pair), pair.answer] for pair in pairs if pair.part == part] for part in PARTS},
    }  # fmt: skip


def _file(pair: "Pair") -> str | None:
    return None if pair.place is None else str(pair.place)


def _rows(pairs: "Sequence[Pair]", number: int | None) -> list[dict[str, Any]]:
    from metavqa_cli.engine.contact import choose

    chosen = pairs if number is None else choose(pairs, number)
    return [{"set": pair.part, "answer": pair.answer, "image": _file(pair) or pair.image} for pair in chosen]


def _print(task: "Task", pairs: "Sequence[Pair]", images: int | None, form: Format, *, draw: bool) -> None:
    """What a person reads: the task, its answers, and its images as pictures on a terminal, as paths elsewhere."""
    record = describe(task, pairs)
    console.emit({key: record[key] for key in ("question", "template", "split", "family", "novelty")}, form)
    console.out()
    console.emit(record["answers"], form, ANSWER_COLUMNS)
    if images == 0 or not pairs:
        return
    console.out()
    if draw and form in ("auto", "human") and console.is_terminal("stdout"):
        _draw(pairs, SHOWN if images is None else images)
    else:
        console.emit(_rows(pairs, images), form, IMAGE_COLUMNS)


def _draw(pairs: "Sequence[Pair]", number: int) -> None:
    from metavqa_cli.engine.contact import choose
    from metavqa_cli.tui.pictures import Lines, arrange

    chosen = choose(pairs, number)
    tiles = [_tile(pair) for pair in chosen]
    printer = console.console("stdout")
    color = console.wants_color("stdout") and not console.style.ascii
    printer.print(Lines(arrange(tiles, printer.width, color=color)), soft_wrap=True)
    if len(chosen) < len(pairs):
        console.narrate(f"{len(chosen)} of {len(pairs)} images; --images {len(pairs)} shows all")


def _tile(pair: "Pair") -> Any:
    """The picture of a pair, or an empty frame with the name of its file and a warning."""
    from metavqa_cli.engine.contact import open_pair
    from metavqa_cli.tui.pictures import Tile

    label = console.neutral(pair.answer, one_line=True)
    try:
        return Tile(open_pair(pair), label)
    except MetaVQAError as error:
        console.warn(str(error))
        name = pair.place.name if pair.place else pair.image
        return Tile(None, label, console.neutral(name, one_line=True))
