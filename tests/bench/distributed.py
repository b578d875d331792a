"""One training in several processes: ``python -m tests.bench.distributed WORKSPACE [PART…]`` (a finished tiny one).

Steps a second of two processes with one thread each, beside one process with one thread and one with two, in turns, so
that a busy machine slows all of them alike; and the share of a step that goes to averaging gradients. On GPUs, or with
more processes: ``torchrun --nproc-per-node N -m tests.bench.distributed WORKSPACE`` prints what these reach together,
and ``--nproc-per-node 1`` what it is compared with.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from metavqa_cli.engine import loop, world
from metavqa_cli.engine.finite import Finite
from metavqa_cli.engine.session import choose_device
from metavqa_cli.engine.together import Together, team_of
from metavqa_cli.engine.torchrun import place
from metavqa_cli.schema.config import Config
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from tests.bench import report
from tests.bench.precision import Bench

PARTS = ("weights", "hyperclip", "ldm", "mnet-maml")
NAMES = {"weights": "HVAE", "hyperclip": "HyperCLIP", "ldm": "HyperLDM", "mnet-maml": "MNet-MAML"}
WAYS = {"one": (1, 1), "threads": (1, 2), "two": (2, 1)}  # processes, threads of each


def paces(bench: Bench, part: str, seconds: float) -> tuple[float, float]:
    """Steps a second of this process and those with it, and without the exchange of gradients."""
    here, training = world.here(), bench.training(part, "validation")
    optimizer = torch.optim.AdamW(training.module.parameters(), lr=1e-5, fused=bench.device.type != "mps")
    plan, team = bench.plan(part, "fp32"), team_of(training, here)
    finite = Finite(bench.device)
    groups = loop.clipping_groups(training.module, plan.clip_apart)

    def pace(apart: bool, enough: float) -> float:
        begun, done = time.perf_counter(), 0
        while not here.any(time.perf_counter() - begun > enough):
            with team.averaged.no_sync() if apart and isinstance(team, Together) else nullcontext():
                for _ in range(4):
                    loop._step(team, optimizer, groups, plan, finite, done)
                    done += 1
            report.wait(bench.device)
        return done / (time.perf_counter() - begun)

    pace(False, 0.2)
    return pace(False, seconds), pace(True, seconds)


def together(bench: Bench, parts: list[str], seconds: float) -> None:
    """What one of several processes does: measure, and print if it is the first."""
    for part in parts:
        found = paces(bench, part, seconds)
        if world.here().first:
            print(json.dumps([part, *found]), flush=True)


def measured(way: str, arguments: list[str]) -> dict[str, tuple[float, float]]:
    """The paces of each part, measured in processes of their own."""
    processes, threads = WAYS[way]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "OMP_NUM_THREADS": str(threads), "LOCAL_WORLD_SIZE": str(processes)}  # fmt: skip
    command = [sys.executable, "-m", "tests.bench.distributed", *arguments, "--inside"]
    started = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in range(processes)
    ]
    said = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started)
    return {part: (pace, apart) for part, pace, apart in map(json.loads, said[0].splitlines())}


def results(turns: list[dict[str, dict[str, tuple[float, float]]]], parts: list[str]) -> list[report.Result]:
    """Medians over the turns."""
    found = []
    for part in parts:
        pace = {way: statistics.median(turn[way][part][0] for turn in turns) for way in WAYS}
        apart = statistics.median(turn["two"][part][0] / turn["two"][part][1] for turn in turns)
        name = NAMES.get(part, part)
        found += [
            report.Result(f"{name}, two processes to one", pace["two"] / pace["one"], reference="of one thread each"),
            report.Result(f"{name}, two processes to two threads", pace["two"] / pace["threads"]),
            report.Result(f"{name}, exchange of gradients", value=100 * (1 - apart), unit="%", reference="of a step"),
            report.Result(f"{name}, one process, one thread", value=pace["one"], unit="steps/s"),
        ]
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the figures."""
    parser = report.parser(__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help="be one of the processes; so under torchrun")
    args = parser.parse_args(arguments)
    seconds, turns = (0.5, 1) if args.short else (args.seconds, args.turns)
    if args.inside or "TORCHELASTIC_RUN_ID" in os.environ:
        device = choose_device("auto", place())
        world.join(device)
        newest = runs.newest(Workspace(args.workspace), "ldm")
        assert newest is not None, f"{args.workspace} has no finished HyperLDM"
        together(Bench(args.workspace, Config.model_validate(newest.config()), device), args.parts, seconds)
        world.leave()
        return
    inner = [str(args.workspace), *args.parts, "--seconds", str(seconds)]
    taken = [{way: measured(way, inner) for way in WAYS} for _ in range(turns)]
    report.show(results(taken, args.parts), report.machine(torch.device("cpu")), args.json)


if __name__ == "__main__":
    main()
