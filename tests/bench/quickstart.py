"""The whole story from nothing: ``python -m tests.bench.quickstart [PRESET...]`` prints JSON.

For each preset (tiny and smoke) it runs `metavqa quickstart` in an empty workspace with an empty cache and measures
wall time and the largest process's memory, then once more, when everything is found; and it draws 2,000 scenes on one
core. Limits: tiny 360 s, smoke 60 s, 3 GB, on two cores; the prototype drew 1,030 images a second on one.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from metavqa_cli.tasks.sources.scenes.draw import draw
from metavqa_cli.tasks.sources.scenes.scene import sample_scene

LIMIT_SECONDS = {"tiny": 360, "smoke": 60}
LIMIT_GB = 3


def seconds(folder: Path, *args: str) -> float:
    """How long ``metavqa ARGS`` takes in the workspace ``folder``."""
    command = [sys.executable, "-m", "metavqa_cli", "-q", "-w", str(folder), *args]
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def measure(preset: str) -> dict[str, float]:
    return first_and_again("quickstart", "--preset", preset)


def first_and_again(*args: str) -> dict[str, float]:
    """``metavqa ARGS`` in an empty workspace, once more when everything is found, and the largest process so far."""
    with tempfile.TemporaryDirectory() as folder:
        first, again = (seconds(Path(folder), *args) for _ in range(2))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"first_s": round(first, 1), "again_s": round(again, 1), "peak_gb_so_far": round(peak, 2)}


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def drawing_rate(scenes: int = 2000) -> float:
    """Scenes of 64 x 64 pixels drawn in a second on one core, without writing them."""
    begun = time.perf_counter()
    for index in range(scenes):
        draw(sample_scene(0, index), 64)
    return scenes / (time.perf_counter() - begun)


def main() -> None:
    presets = sys.argv[1:] or ["smoke", "tiny"]
    report = {preset: measure(preset) | {"limit_s": LIMIT_SECONDS[preset]} for preset in presets}
    print(json.dumps({
        "machine": machine(), "quickstart": report, "limit_gb": LIMIT_GB, "images_per_s": round(drawing_rate()),
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
