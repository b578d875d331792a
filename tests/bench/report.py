"""What the scripts on speed have in common: timing, the machine's own rates, and how figures are printed."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Result:
    """One figure: a ``ratio`` between two ways measured side by side, or a ``value`` in ``unit``.

    ``reference`` says what it is compared with, ``limit`` what it has to be (a ratio at least, a value at most, unless
    ``unit`` says otherwise).
    """

    subject: str
    ratio: float | None = None
    value: float | None = None
    unit: str = "x"
    reference: str = ""
    limit: float | None = None


def machine(device: "torch.device | None" = None) -> dict[str, Any]:
    """Where it was measured."""
    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    if device is not None:
        import torch

        found |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        found |= {"card": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def seconds(work: Callable[[], object], repeats: int = 1, device: "torch.device | None" = None) -> float:
    """Median wall time of ``work`` over ``repeats`` calls, with all that a GPU has been given done."""
    found = []
    for _ in range(repeats):
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def wait(device: "torch.device | None") -> None:
    """Until a GPU has done what it was given."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def parser(description: str | None) -> argparse.ArgumentParser:
    """With ``--json``, which every script has, and ``--short``, which is what `pytest -m bench` runs."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    made.add_argument("--short", action="store_true", help="a form that takes seconds")
    return made


def show(results: Sequence[Result], where: dict[str, Any], as_json: bool) -> None:
    """Print the figures as ``{"machine": …, "results": […]}`` or as a table."""
    if as_json:
        rows = [{k: v for k, v in asdict(result).items() if v is not None} for result in results]
        print(json.dumps({"machine": where, "results": rows}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    width = max(len(result.subject) for result in results)
    for result in results:
        figure = result.ratio if result.ratio is not None else result.value
        limit = "" if result.limit is None else f"(limit {result.limit:g})"
        print(f"{result.subject:{width}}  {figure:10.4g} {result.unit:8} {limit:16} {result.reference}")
