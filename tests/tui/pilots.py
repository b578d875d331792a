"""What tests of the dashboard share: waiting for a named condition, never for a time."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from textual.pilot import Pilot

if TYPE_CHECKING:
    from metavqa_cli.tui.app import Dashboard

DEADLINE_SECONDS = 150.0  # generous, for busy machines: a condition that holds is seen at once


async def until(pilot: Pilot[Any], condition: Callable[[], object], what: str = "") -> None:
    """Let the dashboard go on until ``condition()`` is true; an ``AssertionError`` with the screen if it never is."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > end:
            from metavqa_cli.tui.frame import frame

            raise AssertionError(f"waited in vain for: {what or condition}\n{frame(pilot.app).text}")  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        await pilot.pause()


def play(
    app: "Dashboard",
    script: Callable[[Pilot[int]], Coroutine[Any, Any, None]],
    size: tuple[int, int] = (120, 36),
    *,
    settled: bool = True,
) -> None:
    """Run ``app`` without a terminal, wait until its first room shows everything, and let ``script`` press the keys."""

    async def run() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            if settled:
                await until(pilot, lambda: app.room is not None and app.room.settled, "the first room to settle")
            await script(pilot)

    asyncio.run(run())


def said(app: "Dashboard") -> str:
    """The sentences said in passing that are still on the screen."""
    return "\n".join(note.message for note in app._notifications)
