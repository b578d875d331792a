"""Time and memory against the number of tasks, images, answers, parameters: ``python -m tests.bench.growth [--json]``.

Each size of a synthetic dataset is measured in a process of its own, after everything is imported: opening it, drawing
100 batches of 32 tasks (all pairs, divided at random, with their questions), and the peak of memory. An exponent is the
slope of log figure against log size by least squares: 1 is linear, 0 does not grow. Last, a million tasks.
"""

import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.full_size import memory_mb
from tests.bench.report import Result, machine, parser, seconds, show

BATCH, BATCHES = 32, 100
LINEAR, CONSTANT = 1.15, 0.2  # largest exponents
BOUNDED = 0.6  # of memory: small datasets are held, of larger files at most 32 MB each are mapped
MILLION = {"tasks": 1_000_000, "images": 100_000, "embed": 32}
BYTES = 3.2e9  # that a million tasks need on the disk
TASKS = {False: (100, 1_000, 10_000, 100_000), True: (100, 1_000, 10_000)}
IMAGES = {False: (10_000, 100_000, 1_000_000), True: (10_000, 100_000)}
ANSWERS = {False: (4, 16, 64, 256), True: (4, 64)}
HIDDEN = {False: (16, 64, 256, 1024), True: (16, 64)}


def sampled(folder: str) -> dict[str, float]:
    """Seconds to open the dataset in ``folder``, milliseconds a batch, and MB that both add to the process."""
    import numpy as np
    import torch

    from metavqa_cli.engine.dataset import DatasetFolder
    from metavqa_cli.engine.loop import batch_indices

    torch.set_num_threads(1)  # on busy cores a second one only waits
    torch.ones(8, 8) @ torch.ones(8, 8)  # threads and libraries of the first product
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, begun = memory_mb("VmRSS"), time.perf_counter()
    arena = DatasetFolder(Path(folder)).arena("train", torch.device("cpu"))
    opened, times = time.perf_counter() - begun, []
    for step in range(BATCHES):
        begun = time.perf_counter()
        batch = arena.select(batch_indices(len(arena), BATCH, step, 0))
        assert len(batch.e) == len(batch.random_support(step)[0].x)
        times.append(time.perf_counter() - begun)
    return {"open_s": opened, "batch_ms": 1e3 * float(np.quantile(times, 0.1)), "peak_mb": memory_mb("VmHWM") - before}


def stepped(embed: int, hidden: int, answers: int) -> dict[str, float]:
    """Milliseconds and MB of one step of adaptation of 8 tasks with 32 pairs each, and the number of parameters."""
    import torch

    from metavqa_cli.base_network.layout import WeightLayout
    from metavqa_cli.methods.few_shot import adapt_weights
    from metavqa_cli.tasks.batches import TaskBatch

    layout, generator = WeightLayout(embed, hidden), torch.Generator().manual_seed(0)
    x, statements = (torch.randn(8, n, embed, generator=generator) for n in (32, answers))
    whole = [torch.ones(8, n, dtype=torch.bool) for n in (32, answers)]
    labels = torch.randint(answers, (8, 32), generator=generator)
    batch = TaskBatch(x / x.norm(dim=2, keepdim=True), labels, whole[0], statements, whole[1])
    start = 0.01 * torch.randn(layout.size, generator=generator)
    adapt_weights(WeightLayout(embed, 2), start[: WeightLayout(embed, 2).size], batch, 1, 0.1, 10.0)  # libraries
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mb("VmRSS")
    taken = seconds(lambda: adapt_weights(layout, start, batch, 1, 0.1, 10.0), 15)
    return {"step_ms": 1e3 * taken, "peak_mb": memory_mb("VmHWM") - before, "parameters": layout.size}


def compiled(folder: str) -> float:
    """Seconds of opening the tasks for the first time, which makes their index."""
    from metavqa_cli.engine.indexing import open_tasks

    begun = time.perf_counter()
    open_tasks(Path(folder))
    return time.perf_counter() - begun


def fresh(work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work`` of this module gives in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.growth", work.__name__, json.dumps(arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def of_dataset(index: bool = True, **size: int) -> dict[str, float]:
    """Figures of a synthetic dataset, which is removed; with ``index_s`` when it is opened without its index first."""
    from tests.bench.synthetic import Size, make_synthetic

    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "made"
        made = seconds(lambda: make_synthetic(folder, Size(**size), index=index))
        found = {} if index else {"index_s": fresh(compiled, str(folder))}
        found |= fresh(sampled, str(folder))
        found["disk_mb"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    return {**found, "made_s": made}


def exponent(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """The slope of log figure against log size."""
    x, y = ([math.log(max(each, 1e-9)) for each in those] for those in (sizes, figures))
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def growth(
    what: str, sizes: Sequence[int], measure: Callable[[int], dict[str, float]], limits: dict[str, float]
) -> list[Result]:
    """The figures at each size, and the exponents of those that have a limit."""
    found = [measure(size) for size in sizes]
    results = []
    for name, limit in limits.items():
        figures = [each[name] for each in found]
        told = ", ".join(f"{size:,}: {figure:.3g}" for size, figure in zip(sizes, figures, strict=True))
        label, _, unit = name.rpartition("_")
        results.append(Result(f"{label} by {what}", value=exponent(sizes, figures), unit="exponent",
                              reference=f"{unit} at {told}", limit=limit))  # fmt: skip
    return results


def million() -> list[Result]:
    """A million tasks: opened and sampled, beside their size on the disk."""
    found = of_dataset(**MILLION)
    limits = {"open_s": 5.0, "batch_ms": 100.0, "peak_mb": 250.0}
    return [
        Result(f"a million tasks: {name.rpartition('_')[0]}", value=found[name], unit=name.rpartition("_")[2],
               reference=f"{found['disk_mb']:,.0f} MB on the disk", limit=limit)
        for name, limit in limits.items()
    ]  # fmt: skip


def results(short: bool) -> list[Result]:
    """All figures."""
    opening = {"open_s": LINEAR, "batch_ms": CONSTANT, "peak_mb": BOUNDED}
    step = {"step_ms": LINEAR, "peak_mb": LINEAR}
    found = growth("tasks", TASKS[short], lambda n: of_dataset(index=False, tasks=n), {"index_s": LINEAR} | opening)
    found += growth("images", IMAGES[short], lambda n: of_dataset(tasks=1000, images=n), opening)
    found += growth("answers", ANSWERS[short], lambda n: fresh(stepped, 128, 16, n), step)
    found += growth("hidden units (parameters)", HIDDEN[short], lambda n: fresh(stepped, 512, n, 9), step)
    if not short and shutil.disk_usage(tempfile.gettempdir()).free > 2 * BYTES:
        found += million()
    return found


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] in {each.__name__ for each in (sampled, stepped, compiled)}:
        print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
        return
    chosen = parser(__doc__).parse_args()
    show(results(chosen.short), machine(), chosen.json)


if __name__ == "__main__":
    main()
