"""`metavqa eval`: accuracies on held-out questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metavqa_cli.cli import console, probes, tables, task_accuracies
from metavqa_cli.cli.console import Format
from metavqa_cli.cli.default_group import DEFAULT, DefaultGroup
from metavqa_cli.cli.options import (
    ConfigOption,
    ForceOption,
    FormatOption,
    JsonOption,
    PresetOption,
    SetOption,
    chosen_format,
    complete_run,
    workspace,
)
from metavqa_cli.cli.session import (
    DatasetOption,
    DeviceOption,
    ParentsOption,
    PrecisionOption,
    SeedOption,
    finish,
    open_job,
    open_session,
)
from metavqa_cli.engine.opening import own_config
from metavqa_cli.schema.errors import BusyError, UsageError
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run

if TYPE_CHECKING:
    from metavqa_cli.engine.predictions import Wanted
    from metavqa_cli.engine.session import Session

app = typer.Typer(cls=DefaultGroup, help="Measure runs on the held-out questions; tables, sweeps and controls.")
app.command("table")(tables.table)
app.command("sweep")(tables.sweep)
app.command("controls")(tables.controls)
app.command("identify")(probes.identify)
app.command("novelty")(probes.novelty)
app.command("cell")(tables.cell)
app.command("methods")(tables.methods)
app.command("tasks")(task_accuracies.tasks)
COLUMNS = (
    "label", "setting", "tasks", "mean", "ci_low", "ci_high", "wording", "combination", "family", "pooled",
    "overlap_free", "soft",
)  # fmt: skip
KIND_COLUMNS = ("kind", "tasks", "pairs", "label", "setting", "mean", "ci_low", "ci_high", "pooled", "soft")


@app.command(DEFAULT, hidden=True)
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", autocompletion=complete_run, help="Runs of ldm, hvae or baseline; newest ldms if none."
        ),
    ] = None,
    gamma: Annotated[list[float] | None, typer.Option("--gamma", help="Guidance scale; may be repeated.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="Latents drawn for each task.")] = None,
    few_shot: Annotated[bool, typer.Option("--few-shot", help="Show only the few-shot rows.")] = False,
    by: tables.ByOption = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write RUN's answers to this file, in VQA's results format.")
    ] = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    with_parents: ParentsOption = False,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure runs, and what they are made from, on the held-out questions, with 95 % intervals over tasks."""
    flags: dict[str, Any] = {"eval.gammas": gamma or None, "eval.samples": samples, "seed": seed,
                             "dataset.name": dataset, "runtime.device": device,
                             "runtime.precision": precision}  # fmt: skip
    from metavqa_cli.engine.request import check_gamma

    for value in gamma or ():
        check_gamma(value)
    if predictions is not None:
        _check_file(predictions, force)
    if models:
        chosen = list({run.id: run for run in (runs.get(workspace(), name) for name in models)}.values())
    else:
        chosen = _newest(open_job("eval", preset, config, set, flags), with_parents)
    session = open_session(preset, config, set, flags, own=own_config(chosen[0]), force=force, together=True)
    from metavqa_cli.engine.ensure import finished_run
    from metavqa_cli.engine.evaluate import evaluate as measure
    from metavqa_cli.engine.predictions import wanted_of

    form = chosen_format(format, json)
    wanted = wanted_of(chosen, gamma or (), few_shot) if predictions is not None else None
    run = finish(finished_run(session, measure(session, chosen)))
    if predictions is not None and wanted is not None and not console.style.process:
        _write_predictions(session, run, wanted, predictions)
    if by == "kind":
        _print_kinds(session, run, few_shot, form)
    else:
        print_rows(run.result() or {}, few_shot, form)


def _newest(session: "Session", with_parents: bool) -> list[Run]:
    from metavqa_cli.engine.ensure import made_ldm, newest_ldms, usual_generator

    return [finish(made_ldm(session, usual_generator(session)))] if with_parents else newest_ldms(session)


def print_rows(result: dict[str, Any], few_shot: bool, format: Format) -> None:
    """The rows of an evaluation as a table or records, after a line on what they were measured with."""
    rows = [row for row in result["rows"] if not few_shot or row["setting"] == "few-shot"]
    _narrate(result, rows, "mean over tasks")
    _emit(rows, format, COLUMNS)


def _emit(rows: Sequence[Mapping[str, Any]], format: Format, columns: Sequence[str]) -> None:
    """The ``columns`` of rows, with the run where it alone tells rows of one method apart; for people in short."""
    runs_of: dict[tuple[str, str], Any] = {}
    several = any(runs_of.setdefault((row["label"], row["setting"]), row["run"]) != row["run"] for row in rows)
    chosen = [*(["run"] if several else []), *columns]
    if format == "human" or (format == "auto" and console.is_terminal("stdout")):
        lines = [_short(row, chosen) for row in rows]
        console.emit(lines, format, [name for name in lines[0] if any(line[name] for line in lines)] if lines else [])
    else:
        console.emit(rows, format, chosen)


def _short(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """A row that fits on a narrow terminal: the label says the setting, and one decimal does beside such intervals.

    What is the same without overlap is left out.
    """
    line: dict[str, Any] = {}
    for name in columns:
        value = row.get(name)
        if name == "ci_low":
            line["95 %"] = f"{value:.1f}–{row['ci_high']:.1f}"
        elif name == "overlap_free" and value == row["mean"]:
            line[name] = None
        elif name not in ("setting", "ci_high"):
            line[name] = f"{value:.1f}" if isinstance(value, float) else value
    return line


def _print_kinds(session: "Session", run: Run, few_shot: bool, format: Format) -> None:
    """The rows of an evaluation for each kind of question, the kind with most tasks first."""
    from metavqa_cli.engine.dataset import open_dataset
    from metavqa_cli.engine.evaluate import judged_of
    from metavqa_cli.engine.judged import rows_by_kind
    from metavqa_cli.engine.predictions import answers_of

    result = run.result() or {}
    chosen = [i for i, row in enumerate(result["rows"]) if not few_shot or row["setting"] == "few-shot"]
    judged = judged_of(open_dataset(session.workspace, session.config.dataset.name))
    if not any(judged.families):
        raise UsageError(
            f"the source of the dataset {result['dataset']!r} tells no kinds of questions; leave --by kind out"
        )
    rows = rows_by_kind(result["rows"], chosen, answers_of(run), judged, session.config.eval.bootstrap)
    _narrate(result, rows, "mean over the tasks of each kind")
    _emit(rows, format, KIND_COLUMNS)


def _narrate(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], mean: str) -> None:
    sampler = next((row["sampler"] for row in rows if row["sampler"]), None)
    console.narrate(f"accuracy in per cent on {result['dataset']} ({result['world']}), {mean}, 95 % interval, "
                    f"one seed ({result['seed']}){f'; {sampler}' if sampler else ''}")  # fmt: skip


def _check_file(path: Path, force: bool) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it with --predictions")
    if path.exists() and not force:
        raise BusyError(f"{path} exists; choose another --predictions, or replace it with --force")


def _write_predictions(session: "Session", run: Run, wanted: "Wanted", path: Path) -> None:
    """The answers of one row in VQA's results format."""
    from metavqa_cli.engine.dataset import open_dataset
    from metavqa_cli.engine.predictions import answers_of, predictions, write_predictions

    dataset = open_dataset(session.workspace, session.config.dataset.name)
    number, row = wanted.row((run.result() or {})["rows"])
    answers = answers_of(run)[number]
    found = predictions(answers[0], dataset.tasks, dataset.annotations)
    write_predictions(path, found)
    first = f", the first of {len(answers)} samples" if len(answers) > 1 else ""
    console.narrate(f"wrote {len(found)} answers of {row['label']} ({row['setting']}){first} to {path}")
    if dataset.annotations is None:
        console.narrate(
            "the dataset has no question ids of VQA: pairs are numbered from 1 over all tasks, in file order"
        )
