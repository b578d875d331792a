"""How long the front door and an answer take: ``python -m tests.bench.startup [WORKSPACE]``.

*Cold* is a whole ``metavqa ask`` process, beside a process that only imports torch, and what it imports beyond torch
is told apart from what it loads and computes. *Warm* is one question about eight image files with everything loaded:
open and embed the images, encode the question, sample, decode, judge. *Stream* is ``metavqa ask -``: each question is
sent when the one before is answered. The workspace needs a finished HyperLDM, as ``metavqa quickstart`` leaves one.
Other work on the machine slows all of this down; the ratios stay.
"""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from metavqa_cli.store.workspace import Workspace
from tests.bench.report import Result, machine, parser, show

QUESTION, IMAGES = "What color is the balloon?", 8
METAVQA = ("-m", "metavqa_cli")
BARE, TORCH = ("-c", "pass"), ("-c", "import torch")
FRONT = {"metavqa --help": ("--help",), "metavqa runs ls": ("runs", "ls"), "metavqa config show": ("config", "show")}
LIMITS = {"metavqa --help": 0.2, "metavqa runs ls": 0.3, "metavqa config show": 0.3, "cold": 1.5, "imports": 0.35,
          "warm": 60.0, "stream": 60.0}  # fmt: skip
WORDS = ("What color is the", "How many things are near the", "Where is the", "What is behind the")
THINGS = ("balloon", "car", "dog", "tree", "house")
IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def processes(commands: dict[str, Sequence[str]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of Python with each of ``commands``, in turns; the first turn (cold disk) is left out."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats + 1):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            found[name].append(time.perf_counter() - begun)
    return {name: seconds[1:] for name, seconds in found.items()}


def front(repeats: int) -> list[Result]:
    """Commands that import nothing heavy."""
    found = processes({"python": BARE, **{name: (*METAVQA, *args) for name, args in FRONT.items()}}, repeats)
    bare = min(found["python"])
    return [
        Result(name, value=round(min(found[name]), 3), unit="s",
               reference=f"fastest; median {statistics.median(found[name]):.3f}, a bare interpreter {bare:.3f}",
               limit=LIMITS[name])
        for name in FRONT
    ]  # fmt: skip


def cold(workspace: Workspace, repeats: int) -> list[Result]:
    """A whole ``metavqa ask`` beside ``import torch``."""
    asked = (*METAVQA, "-w", str(workspace.root), "ask", QUESTION, *image_files(workspace))
    found = processes({"torch": TORCH, "ask": asked}, repeats)
    ratio = statistics.median(a / b for a, b in zip(found["ask"], found["torch"], strict=True))
    seconds = {name: statistics.median(each) for name, each in found.items()}
    torch, others = imported(asked)
    reference = f"import torch alone ({seconds['torch']:.2f} s), in turns; at most"
    return [
        Result("cold ask, eight images", value=round(seconds["ask"], 2), unit="s"),
        Result("… to import torch", ratio=round(ratio, 2), reference=reference, limit=LIMITS["cold"]),
        Result("… imports that are not torch's", ratio=round(others / torch, 2),
               reference="imports of torch, by -X importtime; at most", limit=LIMITS["imports"]),
    ]  # fmt: skip


def imported(command: Sequence[str]) -> tuple[float, float]:
    """Seconds that a command spends in importing torch (with what torch imports), and in importing all else."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True)
    lines = [match for line in done.stderr.splitlines() if (match := IMPORT.match(line))]
    torch = next(int(match[2]) for match in lines if match[4] == "torch")
    return torch / 1e6, (sum(int(match[1]) for match in lines) - torch) / 1e6


def warm(workspace: Workspace, repeats: int) -> list[Result]:
    """Milliseconds of one question in a process that has loaded everything, and of its parts."""
    from metavqa_cli.engine.judging import load_images
    from metavqa_cli.engine.request import Request
    from metavqa_cli.tui.asking import open_newest_or_named

    asker, files = open_newest_or_named(workspace, None, None), image_files(workspace)
    parts: dict[str, list[float]] = {}
    for i in range(repeats + 1):
        begun = time.perf_counter()
        loaded = load_images(asker.encoder, files)
        taken = {"open and embed images": 1000 * (time.perf_counter() - begun)}
        taken |= asker.ask(Request(QUESTION, seed=i), loaded.names, loaded.x).milliseconds
        taken["whole"] = 1000 * (time.perf_counter() - begun)
        for name, milliseconds in taken.items() if i else ():
            parts.setdefault(name, []).append(milliseconds)
    medians = {name: round(statistics.median(each), 1) for name, each in parts.items()}
    reference = ", ".join(f"{name} {value}" for name, value in medians.items() if name != "whole")
    return [
        Result("warm ask, eight images", value=medians["whole"], unit="ms", reference=reference, limit=LIMITS["warm"])
    ]


def stream(workspace: Workspace, questions: int) -> list[Result]:
    """``metavqa ask -``: milliseconds from a question sent to its answer read."""
    asked = ("-q", "-w", str(workspace.root), "ask", "-", *image_files(workspace), "--format", "jsonl")
    command = [sys.executable, *METAVQA, *asked]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    found = []
    with subprocess.Popen(command, text=True, bufsize=1, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdin is not None and process.stdout is not None
        for question in (f"{words} {thing}?" for words in WORDS for thing in THINGS[: -(-questions // len(WORDS))]):
            begun = time.perf_counter()
            process.stdin.write(f"{question}\n")
            assert json.loads(process.stdout.readline())["question"] == question
            found.append(1000 * (time.perf_counter() - begun))
    first, *others = found
    reference = f"the first, with loading, {first:.0f}; fastest {min(others):.0f}, slowest {max(others):.0f}"
    median = round(statistics.median(others), 1)
    return [Result(f"a question in a stream of {len(found)}", value=median, unit="ms", reference=reference,
                   limit=LIMITS["stream"])]  # fmt: skip


def image_files(workspace: Workspace) -> list[str]:
    found = [str(path) for path in sorted((workspace.root / "datasets").rglob("images/**/*.png"))[:IMAGES]]
    assert len(found) == IMAGES, f"{workspace.root} has no dataset with {IMAGES} images"
    return found


def measured(workspace: Workspace, short: bool) -> list[Result]:
    """All figures; what runs in this process comes last."""
    repeats = 3 if short else 9
    found = [*front(repeats), *cold(workspace, 1 if short else 5), *stream(workspace, 4 if short else 20)]
    return [*found, *warm(workspace, 4 if short else 40)]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("workspace", nargs="?", type=Path, default=Workspace.default_root())
    chosen = options.parse_args(arguments)
    results = measured(Workspace(chosen.workspace), chosen.short)
    import torch

    show(results, machine(torch.device("cpu")), chosen.json)


if __name__ == "__main__":
    main()
