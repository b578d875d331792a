"""`metavqa eval`: accuracies on held-out questions."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from metavqa_cli.cli import console, probes, tables
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
    SeedOption,
    finish,
    open_job,
    open_session,
    own_config,
)
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run

if TYPE_CHECKING:
    from metavqa_cli.engine.session import Session

app = typer.Typer(cls=DefaultGroup, help="Measure runs on the held-out questions; tables, sweeps and controls.")
app.command("table")(tables.table)
app.command("sweep")(tables.sweep)
app.command("controls")(tables.controls)
app.command("identify")(probes.identify)
app.command("novelty")(probes.novelty)
app.command("cell")(tables.cell)
app.command("methods")(tables.methods)
COLUMNS = ("label", "setting", "tasks", "mean", "ci_low", "ci_high", "wording", "combination", "family")


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
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
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
                             "dataset.name": dataset, "runtime.device": device}  # fmt: skip
    from metavqa_cli.engine.request import check_gamma

    for value in gamma or ():
        check_gamma(value)
    if models:
        chosen = list({run.id: run for run in (runs.get(workspace(), name) for name in models)}.values())
    else:
        chosen = _newest(open_job("eval", preset, config, set, flags), with_parents)
    session = open_session(preset, config, set, flags, own=own_config(chosen[0]), force=force)
    from metavqa_cli.engine.ensure import finished_run
    from metavqa_cli.engine.evaluate import evaluate as measure

    run = finish(finished_run(session, measure(session, chosen)))
    print_rows(run.result() or {}, few_shot, chosen_format(format, json))


def _newest(session: "Session", with_parents: bool) -> list[Run]:
    from metavqa_cli.engine.ensure import made_ldm, newest_ldms, usual_generator

    return [finish(made_ldm(session, usual_generator(session)))] if with_parents else newest_ldms(session)


def print_rows(result: dict[str, Any], few_shot: bool, format: Format) -> None:
    """The rows of an evaluation as a table or records, after a line on what they were measured with."""
    rows = [row for row in result["rows"] if not few_shot or row["setting"] == "few-shot"]
    sampler = next((row["sampler"] for row in rows if row["sampler"]), None)
    console.narrate(f"accuracy in per cent on {result['dataset']} ({result['world']}), mean over tasks, 95 % interval, "
                    f"one seed ({result['seed']}){f'; {sampler}' if sampler else ''}")  # fmt: skip
    several = len({row["label"] for row in rows}) < len(rows)  # of one method: only the run tells them apart
    console.emit(rows, format, ("run", *COLUMNS) if several else COLUMNS)
