"""`metavqa verify`: whether everything is what was written, and what depends on what is not. Without torch."""

from pathlib import Path
from typing import Annotated

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.options import FormatOption, JsonOption, chosen_format, from_home, workspace
from metavqa_cli.cli.session import finish
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.store.workspace import Workspace

COLUMNS = ("artefact", "problem", "detail", "runs", "remedy")


def verify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[WORKSPACE | FILE...]", help="A workspace, or classifier and other tensor files."),
    ] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what killed processes left.")] = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Check every file of a workspace against its checksums; name what is bad, and the runs that depend on it."""
    from metavqa_cli.engine.audit import remove_leftovers, verify_files, verify_workspace

    form = chosen_format(format, json)
    folder, files = _told([from_home(path) for path in paths or ()])
    if files and clean:
        raise UsageError("--clean is about a workspace, not about files; leave the files out")
    audit = verify_files(files) if files else finish(verify_workspace(folder))
    removed = remove_leftovers(audit) if clean else frozenset()
    left = [finding for finding in audit.findings if finding.path not in removed]
    for path in sorted(removed):
        console.narrate(f"removed {path}")
    rows = [{key: getattr(finding, key) for key in COLUMNS} for finding in left]
    what = f"runs: {audit.runs:,}, datasets: {audit.datasets:,}" if not files else f"files: {len(files):,}"
    if form in ("json", "jsonl"):
        where = {"files": [str(file) for file in files]} if files else {"workspace": str(folder.root)}
        counts = {"runs": audit.runs, "datasets": audit.datasets, "bytes": audit.bytes}
        console.emit({**where, "ok": not audit.bad, **counts, "findings": rows}, form)
    elif rows:
        console.emit([{**row, "runs": ", ".join(row["runs"])} for row in rows], form, COLUMNS)
    if audit.bad:
        number = "one artefact is" if len(audit.bad) == 1 else f"{len(audit.bad):,} artefacts are"
        raise JobError(f"{number} not what was written ({what}, {audit.bytes / 1e6:,.1f} MB); the last column mends it")
    console.narrate(f"{what}, {audit.bytes / 1e6:,.1f} MB: everything is what was written")


def _told(paths: list[Path]) -> tuple[Workspace, list[Path]]:
    """The workspace to look at, and the files to look at in its place."""
    folders = [path for path in paths if path.is_dir()]
    if gone := next((path for path in paths if not path.exists()), None):
        raise MissingError(f"{gone} does not exist; name a workspace or files, or leave it out for the usual workspace")
    if folders and len(paths) > 1:
        raise UsageError(f"{folders[0]} is a folder; name one workspace, or files alone")
    return Workspace(folders[0]) if folders else workspace(), [path for path in paths if path not in folders]
