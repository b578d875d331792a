"""One frame of the dashboard without a terminal: ``metavqa tui --once``, the pictures of the README, and tests."""

import asyncio
import io
import re
import time
from dataclasses import dataclass

from rich.console import Console

from metavqa_cli.tui.app import Dashboard

PATIENCE_SECONDS = 20.0
CURSOR_MOVE = re.compile(r"\x1b\[\d+;\d+H")


@dataclass(frozen=True)
class Frame:
    """What the screen shows: plain text, the same with the codes of its colours, and as an SVG picture."""

    text: str
    ansi: str
    svg: str
    settled: bool
    """Whether everything had come that the room was fetching."""


def once(app: Dashboard, size: tuple[int, int], patience: float = PATIENCE_SECONDS) -> Frame:
    """Run the dashboard without a terminal until its room has settled, and return what it shows."""
    return asyncio.run(_once(app, size, patience))


async def _once(app: Dashboard, size: tuple[int, int], patience: float) -> Frame:
    async with app.run_test(size=size) as pilot:
        until = time.monotonic() + patience
        while not (settled := _is_settled(app)) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await pilot.pause()
        return frame(app, settled)


def _is_settled(app: Dashboard) -> bool:
    return app.room is not None and app.room.settled


def frame(app: Dashboard, settled: bool = True) -> Frame:
    """What a running dashboard shows now."""
    width, height = app.size
    recorder = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True,
        legacy_windows=False, safe_box=False,
    )  # fmt: skip
    recorder.print(app.screen._compositor.render_update(full=True, screen_stack=app._background_screens))
    ansi = CURSOR_MOVE.sub("", recorder.export_text(clear=False, styles=True))  # it is printed where the cursor is
    lines = recorder.export_text(clear=True, styles=False).splitlines()
    text = "".join(f"{line.rstrip()}\n" for line in lines[:height])
    return Frame(text, f"{ansi.rstrip()}\n", app.export_screenshot(), settled)
