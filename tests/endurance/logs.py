"""Logs of any size beside a log of a megabyte: ``python -m tests.endurance.logs [--bytes 1.2e9] [--json]``.

For each size a run whose training logged that much: what it takes to append an event, to list the runs, to show the
run, to draw its curves, and to open the dashboard on it, in time and in memory.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from metavqa_cli.schema.events import RunStarted, StepLogged, ValidationMeasured, to_record
from metavqa_cli.store import runs
from metavqa_cli.store.log import sealed
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.app import make_app
from metavqa_cli.tui.screens.curves import CurvesRoom
from tests.bench.dashboard import clock, percentile
from tests.endurance.meter import peak_mb
from tests.tui.pilots import until

SMALL, LARGE = 1_000_000, 1_200_000_000
BATCH = 10_000  # steps that are written at once
KEYS = ("comma", "full_stop", "y", "s", "plus", "0")
ROWS = {"append_us": "append one event, µs", "ls_s": "`runs ls`, s", "show_s": "`runs show`, s",
        "show_mb": "`runs show`, MB", "curves_s": "`runs curves`, s", "curves_mb": "`runs curves`, MB",
        "list_s": "dashboard: run list, s", "first_s": "dashboard: first curves, s",
        "whole_s": "dashboard: all curves, s",
        "lag_ms": "dashboard: lag of keys meanwhile (95 %), ms", "lag_max_ms": "dashboard: longest lag, ms",
        "dashboard_mb": "dashboard: peak memory, MB"}  # fmt: skip


def long_run(workspace: Workspace, size: int, seed: int = 0) -> Run:
    """An unfinished run whose log has about ``size`` bytes: a step a second, a validation in a thousand steps."""
    config = {"seed": seed, "ldm": {"lr": 3e-3}}
    key = runs.run_key("ldm", config, {}, "f00")
    run = runs.create(workspace, "ldm", key, config, {}, {"name": "made", "fingerprint": "f00"}, {"variant": "task"})
    run.append(RunStarted(run.id, "ldm", 100_000_000))
    step = 0
    with run.events_path.open("ab") as log:
        while log.tell() < size:
            lines = []
            for step in range(step + 1, step + 1 + min(BATCH, size // 150)):  # noqa: B020
                loss = 3.0 * step**-0.3 + 0.05 * ((step * 2654435761) % 97) / 97
                lines.append(f'{{"event": "StepLogged", "step": {step}, "metrics": {{"loss": {loss:.9f}, "lr": 0.003, '
                             f'"grad_norm": {1 + loss:.9f}, "tasks_per_s": 900.0}}, "at": 1700000000.1}}')  # fmt: skip
                if step % 1000 == 0:
                    lines.append(json.dumps(to_record(ValidationMeasured(step, {"accuracy": 55 - loss}))))
            log.write(b"".join(sealed(line.encode()) + b"\n" for line in lines))
    return run


def last_step(run: Run) -> int:
    """The last step in the log."""
    with run.events_path.open("rb") as log:
        log.seek(-4096, os.SEEK_END)
        lines = [json.loads(line) for line in log.read().splitlines()[1:]]
    return max(line["step"] for line in lines)


def appended(run: Run, times: int = 200) -> float:
    """Microseconds that it takes to append an event to the log: the median."""
    found, step = [], last_step(run)
    for number in range(1, times + 1):
        event = StepLogged(step + number, {"loss": 1.0, "lr": 3e-3, "grad_norm": 2.0, "tasks_per_s": 900.0})
        begun = time.perf_counter()
        run.append(event)
        found.append(1e6 * (time.perf_counter() - begun))
    return statistics.median(found)


def commanded(root: Path, *args: str, repeats: int = 3) -> tuple[float, float]:
    """Seconds (the least of some times) and MB at most that a command takes in a process of its own."""
    script = ("import sys; from metavqa_cli.cli.app import run; code = run(sys.argv[1:]); "
              "from tests.endurance.meter import peak_mb; print(code, peak_mb(), file=sys.stderr)")  # fmt: skip
    times, most = [], 0.0
    for _ in range(repeats):
        begun = time.perf_counter()
        command = [sys.executable, "-c", script, "-w", str(root), "-q", *args]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
        times.append(time.perf_counter() - begun)
        code, peak = done.stderr.split()[-2:]
        assert code == "0", done.stderr
        most = max(most, float(peak))
    return min(times), most


async def dashboard(root: Path, run: str, last: int) -> dict[str, float]:
    """Seconds until the dashboard shows the run, its first curves and all of them; how late keys come; peak memory."""
    app, begun = make_app(root, selected=[run]), time.perf_counter()
    async with app.run_test(size=(160, 48)) as pilot:
        await until(pilot, lambda: app.snapshot.view(run) is not None, "the list of runs")
        listed = time.perf_counter() - begun
        view = app.snapshot.view(run)
        assert view is not None and view.step == last, (view, last)
        async with clock() as late:
            begun = time.perf_counter()
            await pilot.press("f3")
            await until(pilot, lambda: isinstance(app.room, CurvesRoom) and app.room.picture.charts, "curves")
            first, key = time.perf_counter() - begun, 0
            while not (app.room is not None and app.room.settled):
                await pilot.press(KEYS[key % len(KEYS)])
                key += 1
                await asyncio.sleep(0.05)
                if isinstance(app.room, CurvesRoom) and not app.room.picture.behind:
                    await until(pilot, lambda: app.room is not None and app.room.settled, "all curves")
            whole = time.perf_counter() - begun
        assert isinstance(app.room, CurvesRoom) and app.room.picture.lines[0].step is not None
    return {"list_s": listed, "first_s": first, "whole_s": whole, "lag_ms": percentile(late, 0.95),
            "lag_max_ms": max(late), "dashboard_mb": peak_mb()}  # fmt: skip


def opened(root: Path, run: Run) -> dict[str, float]:
    """As ``dashboard``, in a process of its own."""
    command = [sys.executable, "-m", "tests.endurance.logs", "--inside", str(root), run.id, str(last_step(run))]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def measure(root: Path, size: int) -> dict[str, float]:
    """The figures of a log of so many bytes."""
    run = long_run(Workspace(root), size)
    found: dict[str, float] = {"bytes": run.events_path.stat().st_size, "append_us": appended(run)}
    found["ls_s"], _ = commanded(root, "runs", "ls")
    found["show_s"], found["show_mb"] = commanded(root, "runs", "show", run.id)
    found["curves_s"], found["curves_mb"] = commanded(root, "runs", "curves", run.id, repeats=1)
    return {**found, **opened(root, run)}


def table(small: dict[str, Any], large: dict[str, Any]) -> str:
    """Both sizes side by side."""
    lines = [f"{'a log of':45} {small['bytes'] / 1e6:9,.0f} MB {large['bytes'] / 1e6:9,.0f} MB"]
    lines += [f"{title:45} {small[name]:12,.2f} {large[name]:12,.2f}" for name, title in ROWS.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=float, default=LARGE, help="of the large log")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        root, run, last = asked.inside
        print(json.dumps(asyncio.run(dashboard(Path(root), run, int(last)))))
        return
    with tempfile.TemporaryDirectory() as folder:
        small, large = (measure(Path(folder) / str(size), size) for size in (SMALL, int(asked.bytes)))
    print(json.dumps([small, large], indent=2) if asked.json else table(small, large))


if __name__ == "__main__":
    main()
