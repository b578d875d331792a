"""What the room Curves costs: ``python -m tests.bench.curves`` prints JSON, times in milliseconds.

A chart of four curves of 1,000 points, a picture of six metrics of four runs of 100,000 steps, and reading those.
"""

import json
import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from metavqa_cli.schema.events import RunStarted, StepLogged, to_record
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.chart import Curve, chart
from metavqa_cli.tui.curve_book import CurveBook, Wish

METRICS = ("loss", "kl", "accuracy", "lr", "grad_norm", "tasks_per_s")
RUNS, STEPS = 4, 100_000


def write_log(path: Path, steps: int, seed: int = 0) -> None:
    """A log of ``steps`` steps, all of ``METRICS`` at each."""
    draw = random.Random(seed)
    with path.open("w") as log:
        log.write(json.dumps(to_record(RunStarted(path.parent.name, "hvae", steps))) + "\n")
        for step in range(1, steps + 1):
            metrics = {name: math.exp(-step / steps * 3) + 0.1 * draw.random() for name in METRICS}
            log.write(json.dumps(to_record(StepLogged(step, metrics))) + "\n")


def mean_ms(work: Callable[[], object], times: int) -> float:
    """Milliseconds that ``work`` takes on average."""
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return round((time.perf_counter() - begun) / times * 1e3, 2)


def main() -> None:
    found = {}
    curves = [
        Curve(k, range(1000), [math.sin(step / 50 + k) + step % 7 / 10 for step in range(1000)]) for k in range(4)
    ]
    found["chart_four_curves"] = mean_ms(lambda: chart(curves, 100, 30, (0, 999)), 100)
    with tempfile.TemporaryDirectory() as folder:
        here = Workspace(Path(folder))
        made = [runs.create(here, "hvae", f"{k:08d}", {"seed": k}, {}, {"name": "scenes"}).id for k in range(RUNS)]
        for seed, run in enumerate(made):
            write_log(here.runs_dir / run / "events.jsonl", STEPS, seed)
        book = CurveBook(here)
        book.follow(tuple(made))
        found["read_four_logs_of_100k_steps"] = mean_ms(lambda: book.read(None), 1)
        for name, wish in (("", {}), ("_smoothed_first", {"weight": 0.9}), ("_smoothed", {"weight": 0.9}),
                           ("_band", {"weight": 0.9, "spread": "range"})):  # fmt: skip
            asked = Wish(runs=tuple(made), columns=180, **wish)  # type: ignore[arg-type]
            found[f"picture{name}"] = mean_ms(lambda asked=asked: book.picture(asked), 1)  # type: ignore[misc]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
