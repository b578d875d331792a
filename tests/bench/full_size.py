"""Loading and batching a dataset of the real shape: seconds, memory and padding. ``python -m tests.bench.full_size``.

The dataset has the released tasks and stand-in features (64,665 images, 768 dimensions). Memory is what loading adds to
a process that has imported everything: its peak, and what stays.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from metavqa_cli.store.workspace import Workspace
from tests.bench.stand_in import RELEASE, make_stand_in

LIMITS = {"load_s": 3.0, "load_mb": 600.0, "pass_s": 2.0, "padding": 0.25, "info_s": 1.0}
BATCH = 32  # the paper's meta-batch


def memory_mb(field: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def load_and_pass(root: Path, name: str) -> dict[str, float]:
    """Open the dataset, make tensors of all its splits, and go once over all batches of its 870 training tasks."""
    import torch

    from metavqa_cli.engine.dataset import open_dataset
    from metavqa_cli.engine.loop import batch_indices

    torch.set_num_threads(os.cpu_count() or 1)
    torch.ones(8, 8) @ torch.ones(8, 8)  # threads and libraries of the first product
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, begun = memory_mb("VmRSS"), time.perf_counter()
    folder = open_dataset(Workspace(root), name)
    arenas = {split: folder.arena(split, torch.device("cpu")) for split in ("train", "validation", "test")}  # type: ignore[arg-type]
    loaded = time.perf_counter()
    found = {"load_s": loaded - begun, "load_mb": memory_mb("VmHWM") - before, "kept_mb": memory_mb("VmRSS") - before}
    real = padded = 0
    for split in ("train", "validation"):
        pairs = arenas[split].pairs
        for step in range(-(-pairs.n_tasks // BATCH)):
            rows = batch_indices(pairs.n_tasks, BATCH, step, 0)
            for part in pairs.buckets(rows):
                mask = pairs.select(rows[part]).example_mask
                real, padded = real + int(mask.sum()), padded + mask.numel()
    return {**found, "pass_s": time.perf_counter() - loaded, "padding": 1 - real / padded, "pairs": float(real)}


def main() -> None:
    """Print the figures beside their limits."""
    if not RELEASE.is_dir():
        sys.exit(f"the released Meta-VQA files are not in {RELEASE}")
    if len(sys.argv) > 2:
        print(json.dumps(load_and_pass(Path(sys.argv[1]), sys.argv[2])))
        return
    with tempfile.TemporaryDirectory() as root:
        made = time.perf_counter()
        make_stand_in(Workspace(Path(root)))
        figures: dict[str, Any] = {"make_s": time.perf_counter() - made}
        figures |= json.loads(run([sys.executable, "-m", "tests.bench.full_size", root, "stand-in"]))
        code = "from metavqa_cli.cli.app import main; main()"
        info = [sys.executable, "-c", code, "-w", root, "dataset", "info", "stand-in", "--json"]
        begun = time.perf_counter()
        figures["tasks"] = json.loads(run(info))["tasks"]
        figures["info_s"] = time.perf_counter() - begun
    print(json.dumps({"machine": f"{os.cpu_count()} CPU cores", "results": [
        {"subject": name, "value": round(value, 3), "limit": LIMITS.get(name)} for name, value in figures.items()
    ]}, indent=2))  # fmt: skip


def run(command: list[str]) -> str:
    """The standard output of ``command``, which must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
