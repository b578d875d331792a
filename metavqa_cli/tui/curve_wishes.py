"""What the keys of the room Curves change in what is wished, as pure functions: zoom, pan, cursor, axes."""

from collections.abc import Collection
from dataclasses import replace

from metavqa_cli.tui.axes import Window
from metavqa_cli.tui.canvas import FINE
from metavqa_cli.tui.curve_book import Wish
from metavqa_cli.tui.curve_data import Spread

WEIGHTS = (0.0, 0.6, 0.9, 0.97)
NEXT_SPREAD: dict[Spread | None, Spread | None] = {None: "range", "range": "deviation", "deviation": None}
CLOSER = 1.5  # times, with each +
PAN = 0.25  # of the steps in sight


def zoomed(wish: Wish, window: Window, direction: int) -> Wish:
    """Closer (1) or farther (-1), around the cursor if there is one. ``window``: what is in sight now."""
    at = (window.start + window.stop) / 2 if wish.cursor is None else wish.cursor
    return _at(wish, window.zoom(CLOSER**direction, at))


def panned(wish: Wish, window: Window, direction: int) -> Wish:
    """To later (1) or earlier (-1) steps."""
    return _at(wish, window.pan(PAN * direction))


def cursor_moved(wish: Wish, window: Window, columns: int) -> Wish:
    """The cursor that many columns to the right, within what is in sight; a new one stands at the newest step."""
    column = (window.stop - window.start) * FINE.across / max(1, wish.columns - 1)
    step = window.stop if wish.cursor is None else wish.cursor + columns * column
    return replace(wish, cursor=min(max(step, window.start), window.stop))


def smoothed_more(wish: Wish) -> Wish:
    """The next of the smoothing weights."""
    return replace(wish, weight=WEIGHTS[(WEIGHTS.index(wish.weight) + 1) % len(WEIGHTS)])


def all_logs(wish: Wish, metrics: Collection[str]) -> Wish:
    """All of them on a log axis, or none if they are already."""
    return replace(wish, logs=frozenset() if wish.logs.issuperset(metrics) else frozenset(metrics))


def _at(wish: Wish, window: Window) -> Wish:
    """A window that shows everything is no window: it goes on showing everything when there is more."""
    whole = (window.start, window.stop) == (window.first, window.last)
    return replace(wish, window=None if whole else window)
