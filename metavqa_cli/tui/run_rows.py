"""The rows of the room Runs as pure functions: which runs, in which order, and each as cells of text."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size

from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.look import Look

Order = tuple[str, Callable[[RunView], Any]]
STATES = {
    "running": ("▶", ">"), "failed": ("✗", "x"), "stale": ("◌", "."), "interrupted": ("‖", "|"), "finished": ("✓", "="),
}  # fmt: skip
ORDERS: tuple[Order, ...] = (  # what is largest comes first, as the newest does
    ("newest", lambda view: view.created),
    ("last written", lambda view: view.updated),
    ("accuracy", lambda view: -1.0 if view.accuracy is None or math.isnan(view.accuracy) else view.accuracy),
    ("progress", lambda view: view.progress),
    ("state", lambda view: -list(STATES).index(view.state)),
    ("kind", lambda view: (*(-ord(letter) for letter in what(view)), 1)),  # from a to z, "ldm" before "ldm task"
)
BAR = 3
MOST_CHILDREN, MOST_DAMAGED = 6, 3  # that are named


@dataclass(frozen=True)
class Flags:
    """What the person has done with a run: ``selected`` is its place in the selection, from 1; 0 is not selected."""

    selected: int = 0
    pinned: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the list: its title, its width in cells, and whether numbers stand to the right."""

    title: str
    width: int
    right: bool = False


@dataclass(frozen=True)
class Cell:
    """A text of exactly its column's width, and its tone: a state, "muted" or none. The text says it all without."""

    text: str
    tone: str = ""


# From the most to the least needed: what has no room is left out.
WANTED = (
    Column("", 6), Column("run", 17), Column("state", 13), Column("progress", 9), Column("accuracy", 10, right=True),
    Column("variant", 10), Column("age", 5, right=True), Column("made from", 17), Column("seed", 4, right=True),
    Column("dataset", 10),
)  # fmt: skip


def visible(
    views: Sequence[RunView],
    wanted: Callable[[RunView], bool],
    order: Order = ORDERS[0],
    *,
    turned: bool = False,
    pinned: Collection[str] = (),
) -> list[RunView]:
    """The runs that the filter wants, in order (largest first, smallest if ``turned``); pinned ones always, on top."""
    pinned = frozenset(pinned)
    kept = [view for view in views if view.id in pinned or wanted(view)]
    ordered = sorted(kept, key=lambda view: (order[1](view), view.created, view.id), reverse=not turned)
    return sorted(ordered, key=lambda view: view.id not in pinned)


def flags_of(selected: Sequence[str], pinned: Collection[str], marked: Collection[str]) -> dict[str, Flags]:
    """The flags of every run that has any, by id."""
    places = {run: place for place, run in enumerate(selected, 1)}
    up, starred = frozenset(pinned), frozenset(marked)
    return {run: Flags(places.get(run, 0), run in up, run in starred) for run in {*places, *up, *starred}}


def damage(runs: Sequence[str]) -> str | None:
    """A sentence about runs whose run.json cannot be read; None when there are none."""
    if not runs:
        return None
    more = f" and {len(runs) - MOST_DAMAGED} more" if len(runs) > MOST_DAMAGED else ""
    one = len(runs) == 1
    return (
        f"the run.json of {', '.join(runs[:MOST_DAMAGED])}{more} cannot be read; {'it is' if one else 'they are'} not "
        f"listed, and `metavqa runs rm {runs[0]}` removes {'it' if one else 'the first'}"
    )


def columns(width: int) -> tuple[Column, ...]:
    """The columns for which ``width`` cells have room, one cell apart; at least the first two."""
    taken: list[Column] = []
    for column in WANTED:
        if len(taken) < 2 or sum(one.width + 1 for one in taken) + column.width <= width:
            taken.append(column)
    return tuple(taken)


def cells(view: RunView, flags: Flags, shown: Sequence[Column], look: Look, *, here: bool = False) -> list[Cell]:
    """The run as one cell for each column; ``here``: the cursor is on it."""
    found = {
        "": (f"{'>' if here else ' '}{flag_text(flags, look)}", ""),
        "run": (view.id, ""),
        "variant": (view.variant or "-", ""),
        "state": (f"{look.pick(*STATES[view.state])} {view.state}", view.state),
        "progress": (progress_text(view, look), "muted" if view.state == "finished" else ""),
        "accuracy": (accuracy_text(view), ""),
        "age": (duration(view.age), "muted"),
        "seed": ("-" if view.seed is None else str(view.seed), "muted"),
        "dataset": (view.dataset or "-", "muted"),
        "made from": (" ".join(parent for _, parent in view.parents) or "-", "muted"),
    }
    return [_cell(*found[column.title], column, look) for column in shown]


def heading(shown: Sequence[Column], look: Look) -> str:
    """The titles above the columns."""
    return " ".join(_cell(column.title, "", column, look).text for column in shown)


def flag_text(flags: Flags, look: Look) -> str:
    """The place in the selection, a star for marked and an arrow for pinned."""
    place = "" if not flags.selected else "+" if flags.selected > 9 else str(flags.selected)
    return f"{f'[{place}]' if place else '':3}{look.pick('★', '*') if flags.marked else ' '}" + (
        look.pick("↑", "^") if flags.pinned else " "
    )


def what(view: RunView) -> str:
    """The run's kind with its variant: "ldm task"."""
    return f"{view.kind} {view.variant}" if view.variant else view.kind


def progress_text(view: RunView, look: Look) -> str:
    """A bar and per cent; for what neither counts nor has ended, nothing."""
    if view.state != "finished" and not view.progress and view.total_steps is None:
        return ""
    return f"{bar(view.progress, BAR, look)} {100 * view.progress:3.0f} %"


def bar(share: float, width: int, look: Look) -> str:
    """``share`` (0 to 1) of ``width`` cells filled."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    return look.pick("█", "#") * filled + look.pick("░", ".") * (width - filled)


def accuracy_text(view: RunView) -> str:
    """ "54.7 val" where the best validation accuracy is known, "54.0 test" where test tasks were measured."""
    return "-" if view.accuracy is None else f"{view.accuracy:.1f} {view.metric_name}"


def duration(seconds: float) -> str:
    """A time in few characters, of its largest unit at least two: "45s", "12m", "3h", "15d"."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def details(view: RunView, views: Sequence[RunView], look: Look) -> list[tuple[str, str]]:
    """What there is to say of one run, as names and texts: ancestors above it, children below."""
    steps = "-" if view.step is None else f"{view.step:,}{f' of {view.total_steps:,}' if view.total_steps else ''}"
    rows = [
        ("run", view.id), ("kind", what(view)), ("state", f"{look.pick(*STATES[view.state])} {view.state}"),
        ("step", steps), ("accuracy", accuracy_text(view)), ("dataset", view.dataset or "-"),
        ("seed", "-" if view.seed is None else str(view.seed)),
        ("begun", f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(view.created))}, {duration(view.age)} ago"),
        ("written", f"{duration(view.read_at - view.updated)} ago"), ("folder", str(view.path)),
    ]  # fmt: skip
    rows += [("made from" if number == 0 else "", line) for number, line in enumerate(ancestors(view, views))]
    if made := children(view.id, views):
        more = f" and {len(made) - MOST_CHILDREN} more" if len(made) > MOST_CHILDREN else ""
        rows.append(("used by", f"{', '.join(made[:MOST_CHILDREN])}{more}"))
    if view.message:
        rows.insert(3, ("error", view.message))
    if view.holder is not None:
        held = duration(view.read_at - view.holder.since)
        rows.insert(3, ("held by", f"process {view.holder.pid} on {view.holder.host}, for {held}"))
    return [(name, look.text(text)) for name, text in rows]


def ancestors(view: RunView, views: Sequence[RunView]) -> list[str]:
    """What the run was made from, and that in turn, each line indented by its generation: "init: baseline-1a2b".

    What was made from what is told once, however often it occurs, and even if it should go in a circle.
    """
    known = {other.id: other for other in views}
    told = {view.id}
    lines: list[str] = []

    def climb(child: RunView, depth: int) -> None:
        for role, parent in child.parents:
            lines.append(f"{'  ' * depth}{role}: {parent}{'' if parent in known else ' (removed)'}")
            if parent in known and parent not in told:
                told.add(parent)
                climb(known[parent], depth + 1)

    climb(view, 0)
    return lines


def children(run: str, views: Sequence[RunView]) -> list[str]:
    """Ids of the runs that were made from the run with this id."""
    return [view.id for view in views if any(parent == run for _, parent in view.parents)]


def _cell(text: str, tone: str, column: Column, look: Look) -> Cell:
    """The text cut or padded to the column's width; what is cut ends with an ellipsis."""
    safe = look.text(text)
    size = cell_len(safe)
    if size > column.width:
        return Cell(set_cell_size(safe, column.width - 1) + look.pick("…", "."), tone)
    gap = " " * (column.width - size)
    return Cell(gap + safe if column.right else safe + gap, tone)
