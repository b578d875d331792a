"""What the room Curves costs: ``python -m tests.bench.curves`` prints JSON, times in milliseconds.

A chart of four curves of 1,000 points; six metrics of four runs of 100,000 steps, read and reduced; and how long the
screen does not answer while such runs are read and while keys are pressed.
"""

import asyncio
import json
import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metavqa_cli.schema.events import RunStarted
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import make_app
from metavqa_cli.tui.chart import Curve, chart
from metavqa_cli.tui.curve_book import CurveBook, Wish
from metavqa_cli.tui.screens.curves import CurvesRoom

METRICS = ("loss", "kl", "accuracy", "lr", "grad_norm", "tasks_per_s")
SPIKE = 50.0  # once in each loss
RUNS, STEPS = 4, 100_000
KEYS = ("comma", *["less_than_sign"] * 10, *["plus"] * 4, *["left"] * 4, "y", "s", "b", "0")
TICK = 0.01


def make_runs(here: Workspace, count: int, steps: int) -> tuple[str, ...]:
    """Runs that differ in their seed and logged all of ``METRICS`` at each of ``steps`` steps."""
    made = [runs.create(here, "hvae", f"{seed:08d}", {"seed": seed}, {}, {"name": "scenes"}) for seed in range(count)]
    for seed, run in enumerate(made):
        run.append(RunStarted(run.id, "hvae", steps))
        draw = random.Random(seed)
        with run.events_path.open("a") as log:
            for step in range(1, steps + 1):
                metrics = {name: math.exp(-step / steps * 3) + 0.1 * draw.random() for name in METRICS}
                if step == steps * 7 // 10:
                    metrics["loss"] = SPIKE
                log.write(json.dumps({"event": "StepLogged", "step": step, "metrics": metrics}) + "\n")
    return tuple(run.id for run in made)


def mean_ms(work: Callable[[], object], times: int = 1) -> float:
    """Milliseconds that ``work`` takes on average."""
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return round((time.perf_counter() - begun) / times * 1e3, 2)


def watched(count: int, steps: int) -> dict[str, Any]:
    """The room on ``count`` runs from its first moment until all is read, then with keys pressed: how late a clock
    that ticks every 10 ms was, and what was drawn in the end."""
    with tempfile.TemporaryDirectory() as folder:
        here = Workspace(Path(folder))
        return asyncio.run(_watched(here, make_runs(here, count, steps)))


async def _watched(here: Workspace, shown: tuple[str, ...]) -> dict[str, Any]:
    late: list[float] = []

    async def tick() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK)
            late.append(time.perf_counter() - begun - TICK)

    app, pictures = make_app(here.root, room="curves", selected=shown), set()
    async with app.run_test(size=(120, 36)) as pilot:
        ticking, begun = asyncio.create_task(tick()), time.perf_counter()
        while not (isinstance(room := app.screen, CurvesRoom) and room.settled and room.picture.lines):
            await asyncio.sleep(TICK)
            pictures.add(id(room.picture) if isinstance(room, CurvesRoom) else 0)
        found: dict[str, Any] = {"read_ms": round(1e3 * (time.perf_counter() - begun)), "pictures": len(pictures)}
        found |= {f"reading_{name}": value for name, value in _lag(late).items()}
        (loss, *_) = room.picture.charts["loss"].curves
        found |= {"step": room.picture.lines[0].step, "points": len(loss.steps), "highest": max(loss.values)}
        for key in KEYS:
            await pilot.press(key)
            while not room.settled:
                await asyncio.sleep(TICK)
        ticking.cancel()
        return found | {f"keys_{name}": value for name, value in _lag(late).items()}


def _lag(late: list[float]) -> dict[str, float]:
    """The 95th percentile and the longest, in milliseconds; begins anew."""
    ordered = sorted(late)
    late.clear()
    return {"lag_p95_ms": round(1e3 * ordered[int(0.95 * len(ordered))], 1), "lag_longest_ms": round(1e3 * ordered[-1])}


def main() -> None:
    curves = [
        Curve(k, range(1000), [math.sin(step / 50 + k) + step % 7 / 10 for step in range(1000)]) for k in range(4)
    ]
    found: dict[str, Any] = {"chart_of_four_curves_ms": mean_ms(lambda: chart(curves, 100, 30, (0, 999)), 100)}
    with tempfile.TemporaryDirectory() as folder:
        here = Workspace(Path(folder))
        shown = make_runs(here, RUNS, STEPS)
        book = CurveBook(here)
        book.follow(shown)
        found["read_ms"] = mean_ms(lambda: book.read(None))
        found["picture_ms"] = mean_ms(lambda: book.picture(Wish(columns=180)))
        found["picture_smoothed_ms"] = mean_ms(lambda: book.picture(Wish(columns=180, weight=0.9)))
        found["picture_band_ms"] = mean_ms(lambda: book.picture(Wish(columns=180, weight=0.9, spread="range")))
        found["picture_of_the_same_ms"] = mean_ms(
            lambda: book.picture(Wish(columns=180, weight=0.9, spread="range", cursor=9.0))
        )
    print(json.dumps({**found, "one_run": watched(1, STEPS), "four_runs": watched(RUNS, STEPS)}, indent=2))


if __name__ == "__main__":
    main()
