"""A workspace made by hand in which everything is fixed (ids, times, numbers, pictures): what it looks like is too."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from metavqa_cli.schema.events import (
    Event,
    ProgressMade,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunStarted,
    StepLogged,
    ValidationMeasured,
)
from metavqa_cli.store.tensors import save_tensors
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.taskset import Task, TaskSet, dump_tasks
from tests.tui.made_runs import made

DATASET, FINGERPRINT, IMAGES, PAIRS = "shapes", "f00", 24, 6
GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
COLORS = ("red", "blue", "green", "white")
BASELINE, HVAE, LDM, SECOND = "baseline-1a2b3c4d", "hvae-2b3c4d5e", "ldm-3c4d5e6f", "ldm-4d5e6f70"
ZOO, FAILED = "zoo-5e6f7081", "ldm-6f708192"


def furnish(root: Path) -> Workspace:
    """Runs in every state and of every kind on a dataset of twenty tasks. ``ZOO`` waits to be held."""
    workspace = Workspace(root)
    _dataset(workspace)
    usual: dict[str, Any] = {"dataset": DATASET, "config": _config(0)}
    made(workspace, BASELINE, age=90_000, variant="multitask", result={"validation": {"accuracy": 48.25}},
         events=_training(BASELINE, "baseline", 400, 48.25), **usual)  # fmt: skip
    made(workspace, HVAE, age=80_000, variant="task", parents={"init": BASELINE}, **usual,
         result={"validation": {"accuracy": 57.1}}, events=_training(HVAE, "hvae", 600, 57.1))  # fmt: skip
    for number, run in enumerate((LDM, SECOND)):
        accuracy = 53.4 + number
        made(workspace, run, age=70_000 - 4000 * number, variant="task", parents={"generator": HVAE}, dataset=DATASET,
             config=_config(number), result={"validation": {"accuracy": accuracy}, "gamma": 1.5 + number / 2},
             events=_training(run, "ldm", 1000, accuracy, shift=number / 10))  # fmt: skip
    made(workspace, FAILED, age=7200, variant="task", parents={"generator": HVAE}, **usual, events=[
        RunStarted(FAILED, "ldm", 1000), StepLogged(350, {"loss": 2.5}), RunFailed(FAILED, "the loss is not finite"),
    ])  # fmt: skip
    made(workspace, "hvae-8192a3b4", age=3000, variant="weights", parents={"init": BASELINE, "zoo": ZOO}, **usual,
         events=[RunStarted("hvae-8192a3b4", "hvae", 600), StepLogged(240, {"loss": 1.5}),
                 RunInterrupted("hvae-8192a3b4", 240)])  # fmt: skip
    made(workspace, ZOO, age=400, parents={"init": BASELINE}, **usual,
         events=[RunStarted(ZOO, "zoo", 0), ProgressMade("adapting tasks", 7, 10, "task")])  # fmt: skip
    _cells(workspace)
    return workspace


def tasks() -> TaskSet:
    """Twenty tasks: twelve to learn from, two to validate, six to test."""
    return TaskSet(tuple(_task(number) for number in range(20)))


def _config(seed: int) -> str:
    return f'seed = {seed}\n\n[dataset]\nname = "{DATASET}"\n\n[ldm]\nepochs = {60 + 20 * seed}\n'


def _task(number: int) -> Task:
    things = ("car", "boat", "house", "tree", "bird", "kite", "lamp", "cup", "hat", "door")
    thing = things[number % len(things)]
    color = number < len(things)
    question = f"What color is the {thing}?" if color else f"Is the {thing} left of the tree?"
    answers = COLORS[: 2 + number % 3] if color else ("yes", "no")
    pairs = [(f"i{(5 * number + n) % IMAGES:02d}", (number + n) % len(answers)) for n in range(2 * PAIRS)]
    split = "test" if number % 10 >= 7 else "validation" if number % 10 == 6 else "train"
    template = f"the {thing} is {{}}" if color else f"{{}}, the {thing} is left of the tree"
    family = "color" if color else "position"
    return Task(question, template, answers, tuple(pairs[:PAIRS]), tuple(pairs[PAIRS:]), split, family)


def _dataset(workspace: Workspace) -> None:
    folder = workspace.dataset_dir(DATASET)
    (folder / "images").mkdir(parents=True)
    dump_tasks(folder / "tasks.jsonl", tasks())
    summary = {"tasks": 20, "train": 12, "validation": 2, "test": 6, "images": IMAGES}
    manifest = {"schema_version": 1, "name": DATASET, "fingerprint": FINGERPRINT, "encoder": None,
                "recipe": {"dataset": {"name": DATASET, "source": "folder"}, "clip": {}},
                "summary": summary}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(manifest), "utf-8")
    for number in range(IMAGES):
        image = Image.new("RGB", (32, 32), (10 * number, 90, 200 - 8 * number))
        image.paste((250, 250, 250 - 10 * number), (number // 2, 4, number // 2 + 12, 20))
        image.save(folder / "images" / f"i{number:02d}.png")


def _training(run: str, kind: str, steps: int, accuracy: float, shift: float = 0.0) -> Iterator[Event]:
    yield RunStarted(run, kind, steps)
    for step in range(10, steps + 1, 10):
        share = step / steps
        wave = math.sin(step / 7) / 20
        metrics = {"loss": 3 * math.exp(-3 * share) + 0.4 + wave + shift, "lr": 0.003 * min(1.0, 2 - 2 * share),
                   "grad_norm": 1 + math.exp(-5 * share) + wave, "tasks_per_s": 900 + 100 * wave}  # fmt: skip
        yield StepLogged(step, metrics)
        if step % 100 == 0:
            yield ValidationMeasured(step, {"accuracy": accuracy * (1 - math.exp(-4 * share)) / (1 - math.exp(-4))})
    yield RunFinished(run)


def _cells(workspace: Workspace) -> None:
    """The baseline, the few-shot ceiling and HyperLDM at every γ and at the validated one, each in two seeds."""
    for seed in (0, 1):
        _cell(workspace, 2 * seed, "multitask", "zero-shot", {"baseline": BASELINE}, seed)
        _cell(workspace, 2 * seed + 1, "task", "few-shot", {"generator": HVAE}, seed, skill=3)
        for number, gamma in enumerate((*GAMMAS, None)):
            parents = {"ldm": (LDM, SECOND)[seed]}
            _cell(workspace, 10 + 10 * seed + number, "task-ldm", "zero-shot", parents, seed, gamma, number)


def _cell(
    workspace: Workspace, number: int, method: str, setting: str, parents: dict[str, str], seed: int,
    gamma: float | None = None, skill: int = 2,
) -> None:  # fmt: skip
    run, guided = f"cell-{number:02d}c0ffee", method == "task-ldm"
    test = tasks().of("test")
    answers = [_answer(number, skill, place, task, label) for place, (task, label) in enumerate(_asked(test))]
    right = [float(answer == label) for answer, (_, label) in zip(answers, _asked(test), strict=True)]
    correct = torch.tensor(right).reshape(len(test), PAIRS)
    used = 1.5 + seed / 2 if guided and gamma is None else gamma
    folder = made(
        workspace, run, age=60_000 - 60 * number, dataset=DATASET, config=_config(seed), parents=parents,
        variant=method,
        cell={"method": method, "seed": seed, "descriptors": 1.0, "gamma": gamma, "control": None},
        events=[RunStarted(run, "cell", 0), RunFinished(run)],
        result={"method": method, "seed": seed, "gamma": used, "sampler": "ddim, 50 steps" if guided else None,
                "means": {setting: 100 * correct.mean().item()}, "descriptors": 1.0, "control": None, "layout": "l"},
    )  # fmt: skip
    kept = {setting: correct, f"{setting}.answers": torch.tensor([answers], dtype=torch.int16)}
    save_tensors(folder / "model.safetensors", kept, {"kind": "cell"})


def _asked(test: tuple[Task, ...]) -> Iterator[tuple[Task, int]]:
    return ((task, label) for task in test for _, label in task.query)


def _answer(run: int, skill: int, place: int, task: Task, label: int) -> int:
    """The right one more often the more skill, up to a point: sums of small numbers in place of a model."""
    wrong = (7 * place + 3 * run) % 11 >= 4 + min(skill, 8 - skill)
    return (label + 1) % len(task.answers) if wrong else label
