"""Every training for 20,000 steps: ``python -m tests.endurance.trainings [--steps N] [NAME…]`` prints a table.

Each is the whole verb on the miniature in a process of its own, with its record, 50 logs a second, a validation every
200 steps and two checkpoints a second. What the process holds is read at each validation; the first quarter of the
steps is warm-up.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

from metavqa_cli.cli.progress import Display, watch
from metavqa_cli.engine import baselines, contrast, diffusion, generators, loop, regression
from metavqa_cli.engine.loop import Plan
from metavqa_cli.engine.measure import training_plan
from metavqa_cli.engine.session import Session
from metavqa_cli.schema.config import BaselineMethod
from metavqa_cli.schema.events import Event, RunFinished, ValidationMeasured
from metavqa_cli.store import removal, runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.endurance.meter import Meter, Sample, after, risen, settled, slope

STEPS, EVERY, LOG_SECONDS, CHECKPOINT_SECONDS = 20_000, 200, 0.02, 0.5
INNER_STEPS = 2  # of MAML: what counts here is how often a step is taken
WARM_UP = 0.25  # share of the steps
RISE = 1 << 20  # bytes that may be held more at the end than after the warm-up
VERBS = (baselines, generators, contrast, diffusion, regression)
BASELINES = get_args(BaselineMethod)
TRAININGS = (*BASELINES, "hvae weights", "hvae task", "ldm", "ldm anchored", "hyperclip", "regression",
             "regression to weights")  # fmt: skip

Leak = Callable[[int], object]


def verb(name: str, workspace: Workspace) -> Iterator[Event]:
    """The events of one training, begun anew."""

    def parent(kind: str, variant: str | None = None) -> Run:
        return miniature.run(kind, variant, workspace)

    def session(**changes: Any) -> Session:
        return miniature.session(workspace, force=True, **changes)

    if name in BASELINES:
        return baselines.train_baseline(session(baseline={"method": name, "inner_steps": INNER_STEPS}))
    if name.startswith("hvae"):
        return generators.train_generator(session(hvae={"objective": name.split()[1]}), parent("baseline", "multitask"))
    if name.startswith("ldm"):
        return diffusion.train_ldm(session(ldm={"anchor": "anchored" in name}), parent("hvae"))
    if name == "hyperclip":
        return contrast.train_hyperclip(session(), parent("hvae"))
    return regression.train_regression(session(), parent("zoo" if "weights" in name else "hvae"))


@contextmanager
def hurried(steps: int, every: int) -> Iterator[None]:
    """Trainings of so many steps that log, validate and save far more often than usual, and never stop early."""

    def plan(*args: Any, **how: Any) -> Plan:
        usual = training_plan(*args, **how)
        return replace(usual, steps=steps, validate_every=every, checkpoint_seconds=CHECKPOINT_SECONDS, patience=0)

    with ExitStack() as stack:
        for module in VERBS:
            stack.enter_context(patch.object(module, "training_plan", plan))
        stack.enter_context(patch.object(loop, "LOG_SECONDS", LOG_SECONDS))
        yield


def endured(
    name: str, workspace: Workspace, steps: int = STEPS, every: int = EVERY, leak: Leak | None = None
) -> list[Sample]:
    """What this process held at each validation of a training. ``leak`` is called at each of them."""
    meter = Meter()

    def measured(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, ValidationMeasured):
                if leak is not None:
                    leak(event.step)
                meter.take(event.step)
            yield event

    with hurried(steps, every), settled():
        outcomes = watch(measured(verb(name, workspace)), Display())
    samples = meter.samples
    assert isinstance(outcomes[-1], RunFinished) and samples[-1].steps == steps, (name, outcomes, len(samples))
    removal.remove(runs.get(workspace, outcomes[-1].run))
    return samples


def row(name: str, samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    """The figures of one training."""
    steps = samples[-1].steps
    steady = after(samples, round(WARM_UP * steps))
    return {"name": name, "steps": steps, "ms_a_step": round(1000 * seconds / steps, 2),
            "rss_mb": round(samples[-1].rss / 1e6), "rss_slope": str(slope(steady, "rss")),
            "rss_rise": risen(steady, "rss"), "blocks_slope": str(slope(steady, "blocks")),
            "files": sorted({one.files for one in steady}),
            "threads": sorted({one.threads for one in steady})}  # fmt: skip


def is_flat(found: dict[str, Any]) -> bool:
    """Whether a process held no more at the end than after its warm-up."""
    return bool(found["rss_rise"] < RISE and len(found["files"]) == len(found["threads"]) == 1)


def alone(name: str, root: Path, steps: int, *options: str) -> dict[str, Any]:
    """The figures of one training in a process of its own, which the miniature in ``root`` is for."""
    command = [sys.executable, "-m", "tests.endurance.trainings", name, "--steps", str(steps), "--inside", str(root)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout))


def inside(name: str, root: Path, steps: int) -> dict[str, Any]:
    """As ``alone``, in this process."""
    begun = time.perf_counter()
    samples = endured(name, Workspace(root), steps)
    return {**row(name, samples, time.perf_counter() - begun), "samples": [asdict(one) for one in samples]}


COLUMNS = {"training": 22, "steps": 7, "ms/step": 8, "RSS MB": 7, "RSS bytes / 1,000 steps": 28, "rise kB": 8,
           "blocks / 1,000 steps": 22, "files": 6, "threads": 8, "": 5}  # fmt: skip


def line(found: dict[str, Any]) -> str:
    """A row of the table."""
    cells = (found["name"], f"{found['steps']:,}", found["ms_a_step"], found["rss_mb"], found["rss_slope"],
             f"{found['rss_rise'] / 1e3:+,.0f}", found["blocks_slope"], "–".join(map(str, found["files"])),
             "–".join(map(str, found["threads"])), "flat" if is_flat(found) else "GROWS")  # fmt: skip
    return " ".join(f"{cell!s:{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True)).rstrip()


def table(names: Sequence[str], root: Path, steps: int) -> list[dict[str, Any]]:
    """The figures of the trainings, printed as they come."""
    print(" ".join(f"{title:{width}}" for title, width in COLUMNS.items()).rstrip(), flush=True)
    found = []
    for name in names:
        found.append(alone(name, root, steps))
        print(line(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TRAININGS)}")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(inside(asked.names[0], asked.inside, asked.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table(asked.names or TRAININGS, miniature.copy(Path(folder) / "workspace").root, asked.steps)


if __name__ == "__main__":
    main()
