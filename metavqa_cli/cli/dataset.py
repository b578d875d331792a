"""`metavqa dataset`: build, describe and look into datasets."""

import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.build import build, describe, export, info
from metavqa_cli.cli.download import download
from metavqa_cli.cli.options import FormatOption, JsonOption, chosen_format, workspace
from metavqa_cli.cli.session import finish
from metavqa_cli.cli.show import show
from metavqa_cli.engine.configuration import resolve_config
from metavqa_cli.schema.errors import JobError, MetaVQAError, UsageError

app = typer.Typer(no_args_is_help=True, help="Build, describe and look into datasets.")
for command in (download, build, info, export, show):
    app.command()(command)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a dataset in the workspace.")]
DIFFERENCE_COLUMNS = ("file", "problem", "detail")


@app.command()
def ls(format: FormatOption = "auto", json: JsonOption = False) -> None:
    """List the datasets of the workspace."""
    found = workspace().datasets()
    if not found:
        console.narrate(f"no datasets in {workspace().root}; `metavqa dataset build` makes one")
    keys = ("dataset", "tasks", "train", "validation", "test", "images", "encoder")
    rows = []
    for name in found:
        try:
            described = describe(name)
        except MetaVQAError as error:
            console.warn(f"dataset {name} is left out: {error}")
        else:
            rows.append({key: described[key] for key in keys})
    console.emit(rows, chosen_format(format, json), keys)


@app.command()
def verify(
    name: NameArgument = "scenes",
    images: Annotated[bool, typer.Option("--images", help="Also decode every image, to the last pixel.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that decode images; 0 means all cores.")
    ] = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Check every file of a dataset against its manifest, look for its images, and say what differs."""
    from metavqa_cli.engine.verify import verify_dataset
    from metavqa_cli.store.features import rebuild

    form = chosen_format(format, json)
    if images and workers is None:
        workers = resolve_config().config.runtime.workers
    path = workspace().dataset_dir(name)
    report = finish(verify_dataset(path, decode=images, workers=workers or os.cpu_count() or 1))
    record = {"dataset": name, "path": str(path), "ok": not report.differences, **asdict(report)}
    differences = record.pop("differences")
    if form in ("json", "jsonl"):
        console.emit({**record, "differences": differences}, form)
    elif report.differences:
        console.emit(differences, form, DIFFERENCE_COLUMNS)
    else:
        console.emit(record, form)
    if report.differences:
        number = len(differences)
        places = "one difference" if number == 1 else f"{number:,} differences"
        raise JobError(f"dataset {name!r} has {places} from what was built; restore the files, or {rebuild(name)}")


@app.command()
def rm(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a dataset from the workspace. Images that it only refers to stay where they are."""
    from metavqa_cli.engine.remove import find_dataset, remove_dataset
    from metavqa_cli.engine.site import finish_removals

    finish_removals(workspace().datasets_dir)
    doomed = find_dataset(workspace(), name)
    what = f"dataset {name} ({doomed.files:,} files, {doomed.bytes / 1e6:,.1f} MB)"
    if doomed.runs:
        number = "one run was" if len(doomed.runs) == 1 else f"{len(doomed.runs)} runs were"
        some = ", ".join(doomed.runs[:5]) + (", ..." if len(doomed.runs) > 5 else "")
        console.warn(f"{number} made on dataset {name} ({some}); to evaluate or resume such a run, build it again")
    if not yes:
        if not (sys.stdin.isatty() and console.is_terminal("stderr")):
            raise UsageError(f"{what} is removed only with --yes where nobody can be asked")
        if not typer.confirm(console.neutral(f"remove {what}?"), err=True):
            console.narrate(f"dataset {name} is kept")
            raise typer.Exit(1)
    remove_dataset(workspace(), doomed)
    console.narrate(f"removed {what}")
