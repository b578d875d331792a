"""Which ways of drawing pictures there are here: half blocks always; sixel or kitty where package and terminal can.

The package textual-image (the extra ``images``) asks the terminal when it is imported, and reads the answer from the
keyboard's input. So it is imported while the dashboard does not read the keyboard: before it runs where somebody chose
such pictures the last time, else when ``k`` is pressed first, for which the dashboard steps aside (0.1 to 0.4 s).
"""

import logging
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from textual.app import App, SuspendNotSupported

from metavqa_cli.tui.look import Look

HALF_BLOCKS, SIXEL, KITTY = "half-blocks", "sixel", "kitty"
PACKAGE = "textual_image"
WIDGETS = {SIXEL: "SixelImage", KITTY: "TGPImage"}


@dataclass(frozen=True)
class Terminal:
    """Whether the package is installed, whether the terminal was asked, and the protocol that it answered with."""

    installed: bool = False
    asked: bool = False
    protocol: str | None = None


terminal = Terminal()


def ask_terminal(app: App[Any]) -> None:
    """``probe`` in a dashboard that runs, once; where it cannot step aside, only look for the package."""
    global terminal
    if terminal.asked:
        return
    try:
        with app.suspend():
            probe()
    except SuspendNotSupported:
        terminal = Terminal(installed=find_spec(PACKAGE) is not None)


def probe() -> None:
    """Ask the terminal for its picture protocol, where the package is installed; never while the keyboard is read.

    The package takes the first that answers of sixel and kitty: terminals that claim both do only sixel well.
    """
    global terminal
    installed = find_spec(PACKAGE) is not None
    if not installed or not _is_terminal():
        terminal = Terminal(installed)
        return
    logging.getLogger(PACKAGE).setLevel(logging.CRITICAL)  # a terminal that does not answer is no news
    try:
        chosen = import_module(f"{PACKAGE}.widget").AutoImage._Renderable.__module__
    except Exception:  # whatever an odd terminal answers: pictures are not worth a dashboard that does not start
        terminal = Terminal(installed=True, asked=True)
        return
    protocol = {f"{PACKAGE}.renderable.sixel": SIXEL, f"{PACKAGE}.renderable.tgp": KITTY}.get(chosen)
    terminal = Terminal(True, True, protocol)


def _is_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.__stdin__, sys.__stdout__))


def renderers(look: Look) -> list[str]:
    """The names of those that may be chosen."""
    more = [terminal.protocol] if terminal.protocol and look.color and not look.ascii else []
    return [HALF_BLOCKS, *more]


def renderer(wish: str, look: Look) -> str:
    """The one to draw with: ``wish`` where that is possible, else half blocks."""
    return wish if wish in renderers(look) else HALF_BLOCKS


def why_no_more(look: Look) -> str:
    """Why half blocks are the only way to draw."""
    if look.ascii:
        return "pictures are shades of characters: --ascii is on"
    if not look.color:
        return "pictures are shades of characters: colours are off (NO_COLOR, or --color never)"
    if not terminal.installed:
        return "pictures are half blocks; finer ones (sixel, kitty) need: pip install 'metavqa[images]'"
    if not terminal.asked:
        return "pictures are half blocks: the dashboard was started without asking a terminal for sixel or kitty"
    return "pictures are half blocks: this terminal does not answer that it knows sixel or kitty pictures"


def graphics_widget(protocol: str) -> Any:
    """The class of the package's widget for a protocol."""
    return getattr(sys.modules[f"{PACKAGE}.widget"], WIDGETS[protocol])


def fit(image: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """(columns, lines) of an image of (width, height) pixels, as large as ``room`` of columns and lines allows."""
    cell_width, cell_height = sys.modules[f"{PACKAGE}.widget"].get_cell_size()
    scale = min(room[0] * cell_width / image[0], room[1] * cell_height / image[1])
    return max(1, int(scale * image[0] / cell_width)), max(1, int(scale * image[1] / cell_height))
