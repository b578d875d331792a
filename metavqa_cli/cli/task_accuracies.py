"""`metavqa eval tasks`: the accuracy of every test task under finished cells and evaluations. Without torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.console import Format
from metavqa_cli.cli.options import FormatOption, JsonOption, chosen_format, complete_run, workspace
from metavqa_cli.cli.session import DatasetOption
from metavqa_cli.schema.errors import JobError, MissingError, UsageError

if TYPE_CHECKING:
    from metavqa_cli.engine.swept import Swept
    from metavqa_cli.store.runs import Run

COLUMNS = ("question", "family", "method", "setting", "gamma", "accuracy", "pairs")
Row = dict[str, Any]


def tasks(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", autocompletion=complete_run,
                       help="Finished cells or evaluations; the newest one if none is named."),
    ] = None,
    dataset: DatasetOption = None,
    family: Annotated[str | None, typer.Option("--family", help="Only tasks of this question family.")] = None,
    best: Annotated[
        int | None, typer.Option("--best", metavar="N", min=1, help="Only the N best tasks of each method.")
    ] = None,
    worst: Annotated[
        int | None, typer.Option("--worst", metavar="N", min=1, help="Only the N worst tasks of each method.")
    ] = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:  # fmt: skip
    """The accuracy of every test task, measured before by `metavqa eval` and its tables."""
    form = chosen_format(format, json)
    if best is not None and worst is not None:
        raise UsageError("--best and --worst are two lists; give one of them")
    from metavqa_cli.engine.task_rows import task_rows

    swept = _measured(names or [], dataset)
    if family is not None and family not in swept.families:
        known = ", ".join(swept.families) or "the source of the dataset tells none"
        raise UsageError(f"no test task of dataset {swept.dataset!r} is of family {family!r}; there are {known}")
    rows = [row for row in task_rows(swept, swept.measured) if family in (None, row["family"])]
    if best is not None or worst is not None:
        rows = _extreme(rows, best or worst or 0, lowest=worst is not None)
    console.narrate(f"accuracy in per cent of each task's query pairs{_over_seeds(rows)}, from {_runs(swept)}; a task "
                    "with few pairs can be best or worst by luck")  # fmt: skip
    _emit(rows, form)


def _measured(names: Sequence[str], dataset: str | None) -> "Swept":
    """What the named runs measured, or the newest one on the dataset. One sentence for whatever is in the way."""
    from dataclasses import replace

    from metavqa_cli.engine.configuration import resolve_config
    from metavqa_cli.engine.swept import Reader
    from metavqa_cli.store import runs

    chosen = list({run.id: run for run in (runs.get(workspace(), name) for name in names)}.values())
    of = dataset or (str(chosen[0].manifest()["dataset"]["name"]) if chosen else resolve_config().config.dataset.name)
    for run in chosen:
        _check(run, of)
    swept = Reader(workspace()).read(of, chosen or None)
    if chosen and swept.problems:
        raise JobError("; ".join(swept.problems))
    for problem in swept.problems:
        console.warn(problem)
    if not swept.measured:
        raise MissingError(f"no finished evaluation or cell is about the dataset {of!r}; `metavqa eval` measures its "
                           "newest runs")  # fmt: skip
    newest = swept.measured[-1].run
    return swept if chosen else replace(swept, measured=tuple(one for one in swept.measured if one.run == newest))


def _check(run: "Run", dataset: str) -> None:
    """``UsageError`` or ``MissingError`` for a run that measured nothing of the dataset's tasks."""
    from metavqa_cli.engine.swept import KINDS

    made = run.manifest()["dataset"]["name"]
    if run.kind not in KINDS:
        raise UsageError(f"run {run.id} is of kind {run.kind}; name runs of kind {' or '.join(KINDS)}")
    if made != dataset:
        raise UsageError(f"run {run.id} is about the dataset {made!r}, not {dataset!r}; name runs of one dataset")
    if run.state() != "finished":
        raise MissingError(f"run {run.id} is {run.state()}, not finished; finish it with the command that began it")


def _extreme(rows: Sequence[Row], number: int, *, lowest: bool) -> list[Row]:
    """The tasks with the highest or lowest accuracy, method by method; of equal ones the first in the dataset."""
    methods: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        methods.setdefault((row["method"], row["setting"], tuple(row["runs"])), []).append(row)
    sign = 1 if lowest else -1
    return [row for own in methods.values() for row in sorted(own, key=lambda row: sign * row["accuracy"])[:number]]


def _over_seeds(rows: Sequence[Row]) -> str:
    """ ", mean over 2 seeds", or from how few to how many where methods have different numbers."""
    counts = {len(row["seeds"]) for row in rows}
    least, most = min(counts), max(counts)
    if most == 1:
        return ", of one seed"
    return f", mean over {most} seeds" if least == most else f", mean over {least} to {most} seeds (--json: which)"


def _runs(swept: "Swept") -> str:
    ids = list(dict.fromkeys(one.run for one in swept.measured))
    return ", ".join(ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "") + f" on {swept.dataset}"


def _emit(rows: Sequence[Row], format: Format) -> None:
    if format == "human" or (format == "auto" and console.is_terminal("stdout")):
        shown = [{**row, "accuracy": f"{row['accuracy']:.1f}"} for row in rows]
        console.emit(shown, format, [name for name in COLUMNS if any(row[name] is not None for row in shown)])
    else:
        console.emit(rows, format, COLUMNS)
