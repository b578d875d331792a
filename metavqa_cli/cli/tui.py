"""`metavqa tui`: the dashboard on a terminal, or one frame of it without."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.failures import INTERRUPTED
from metavqa_cli.cli.options import complete_run, from_home, workspace
from metavqa_cli.cli.session import DatasetOption
from metavqa_cli.schema.errors import BusyError, JobError, UsageError
from metavqa_cli.store import runs
from metavqa_cli.store.home import own_folder
from metavqa_cli.store.workspace import Workspace

if TYPE_CHECKING:
    from metavqa_cli.tui.app import Dashboard

ScreenName = Literal["runs", "curves", "sweep", "ask", "tasks"]
TWINS = (
    "The same without a dashboard: runs: metavqa runs ls | show | diff; curves: metavqa runs curves; sweep: metavqa "
    "eval sweep; ask: metavqa ask; tasks: metavqa dataset show and metavqa eval tasks."
)
SMALLEST, LARGEST = (20, 5), (500, 200)
USUAL_SIZE = "120x36"


def tui(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORKSPACE|RUN]", autocompletion=complete_run, help="A workspace's folder, or a run to open."
        ),
    ] = None,
    screen: Annotated[ScreenName | None, typer.Option("--screen", help="Where to begin.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and exit.")] = False,
    size: Annotated[
        str | None, typer.Option("--size", metavar="COLUMNSxROWS", help="Of that frame; the terminal's if not given.")
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw that frame to FILE instead.")] = None,
    select: Annotated[
        list[str] | None, typer.Option("--select", metavar="RUN", help="Begin with these runs selected; may repeat.")
    ] = None,
    dataset: DatasetOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the picture if it exists.")] = False,
) -> None:
    """The dashboard: runs, live curves, γ sweeps, asking and tasks."""
    root, run = _place(where)
    chosen = [runs.get(Workspace(root), name).id for name in select or ()]
    wanted = _size(size)
    _check(once, size, svg, force)
    from metavqa_cli.tui.app import make_app

    app = make_app(
        root, room=screen or ("curves" if run else "runs"), selected=[*([run] if run else []), *chosen],
        ascii=console.style.ascii, color=_in_color(svg), settings=None if once else settings_file(),
        program=(sys.executable, "-m", "metavqa_cli"), environment=dict(os.environ), dataset=dataset,
    )  # fmt: skip
    if once:
        _print_frame(app, wanted or _terminal_size(), svg)
    else:
        _run(app)


tui.__doc__ = f"{tui.__doc__}\n\n{TWINS}"


def settings_file() -> Path | None:
    """Where the dashboard remembers theme, marks and the like; None for somebody without a home: nowhere."""
    own = own_folder("config")
    return own and own / "dashboard.json"


def _place(where: str | None) -> tuple[Path, str | None]:
    """The workspace, and the run in it that is to be opened."""
    if where is None:
        return workspace().root, None
    if not where:
        raise UsageError("the workspace is empty; name a folder, or leave it out")
    folder = from_home(Path(where))
    if where in workspace().run_ids():
        return workspace().root, where
    if (folder / "run.json").is_file() and folder.absolute().parent.name == "runs":
        return folder.absolute().parents[1], folder.absolute().name
    if folder.is_dir():
        return folder.absolute(), None
    if os.sep in where:
        raise UsageError(f"there is no folder {where}; name a workspace, or a run of {workspace().root}")
    return workspace().root, runs.get(workspace(), where).id


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", text.strip(), re.ASCII)
    found = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(low <= value <= high for low, value, high in zip(SMALLEST, found, LARGEST, strict=True)):
        raise UsageError(f"--size is COLUMNSxROWS from 20x5 to 500x200, for example {USUAL_SIZE}; found {text!r}")
    return found


def _check(once: bool, size: str | None, svg: Path | None, force: bool) -> None:
    if not once and (size or svg):
        raise UsageError("--size and --svg are about one frame; add --once")
    if not once and not (console.is_terminal("stdout") and sys.stdin is not None and sys.stdin.isatty()):
        raise UsageError("the dashboard needs a terminal; here, --once prints one frame of it")
    if svg is not None and svg.suffix.lower() != ".svg":
        raise UsageError(f"--svg writes an SVG picture, so {str(svg)!r} should end in .svg")
    if svg is not None and svg.exists() and not force:
        raise BusyError(f"{svg} exists; choose another --svg, or replace it with --force")


def _in_color(svg: Path | None) -> bool:
    """Whether to draw in colour: what is printed as the terminal can, a picture unless that is not wished."""
    unwished = console.style.color == "never" or bool(os.environ.get("NO_COLOR"))
    return console.wants_color("stdout") if svg is None else not unwished


def _terminal_size() -> tuple[int, int]:
    """The terminal's size; the usual one where there is none."""
    found = os.get_terminal_size(sys.stdout.fileno()) if console.is_terminal("stdout") else None
    return (found.columns, found.lines) if found and found.columns >= 20 and found.lines >= 5 else (120, 36)


def _print_frame(app: "Dashboard", size: tuple[int, int], svg: Path | None) -> None:
    from metavqa_cli.tui.frame import once

    shown = once(app, size)
    if svg is not None:
        from metavqa_cli.store.atomic import write_text

        write_text(svg, shown.svg)
        console.narrate(f"drawn to {svg}")
    else:
        sys.stdout.write(shown.ansi if console.wants_color("stdout") else shown.text)
    if not shown.settled:
        console.warn("the screen had not settled: something that it was fetching had not come")


def _run(app: "Dashboard") -> None:
    """Until the person leaves. Jobs that should not outlive the dashboard are stopped, however it ends."""
    from metavqa_cli.tui.graphics import HALF_BLOCKS, probe

    if app.settings.pictures != HALF_BLOCKS:
        probe()
    try:
        app.run()
    finally:
        app.jobs.close()
    if app.return_code == INTERRUPTED:
        raise typer.Exit(INTERRUPTED)
    if app.return_code:
        raise JobError("the dashboard ended by an error of its own, shown above; jobs and runs are not touched by it")
