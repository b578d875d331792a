"""`metavqa verify`: whether everything is what was written, and what depends on what is not. Without torch."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.options import FormatOption, JsonOption, chosen_format, from_home, workspace
from metavqa_cli.cli.session import finish
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.store.workspace import Workspace

if TYPE_CHECKING:
    from metavqa_cli.engine.run_audit import Finding

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
    _narrate_removal(removed, left if clean else ())
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
        raise JobError(f"{number} not what was written ({what}, {audit.bytes / 1e6:,.1f} MB); `remedy` says what to do")
    console.narrate(f"{what}, {audit.bytes / 1e6:,.1f} MB: {_verdict(left)}")


def _narrate_removal(removed: Collection[Path], left: "Iterable[Finding]") -> None:
    for path in sorted(removed):
        console.narrate(f"removed {path}")
    for finding in left:
        if finding.problem == "leftover" and finding.remedy.endswith("--clean"):
            console.narrate(f"kept {finding.path}: a process may still be at it; from a day on it is removed")


def _verdict(findings: "Iterable[Finding]") -> str:
    """What can be said when nothing is bad: of files without checksums, less."""
    unsealed = sum(finding.problem == "unsealed" for finding in findings)
    if not unsealed:
        return "everything is what was written"
    number = "one artefact has" if unsealed == 1 else f"{unsealed:,} artefacts have"
    return f"nothing bad was found; {number} no checksums for all of it, from an earlier metavqa"


def _told(paths: list[Path]) -> tuple[Workspace, list[Path]]:
    """The workspace to look at, and the files to look at in its place."""
    folders = [path for path in paths if path.is_dir()]
    if gone := next((path for path in paths if not path.exists()), None):
        raise MissingError(f"{gone} does not exist; name a workspace or files, or leave it out for the usual workspace")
    if folders and len(paths) > 1:
        raise UsageError(f"{folders[0]} is a folder; name one workspace, or files alone")
    return Workspace(folders[0]) if folders else workspace(), [path for path in paths if path not in folders]
