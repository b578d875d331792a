"""`metavqa runs`: list, show, remove and compare the runs of a workspace. Without torch."""

import time
from typing import Annotated, Any

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.curves import curves
from metavqa_cli.cli.options import (
    FormatOption,
    JsonOption,
    RunArgument,
    chosen_format,
    complete_run,
    workspace,
)
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store import log, removal, runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.sealed import NewerError

LIST_COLUMNS = ("run", "kind", "state", "dataset", "created", "parents")

app = typer.Typer(no_args_is_help=True, help="List, show, remove and compare runs, and their curves.")


@app.command()
def ls(
    filter: Annotated[
        str | None,
        typer.Option("--filter", metavar="TEXT", help="Only these, e.g. 'kind:ldm accuracy>50 -smoke | state:failed'."),
    ] = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """List the runs of the workspace, oldest first."""
    here = workspace()
    found = runs.list_runs(here)
    listed = {run.id for run in found}
    damaged = [name for name in here.run_ids() if name not in listed and not Run(here.runs_dir / name).is_intact()]
    if filter is not None:
        from metavqa_cli.tui.feed import read_runs
        from metavqa_cli.tui.filters import parse

        wanted = parse(filter)
        kept = {view.id for view in read_runs(here, time.time()) if wanted(view)}
        found = [run for run in found if run.id in kept]
    for name in damaged:
        console.warn(_trouble(Run(here.runs_dir / name)))
    if not found and filter is not None:
        console.narrate(f"no run in {here.root} matches {filter!r}")
    elif not found:
        console.narrate(f"no runs in {here.root}; `metavqa quickstart` makes the first ones")
    records = []
    for run in found:
        with runs.unless_removed(run):
            records.append(describe(run))
    held = any(record["holder"] for record in records)
    console.emit(records, chosen_format(format, json), (*LIST_COLUMNS, "holder") if held else LIST_COLUMNS)


def _trouble(run: Run) -> str:
    """Why a run is not listed."""
    try:
        run.manifest()
    except NewerError as error:
        return f"run {run.id} is left out: {error}"
    except (JobError, MissingError):
        return f"run {run.id} has a damaged run.json; `metavqa runs rm {run.id}` removes it"
    return f"run {run.id} could not be read for a moment"


@app.command()
def show(run: RunArgument, format: FormatOption = "auto", json: JsonOption = False) -> None:
    """Show one run: what it is, how far it came, its result and its configuration."""
    from metavqa_cli.schema.events import RunFailed, StepLogged, TrainingDiverged, ValidationMeasured, divergence_text
    from metavqa_cli.schema.layers import flatten
    from metavqa_cli.tui.run_differences import overrides_text

    shown = runs.get(workspace(), run)
    failed = (RunFailed,) if shown.state() == "failed" else ()
    last = log.newest(shown.events_path, (StepLogged, ValidationMeasured, TrainingDiverged, *failed))
    step, validation, diverged, failure = map(last.get, (StepLogged, ValidationMeasured, TrainingDiverged, RunFailed))
    record = {
        **describe(shown),
        "path": str(shown.path),
        "error": failure.message if isinstance(failure, RunFailed) else None,
        "warning": divergence_text(diverged) if isinstance(diverged, TrainingDiverged) else None,
        "step": step.step if isinstance(step, StepLogged) else None,
        "metrics": step.metrics if isinstance(step, StepLogged) else None,
        "validation": validation.metrics if isinstance(validation, ValidationMeasured) else None,
        "result": shown.result(),
        "config": shown.config(),
    }
    form = chosen_format(format, json)
    if form not in ("json", "jsonl"):
        record = dict(flatten(record | ({"overrides": text} if (text := overrides_text(shown)) else {})))
    console.emit(record, form)


@app.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run, help="Ids of runs.")],
    force: Annotated[bool, typer.Option("--force", help="Also remove runs that others may be made from.")] = False,
) -> None:
    """Remove runs. A run that others were made from is kept unless they are named too, or --force is given."""
    chosen = {run.id: run for run in (runs.get(workspace(), name) for name in names)}
    newest_first = [run for run in reversed(runs.list_runs(workspace())) if run.id in chosen]
    damaged = [run for run in chosen.values() if run not in newest_first]
    for run in [*newest_first, *damaged]:
        removal.remove(run, force, others=chosen)
        console.narrate(f"removed {run.id}")


@app.command()
def diff(first: RunArgument, second: RunArgument, format: FormatOption = "auto", json: JsonOption = False) -> None:
    """Show where two runs differ: configuration, parents, dataset and result."""
    from metavqa_cli.tui.run_differences import differences

    one, two = runs.get(workspace(), first), runs.get(workspace(), second)
    rows = differences([one, two])
    if not rows:
        console.narrate(f"{one.id} and {two.id} do not differ")
    console.emit(rows, chosen_format(format, json), ("key", one.id, two.id))


app.command()(curves)


def describe(run: Run) -> dict[str, Any]:
    """The manifest and the state of a run, as listed and as JSON."""
    manifest, state = run.manifest(), run.state()
    extra = {key: value for key, value in manifest.items() if key not in ("id", "dataset", "schema_version")}
    return {
        "run": run.id, **extra, "state": state, "holder": run.holder() if state == "running" else None,
        "dataset": manifest["dataset"].get("name"), "dataset_fingerprint": manifest["dataset"].get("fingerprint"),
        "parents": manifest["parents"],
    }  # fmt: skip
