"""`metavqa dataset`: build, describe and look into datasets."""

from typing import Annotated, Any

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.options import (
    ConfigOption,
    ForceOption,
    FormatOption,
    JsonOption,
    PresetOption,
    SetOption,
    chosen_format,
    workspace,
)
from metavqa_cli.cli.session import ClipOption, DeviceOption, open_session
from metavqa_cli.schema.errors import MissingError, UsageError

app = typer.Typer(no_args_is_help=True, help="Build, describe and look into datasets.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a dataset in the workspace.")]
SHOW_COLUMNS = ("question", "split", "family", "novelty", "answers", "support", "query")


@app.command()
def build(
    source: Annotated[
        str | None, typer.Option("--source", help="Where images and questions come from: scenes.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the dataset in the workspace.")] = None,
    images: Annotated[int | None, typer.Option("--images", help="Number of images to draw.")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Side of an image in pixels.")] = None,
    world_seed: Annotated[int | None, typer.Option("--world-seed", help="Seed of the world and its splits.")] = None,
    clip: ClipOption = None,
    device: DeviceOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Draw the images, cut the tasks, and embed everything with CLIP. Goes on where an interrupted build stopped."""
    flags = {
        "dataset.source": source, "dataset.name": name, "dataset.images": images, "dataset.image_size": image_size,
        "dataset.seed": world_seed, "clip.model": clip, "runtime.device": device,
    }  # fmt: skip
    session = open_session(preset, config, set, flags, force=force)
    from metavqa_cli.engine.build import build_dataset

    console.follow(build_dataset(session))
    console.emit(describe(session.config.dataset.name), chosen_format(format, json))


def describe(name: str) -> dict[str, Any]:
    """The stable record of a dataset."""
    from metavqa_cli.engine.manifest import open_manifest

    path, manifest = open_manifest(workspace(), name)
    return {
        "dataset": name, "path": str(path), "fingerprint": manifest["fingerprint"],
        "encoder": manifest["encoder"]["model"], **manifest["summary"],
    }  # fmt: skip


@app.command()
def info(name: NameArgument = "scenes", format: FormatOption = "auto", json: JsonOption = False) -> None:
    """The counts of a dataset: tasks, pairs, images, answers, chance and majority."""
    console.emit(describe(name), chosen_format(format, json))


@app.command()
def ls(format: FormatOption = "auto", json: JsonOption = False) -> None:
    """List the datasets of the workspace."""
    found = workspace().datasets()
    if not found:
        console.narrate(f"no datasets in {workspace().root}; `metavqa dataset build` makes one")
    keys = ("dataset", "tasks", "train", "validation", "test", "images", "encoder")
    console.emit([{key: describe(name)[key] for key in keys} for name in found], chosen_format(format, json), keys)


@app.command()
def show(
    name: NameArgument = "scenes",
    question: Annotated[str | None, typer.Option("--question", help="Show this task with its images.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only train, validation or test tasks.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Only tasks of this question family.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most tasks to list; 0 lists all.")] = 20,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """List the tasks of a dataset, or show one with its answers and images."""
    from metavqa_cli.engine.manifest import open_manifest
    from metavqa_cli.tasks.taskset import load_tasks

    path, _ = open_manifest(workspace(), name)
    tasks = [
        t for t in load_tasks(path / "tasks.jsonl").tasks if split in (None, t.split) and family in (None, t.family)
    ]
    form = chosen_format(format, json)
    if question is not None:
        console.emit(_one(path, tasks, question), form)
        return
    if not tasks:
        raise UsageError(f"no task of dataset {name!r} has split {split} and family {family}; leave one of them out")
    rows = [
        {"question": t.question, "split": t.split, "family": t.family, "novelty": t.novelty,
         "answers": ", ".join(t.answers), "support": len(t.support), "query": len(t.query)}
        for t in (tasks[:limit] if limit else tasks)
    ]  # fmt: skip
    console.emit(rows, form, SHOW_COLUMNS)
    if len(rows) < len(tasks):
        console.narrate(f"{len(rows)} of {len(tasks)} tasks; --limit 0 shows all")


def _one(path: Any, tasks: list[Any], question: str) -> dict[str, Any]:
    from difflib import get_close_matches

    found = next((task for task in tasks if task.question == question), None)
    if found is None:
        near = get_close_matches(question, [task.question for task in tasks], n=1)
        raise MissingError(f"no task asks {question!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    pairs = {
        key: [[str(path / "images" / f"{image}.png"), found.answers[label]] for image, label in getattr(found, key)]
        for key in ("support", "query")
    }
    return {"question": found.question, "template": found.template, "split": found.split, "family": found.family,
            "novelty": found.novelty, "answers": list(found.answers), **pairs}  # fmt: skip
