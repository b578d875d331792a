"""`metavqa quickstart`: the whole story on the built-in world, each step also a command of its own."""

import shlex
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metavqa_cli.engine.ask import Answer, Asker, embed_files
from metavqa_cli.engine.baselines import train_baseline
from metavqa_cli.engine.build import build_dataset
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.diffusion import train_ldm
from metavqa_cli.engine.ensure import GENERATED, finished_run, on_generator, with_method
from metavqa_cli.engine.evaluate import evaluate
from metavqa_cli.engine.generators import VARIANTS, train_generator
from metavqa_cli.engine.request import Request
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.zoo import build_zoo
from metavqa_cli.schema.events import Event
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.taskset import Task

ASKED_FAMILIES = ("color_kind", "count_kind", "pattern_kind")
IMAGES_ASKED = 3


@dataclass(frozen=True)
class Story:
    """What quickstart leads to: the evaluation's result, the runs, and three answered held-out questions."""

    result: dict[str, Any]
    models: dict[str, Run]
    asked: list[tuple[Task, list[str], Answer]]  # task, true answers of the images, what was answered


def quickstart(session: Session) -> Generator[Event, None, Story]:
    """Build, train both generators and their HyperLDMs, evaluate, and ask; finished steps are reused."""
    yield from build_dataset(session)
    start = with_method(session, session.config.zoo.init)
    init = yield from finished_run(start, train_baseline(start))
    yield from finished_run(session, build_zoo(session, init))
    models: dict[str, Run] = {}
    for on in GENERATED:
        chosen = on_generator(session, on)
        generator = yield from finished_run(chosen, train_generator(chosen, init))
        models[VARIANTS[on][1]] = yield from finished_run(session, train_ldm(session, generator))
    measured = yield from finished_run(session, evaluate(session, list(models.values())))
    return Story(measured.result() or {}, models, ask_held_out(session, models["task"]))


def ask_held_out(session: Session, model: Run) -> list[tuple[Task, list[str], Answer]]:
    """Three held-out questions, each about image files of its own query set."""
    asker, dataset = Asker(session, model), open_dataset(session.workspace, session.config.dataset.name)
    asked = []
    for task in held_out_tasks(dataset.tasks.of("test")):
        examples = task.query[:: max(1, len(task.query) // IMAGES_ASKED)][:IMAGES_ASKED]
        paths = [dataset.image_path(image) for image, _ in examples]
        request = Request(task.question, answers=task.answers, template=task.template, seed=session.config.seed)
        answer = asker.ask(request, [str(path) for path in paths], embed_files(asker.encoder, paths))
        asked.append((task, [task.answers[label] for _, label in examples], answer))
    return asked


def held_out_tasks(tasks: Sequence[Task]) -> list[Task]:
    """One test task from each of the asked families; any others where a small world lacks one."""
    chosen = [next((t for t in tasks if t.family == family), None) for family in ASKED_FAMILIES]
    found = [task for task in chosen if task is not None]
    return (found + [task for task in tasks if task not in found])[: len(ASKED_FAMILIES)]


def equivalent_commands(session: Session, options: Sequence[str]) -> list[str]:
    """The commands that do the same step by step, each with ``options``."""
    commands = [
        ["dataset", "build"],
        ["train", "baseline", "--method", session.config.zoo.init],
        ["train", "zoo"],
    ]
    for on in GENERATED:
        commands += [["train", "hvae", "--objective", VARIANTS[on][1]], ["train", "ldm", "--on", on]]
    return [shlex.join(["metavqa", *command, *options]) for command in [*commands, ["eval"]]]


def next_commands(story: Story, folder: Path, options: Sequence[str]) -> list[str]:
    """Three things to try next, each with ``options``."""
    task, _, answer = story.asked[0]
    commands = [
        ["ask", "What color is the balloon?", str(folder / "images" / "000"), "--limit", "4"],
        ["generate", task.question, "--answers", ",".join(task.answers[:3]), "-o", "classifier.safetensors"],
        ["predict", "classifier.safetensors", answer.judgements[0].image],
    ]
    return [shlex.join(["metavqa", *command, *options]) for command in commands]
