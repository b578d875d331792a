"""What tests of the dashboard share: waiting for a named condition, never for a time."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

DEADLINE_SECONDS = 60.0  # generous, for busy machines: a condition that holds is seen at once


async def until(pilot: Pilot[Any], condition: Callable[[], object], what: str = "") -> None:
    """Let the dashboard go on until ``condition()`` is true; an ``AssertionError`` with the screen if it never is."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > end:
            from metavqa_cli.tui.frame import frame

            raise AssertionError(f"waited in vain for: {what or condition}\n{frame(pilot.app).text}")  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        await pilot.pause()
