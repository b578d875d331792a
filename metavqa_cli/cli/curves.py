"""`metavqa runs curves`: what training measured, as pictures on a terminal and as points elsewhere. Without torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.options import FormatOption, JsonOption, chosen_format, complete_run, workspace
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.store import runs

if TYPE_CHECKING:
    from metavqa_cli.tui.curve_book import CurveBook, CurvesPicture, Wish

WIDEST, HEIGHT = 100, 14  # of a picture
COLUMNS = ("run", "metric", "step", "value")


def curves(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", autocompletion=complete_run, help="Ids of runs; the newest that trained."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Draw on a logarithmic axis.")] = False,
    smooth: Annotated[
        float, typer.Option("--smooth", metavar="W", help="Weight of the past in an exponential average, 0 to 1.")
    ] = 0.0,
    band: Annotated[
        Literal["range", "deviation"] | None,
        typer.Option("--band", help="Runs that differ only in their seed as their mean and a band."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every point that was logged; else at most 1,000, lows and highs kept.")
    ] = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Show the training curves of runs: pictures on a terminal, their points elsewhere."""
    form = chosen_format(format, json)
    if not 0 <= smooth < 1:
        raise UsageError(f"--smooth {smooth:g} is not a weight from 0 up to, but without, 1; 0.9 smooths a lot")
    if every and band:
        raise UsageError("--all gives the points of each run, --band the mean of several; give one of them")
    from metavqa_cli.tui.curve_book import Wish

    wish = Wish(runs=_chosen(names or []), columns=WIDEST * 2, weight=smooth, spread=band)
    book = _read(wish.runs, every)
    wish = replace(wish, metrics=_metrics(metric or [], _known(book, wish), wish.runs))
    if form == "human" or (form == "auto" and console.is_terminal("stdout")):
        _draw(book.picture(replace(wish, logs=frozenset(wish.metrics or ()) if log else frozenset())), log)
    else:
        rows = _means(book, wish) if band else list(_points(book, wish, every))
        columns = (*COLUMNS, *(("low", "high") if band else ("smoothed",) if smooth else ()))
        console.emit(rows, form, None if form in ("json", "jsonl") else columns)


def _chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Ids of the named runs, each once; without names that of the newest one that trained."""
    here = workspace()
    if names:
        return tuple(dict.fromkeys(runs.get(here, name).id for name in names))
    import time

    from metavqa_cli.tui.curve_rows import runs_to_show
    from metavqa_cli.tui.feed import read_runs

    newest = runs_to_show((), read_runs(here, time.time())).runs
    if not newest:
        raise MissingError(f"no run in {here.root} has curves; `metavqa quickstart` makes the first ones")
    console.narrate(f"curves of {newest[0]}, the newest run that trained; name others to see theirs")
    return newest


def _read(chosen: tuple[str, ...], every: bool) -> "CurveBook":
    """What the logs of these runs hold; of long ones ``every`` point only if that is asked for."""
    from metavqa_cli.tui.curve_book import CurveBook

    book = CurveBook(workspace(), whole=every)
    book.follow(chosen)
    while book.read() or book.behind:
        pass
    return book


def _known(book: "CurveBook", wish: "Wish") -> tuple[str, ...]:
    """The metrics that there are. What is wrong with the logs is said."""
    known = book.picture(replace(wish, metrics=()))
    for said in (*known.troubles, *known.notes):
        console.warn(said)
    return known.names


def _metrics(asked: Sequence[str], known: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    """The metrics that are asked for, all without a wish, in the order of the room Curves."""
    if not known:
        console.narrate(f"nothing measured yet in {', '.join(chosen)}")
    for name in asked:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"no curve {name!r} in {', '.join(chosen)}; {hint}There are: {', '.join(known) or 'none'}")
    return tuple(name for name in known if not asked or name in asked)


def _points(book: "CurveBook", wish: "Wish", every: bool) -> Iterable[dict[str, Any]]:
    """The points of each run: the measured value, and the smoothed one if asked for."""
    from metavqa_cli.tui.series import MOST_DRAWN, downsampled

    for run in wish.runs:
        for name in wish.metrics or ():
            raw, smooth = book.curve(run, name, 0.0), book.curve(run, name, wish.weight)
            if raw is None or smooth is None:
                continue
            kept = raw.steps if every else downsampled(smooth, MOST_DRAWN // 2).steps
            places = range(len(raw)) if every else _places(raw.steps, kept)
            for place in places:
                row = {"run": run, "metric": name, "step": int(raw.steps[place]), "value": raw.values[place]}
                yield {**row, "smoothed": smooth.values[place]} if wish.weight else row


def _places(steps: Sequence[float], kept: Iterable[float]) -> list[int]:
    places = {step: place for place, step in enumerate(steps)}
    return [places[step] for step in kept]


def _means(book: "CurveBook", wish: "Wish") -> list[dict[str, Any]]:
    """The lines of the pictures: means of seeds with the edges of their bands."""
    picture = book.picture(wish)
    lines = {line.number: line.name for line in picture.lines}
    return [
        {"run": lines[curve.line], "metric": name, "step": curve.steps[place], "value": curve.values[place],
         "low": curve.low[place] if curve.low else None, "high": curve.high[place] if curve.high else None}
        for name, data in picture.charts.items()
        for curve in data.curves
        for place in range(len(curve.steps))
    ]  # fmt: skip


def _draw(picture: "CurvesPicture", log: bool) -> None:
    """A picture for each metric, with one legend."""
    from rich.text import Text

    from metavqa_cli.tui.canvas import mark_of
    from metavqa_cli.tui.chart import chart
    from metavqa_cli.tui.curve_rows import chart_title, chart_values
    from metavqa_cli.tui.palette import color_of

    printer, ascii = console.console("stdout"), console.style.ascii
    marks = [mark_of(line.number, ascii) for line in picture.lines]
    width = min(printer.width, WIDEST)
    with printer.capture() as captured:
        for line, mark in zip(picture.lines, marks, strict=True):
            printer.print(Text.assemble((mark, color_of(line.number)), f" {console.neutral(line.name, one_line=True)}"))
        for name, data in picture.charts.items():
            title, values = chart_title(name, data, log), chart_values(name, picture.lines, marks, width)
            printer.print(Text(f"\n{console.neutral(title, one_line=True)}   {values}", "bold"), soft_wrap=True)
            window = picture.window
            assert window is not None  # there is a chart, so there is a point
            for row in chart(data.curves, width, HEIGHT, (window.start, window.stop), log=log, ascii=ascii):
                styled = [
                    (text, color_of(int(style.split()[1])) if style[-1:].isdigit() else "") for text, style in row
                ]
                printer.print(Text.assemble(*styled), soft_wrap=True)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
