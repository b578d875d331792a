"""The dashboard beside a training: ``python -m tests.bench.dashboard`` prints JSON.

First paint (a real process in a pseudo-terminal, from its start to the first line of the screen), lag of the interface
(how late a 10 ms clock in its event loop comes) while keys are pressed in every room with a training job beside it, and
memory, on a workspace of 50 runs of 10,000 points beside those of `quickstart --preset smoke` with a γ sweep: without
torch in the process, then Ask with it (loading, typing, asking).
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from metavqa_cli.schema.events import RunStarted, StepLogged, ValidationMeasured, to_record
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.room import ROOMS, RoomName
from tests.tui.pilots import until
from tests.tui.terminals import window

TICK = 0.01  # seconds
SIZE = (160, 48)
MADE = "made"
LIMITS = {"first_paint_s": 0.8, "lag_p95_ms": 50.0, "memory_mb": 200.0}
KEYS: dict[RoomName, tuple[str, ...]] = {
    "runs": ("down", "down", "space", "s", "r", "space", "down", "up", "pagedown", "home", "m", "p"),
    "curves": ("y", "s", "+", "+", "right", "left", "0", "b", "b", "b", "comma", "tab"),
    "sweep": ("right", "left", "f", "right", "left", "down", "down", "b"),
    "tasks": ("down", "down", "s", "f", "down", "up", "pagedown"),
}
QUESTION = "What color is the car?"


def populate(workspace: Workspace, number: int = 50, points: int = 10_000) -> None:
    """Runs whose logs hold ``points`` steps each, as a training writes them."""
    for seed in range(number):
        config = {"seed": seed, "ldm": {"lr": 3e-3}}
        key = runs.run_key("ldm", config, {}, "f00")
        run = runs.create(
            workspace, "ldm", key, config, {}, {"name": "made", "fingerprint": "f00"}, {"variant": "task"}
        )
        lines = [to_record(RunStarted(run.id, "ldm", points))]
        for step in range(1, points + 1):
            loss = 3.0 * step**-0.3 + 0.05 * ((step * 2654435761 + seed) % 97) / 97
            metrics = {"loss": loss, "lr": 3e-3, "grad_norm": 1 + loss, "tasks_per_s": 900.0}
            lines.append(to_record(StepLogged(step, metrics)))
            if step % 500 == 0:
                lines.append(to_record(ValidationMeasured(step, {"accuracy": 55 - loss}, True)))
        run.events_path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def metavqa(folder: Path, *args: str) -> None:
    """Run a command to its end."""
    subprocess.run([sys.executable, "-m", "metavqa_cli", "-q", "-w", str(folder), *args], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


@contextmanager
def training(folder: Path) -> Iterator[None]:
    """A real training job of the built-in world beside, for as long as the body lasts; its start is not waited for."""
    args = ["-m", "metavqa_cli", "-w", str(folder), "-q", "train", "ldm", "--preset", "smoke", "--with-parents",
            "--set", "baseline.epochs=100000"]  # fmt: skip
    process = subprocess.Popen([sys.executable, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run = None
        while run is None and process.poll() is None:  # until it trains, not only starts
            run = next((one for one in runs.list_runs(Workspace(folder)) if one.events()[0][2:]), None)
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def first_paint(folder: Path, repeats: int = 7) -> float:
    """Seconds from the start of the process to the first line on the screen: the median."""
    found = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        shown = window(["-m", "metavqa_cli", "-w", str(folder), "tui"], folder)
        shown.read_until(b"F2 Runs")
        found.append(time.perf_counter() - begun)
        shown.type("q")
        shown.wait()
    return statistics.median(found[1:])


@asynccontextmanager
async def clock() -> AsyncIterator[list[float]]:
    """How late, in milliseconds, a clock comes in this event loop while the body runs."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            late.append(1000 * (time.perf_counter() - before - TICK))

    ticking = asyncio.create_task(tick())
    try:
        yield late
    finally:
        ticking.cancel()


async def lags(app: Dashboard, seconds: float) -> dict[str, list[float]]:
    """In each room, while its keys are pressed for ``seconds`` as fast as a person does."""
    found = {}
    async with app.run_test(size=SIZE) as pilot:
        for room, keys in KEYS.items():
            await pilot.press(ROOMS[room][0])
            async with clock() as found[room]:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    for key in keys:
                        await pilot.press(key)
                        await asyncio.sleep(0.1)
    return found


async def lags_of_asking(app: Dashboard, images: Sequence[Path]) -> dict[str, list[float]]:
    """While torch and the model are loaded, a question is typed, and its images are embedded and judged."""
    found = {}
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.room is not None and app.room.settled)
        async with clock() as found["ask, loading torch"]:
            app.visit("ask", images=images)
            await until(pilot, lambda: app.asking.status.state == "ready")
        async with clock() as found["ask"]:
            for letter in QUESTION:
                await pilot.press({" ": "space", "?": "question_mark"}.get(letter, letter))
                await asyncio.sleep(0.15)
            for _ in range(3):
                await pilot.press("enter")
                await asyncio.sleep(1.5)
    return found


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def memory_mb() -> float:
    """Resident memory of this process at its highest."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summary(late: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Percentiles for each room."""
    return {
        room: {name: round(percentile(one, share), 1) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}
        for room, one in late.items()
    }


def inside(root: Path, seconds: float) -> dict[str, Any]:
    """In a process that does nothing else: the lag in each room, and the memory before and with torch."""
    workspace = Workspace(root)
    chosen = [run.id for run in runs.list_runs(workspace) if run.manifest()["dataset"]["name"] == MADE]
    late = asyncio.run(lags(make_app(root, selected=chosen, dataset="smoke"), seconds))
    heavy = [name for name in ("torch", "open_clip") if name in sys.modules]
    assert not heavy, heavy
    memory = round(memory_mb())
    images = sorted((workspace.dataset_dir("smoke") / "images" / "000").glob("*.png"))[:50]
    asking = asyncio.run(lags_of_asking(make_app(root, dataset="smoke"), images))
    everywhere = [value for one in (*late.values(), asking["ask"]) for value in one]
    return {"lag_ms": summary({**late, **asking}), "lag_p95_ms": round(percentile(everywhere, 0.95), 1),
            "memory_mb": memory, "memory_with_torch_mb": round(memory_mb())}  # fmt: skip


def measure(seconds: float) -> dict[str, Any]:
    """All of it, on a workspace made for this."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "workspace"
        metavqa(root, "quickstart", "--preset", "smoke")
        metavqa(root, "eval", "sweep", "--preset", "smoke", "--gamma", "0:2:0.5")
        populate(Workspace(root))
        alone = first_paint(root)
        command = [sys.executable, "-m", "tests.bench.dashboard", "--inside", str(root), "--seconds", str(seconds)]
        with training(folder / "beside"):
            beside = first_paint(root)
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return {"first_paint_s": round(alone, 3), "first_paint_beside_a_training_s": round(beside, 3), **found,
            "limits": LIMITS}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="time in each room")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    print(json.dumps(inside(asked.inside, asked.seconds) if asked.inside else measure(asked.seconds), indent=2))
