"""The only printer: data on stdout, narration and progress on stderr, nothing that could steer the terminal.

Rich is imported when a table or a bar is drawn, not before.
"""

import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metavqa_cli.schema.events import Event
from metavqa_cli.schema.text import json_text
from metavqa_cli.schema.text import neutral as neutralised

if TYPE_CHECKING:
    from rich.console import Console

Format = Literal["auto", "human", "json", "jsonl", "csv", "markdown"]
Color = Literal["auto", "always", "never"]
Stream = Literal["stdout", "stderr"]
Row = Mapping[str, Any]
UNLIMITED_WIDTH = 100_000

MARKUP = re.compile(r"[\\|<*`]")  # what a cell must not mean in markdown
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?|-|nan")  # a cell of a column of numbers: "-" is none


@dataclass
class Style:
    """How this process prints; set once from the global options."""

    color: Color = "auto"
    ascii: bool = False
    quiet: bool = False
    debug: bool = False
    process: str = ""
    """What this process is called where another one speaks for all of them."""


style = Style()


def configure(color: Color = "auto", ascii: bool = False, quiet: bool = False, debug: bool = False) -> None:
    """Set how this process prints; without arguments, back to the defaults."""
    style.color, style.ascii, style.quiet, style.debug = color, ascii, quiet, debug


def only_errors(process: str) -> None:
    """From now on another process prints for this one: nothing but its own errors is said, under its name."""
    style.quiet, style.process = True, process
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def neutral(text: str, *, one_line: bool = False) -> str:
    """``text`` as this process may print it (``schema.text.neutral``)."""
    return neutralised(text, one_line=one_line, ascii=style.ascii)


def out(text: str = "") -> None:
    """Print one line of data on stdout."""
    print(neutral(text))


def narrate(text: str) -> None:
    """Print one line for the person watching, on stderr; nothing when quiet."""
    if not style.quiet:
        err(text)


def warn(text: str) -> None:
    """Print a warning on stderr, also when quiet."""
    if not style.process:
        err(f"warning: {text}", "yellow")


def fail(text: str, error: BaseException | None = None) -> None:
    """Print the sentence of an error on stderr; with ``--debug`` its traceback first."""
    if error is not None and style.debug:
        import traceback

        err("".join(traceback.format_exception(error)).rstrip())
    err(f"error{f' ({style.process})' if style.process else ''}: {text}", "bold red")


def err(text: str, lead_style: str = "") -> None:
    """Print one line on stderr, above any progress bar; the part up to the first colon in ``lead_style``."""
    if not is_terminal("stderr") and not wants_color("stderr"):
        print(neutral(text), file=sys.stderr, flush=True)
        return
    from rich.text import Text

    line = Text(neutral(text))
    if lead_style:
        line.stylize(lead_style, 0, text.index(":") + 1)
    error_console().print(line, soft_wrap=True, highlight=False)


def error_console() -> "Console":
    """The rich console on the stderr of this moment."""
    if _consoles.get("err") is None or _consoles["err"].file is not sys.stderr:
        _consoles["err"] = console("stderr")
    return _consoles["err"]


_consoles: "dict[str, Console]" = {}


def console(stream: Stream, width: int | None = None) -> "Console":
    """A rich console on ``stream`` that follows ``--color``, ``--ascii`` and the environment (``wants_color``)."""
    from rich.console import Console

    class AsciiConsole(Console):
        encoding = "ascii"  # rich then draws its bars with plain characters

    terminal = is_terminal(stream)
    system: Any = ("auto" if terminal else "standard") if wants_color(stream) else None
    return (AsciiConsole if style.ascii else Console)(
        file=getattr(sys, stream), force_terminal=terminal, color_system=system, no_color=system is None,
        width=width, safe_box=True, emoji=False, markup=False, highlight=False,
    )  # fmt: skip


def is_terminal(stream: Stream) -> bool:
    """Whether ``stream`` is a terminal on which a line can be redrawn."""
    return bool(getattr(sys, stream).isatty()) and os.environ.get("TERM") != "dumb"


def wants_color(stream: Stream) -> bool:
    """``--color`` decides, then a non-empty ``NO_COLOR``, then ``FORCE_COLOR``, then whether it is a terminal."""
    if style.color != "auto":
        return style.color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


def emit(
    data: Row | Sequence[Row], format: Format = "auto", columns: Sequence[str] | None = None, titles: bool = True
) -> None:
    """Print rows, or one record, on stdout.

    json and jsonl hold every key; csv, markdown, human and plain (what ``auto`` is outside a terminal: tab-separated)
    hold ``columns``, by default the keys of the first row. A record is printed as one row of csv, else as key-value
    lines. Without ``titles`` the rows continue a table of csv, markdown or plain that was begun before.
    """
    record = isinstance(data, Mapping)
    rows: list[Row] = [data] if isinstance(data, Mapping) else list(data)
    if format == "json":
        print(_json(data, indent=2))
    elif format == "jsonl":
        for row in rows:
            print(_json(row))
    elif format == "csv":
        print(as_csv(rows, list(columns or (rows[0] if rows else ())), titles), end="")
    else:
        chosen = list(columns or (rows[0] if rows else ()))
        cells = [[_cell(row.get(name)) for name in chosen] for row in rows]
        names = [*map(_cell, chosen)]
        lines, head = (list(zip(names, cells[0], strict=True)), None) if record else (cells, names)
        if format == "markdown":
            print(_markdown(lines, head or ("key", "value"), titles), end="")
        elif format == "human" or is_terminal("stdout"):
            _print_table(lines, head)
        else:
            print("".join("\t".join(line) + "\n" for line in [*([head] if head and titles else []), *lines]), end="")


def emit_item(record: Row, first: bool) -> None:
    """Print one record of a JSON list that grows; with ``emit_end`` it is what ``emit`` prints of the whole list."""
    print("[\n  " if first else ",\n  ", _json(record, indent=2).replace("\n", "\n  "), sep="", end="")


def emit_end(empty: bool) -> None:
    """End the list of ``emit_item``, to which nothing was added when ``empty``."""
    print("[]" if empty else "\n]")


def _json(value: Any, indent: int | None = None) -> str:
    escaped = style.ascii or (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") != "utf8"
    return json_text(_plain(value), indent, ascii=escaped, strict=True)


def _plain(value: Any) -> Any:
    """``value`` as strict JSON: NaN and infinities become null, paths and other objects their text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def as_csv(rows: Iterable[Row], columns: Sequence[str], titles: bool = True) -> str:
    """The ``columns`` of rows as CSV, with a head of ``titles``."""
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if titles:
        writer.writerow([neutral(name) for name in columns])
    for row in rows:
        writer.writerow(["" if row.get(name) is None else neutral(_text(row[name])) for name in columns])
    return buffer.getvalue()


def _text(value: Any) -> str:
    return _json(value) if isinstance(value, (dict, list, tuple, bool)) else str(value)


def _cell(value: Any) -> str:
    return "-" if value is None or value == "" else neutral(_text(value), one_line=True)


def _markdown(lines: Sequence[Sequence[str]], head: Sequence[str], titles: bool = True) -> str:
    """A table as GitHub reads it; columns of numbers are aligned to the right."""
    columns = list(zip(*lines, strict=True)) or [()] * len(head)
    marks = ["---:" if column and all(map(NUMBER.fullmatch, column)) else "---" for column in columns]
    escaped = [[MARKUP.sub(r"\\\g<0>", cell) for cell in line] for line in [head, *lines]]
    return "".join(f"| {' | '.join(line)} |\n" for line in [*([escaped[0], marks] if titles else []), *escaped[1:]])


def _print_table(lines: Sequence[Sequence[str]], head: Sequence[str] | None) -> None:
    """Aligned columns: folded to the width of a terminal, never cut; elsewhere as wide as needed."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=head is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in head or [""] * len(lines[0]):
        table.add_column(Text(title), overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    printer = console("stdout", width=None if is_terminal("stdout") else UNLIMITED_WIDTH)
    with printer.capture() as captured:
        printer.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def follow(events: Iterable[Event]) -> list[Event]:
    """Show the progress of an engine verb until it ends; return the events that state an outcome.

    Bars on a terminal, one plain line every 30 s elsewhere, nothing when quiet. Outcomes are ``RunFinished``,
    ``Reused``, ``DatasetBuilt``, ``RunInterrupted`` and ``RunFailed``.
    """
    from metavqa_cli.cli.progress import make_display, watch

    return watch(events, make_display())
