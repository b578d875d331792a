"""`metavqa dataset build`, `info` and `export`: from a source to a dataset, its numbers, and back to files."""

from dataclasses import replace
from pathlib import Path
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
    from_home,
    workspace,
)
from metavqa_cli.cli.session import ClipOption, DeviceOption, open_session, sharing_cores
from metavqa_cli.engine.torchrun import place
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.ranges import shard_of

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a dataset in the workspace.")]
PathsOption = list[Path] | None


def build(
    source: Annotated[
        str | None,
        typer.Option("--source", help="scenes (built in), vqa2, hyperclip (the release), or folder (yours)."),
    ] = None,
    path: Annotated[
        Path | None, typer.Option("--path", help="Folder with the source's files; of `folder`, also the table itself.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the dataset in the workspace; by default the source's.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="hyperclip: more than 20 pairs a task; paper: at least 20.")
    ] = None,
    min_pairs: Annotated[int | None, typer.Option("--min-pairs", help="Smallest task kept.")] = None,
    min_answers: Annotated[int | None, typer.Option("--min-answers", help="Fewest answers of a task.")] = None,
    validation: Annotated[
        float | None, typer.Option("--validation", help="Share of the training tasks kept for validation.")
    ] = None,
    match: Annotated[str | None, typer.Option("--match", help="Only questions with this regular expression.")] = None,
    exclude: Annotated[str | None, typer.Option("--exclude", help="No questions with this one.")] = None,
    question_file: Annotated[
        PathsOption, typer.Option("--question-file", help="A VQA question file (JSON or zip); repeat, train first.")
    ] = None,
    annotation_file: Annotated[
        PathsOption, typer.Option("--annotation-file", help="Its annotation file; repeat in the same order.")
    ] = None,
    image_root: Annotated[
        PathsOption, typer.Option("--image-root", help="A folder or zip of images; may be repeated.")
    ] = None,
    tasks_only: Annotated[bool, typer.Option("--tasks-only", help="Stop before images and features.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that are missing or damaged, and their pairs.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Embed only this share of the images.")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", help="Number of images to draw (scenes).")] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Side of a drawn image in pixels (scenes).")
    ] = None,
    world_seed: Annotated[
        int | None, typer.Option("--world-seed", help="Seed of the splits, and of the world.")
    ] = None,
    clip: ClipOption = None,
    resize: Annotated[
        str | None, typer.Option("--resize", help="model (as it was trained), squash, crop or pad.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images that the encoder sees at once.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that decode images; 0: all cores.")
    ] = None,
    device: DeviceOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Make tasks from questions with images, and embed everything with CLIP. Goes on where it was interrupted."""
    form, mine = chosen_format(format, json), place()
    part = shard_of(shard) if shard or mine.size == 1 else (mine.rank + 1, mine.size)
    given: dict[str, Any] = {
        "source": source, "path": _absolute(path), "name": name or source, "protocol": protocol,
        "min_pairs": min_pairs, "min_answers": min_answers, "validation_fraction": validation, "match": match,
        "exclude": exclude, "question_files": _paths(question_file), "annotation_files": _paths(annotation_file),
        "image_roots": _paths(image_root), "tasks_only": tasks_only or None, "skip_broken": skip_broken or None,
        "images": images, "image_size": image_size, "seed": world_seed,
    }  # fmt: skip
    flags = {f"dataset.{key}": value for key, value in given.items()} | {
        "clip.model": clip, "clip.resize": resize, "clip.precision": precision, "runtime.image_batch": batch,
        "runtime.workers": workers, "runtime.device": device,
    }  # fmt: skip
    session = open_session(preset, config, set, flags, force=force, together=mine.met and not shard)
    session = replace(session, config=sharing_cores(session.config))
    from metavqa_cli.engine.build import build_dataset

    if mine.size > 1 and not (shard or force or tasks_only):
        console.narrate(f"process {part[0]} of {part[1]}, as RANK and WORLD_SIZE say: each embeds its share")
    console.follow(build_dataset(session, part))
    if session.config.dataset.name in workspace().datasets():  # else other shards are still at work
        console.emit(describe(session.config.dataset.name), form)


def _absolute(path: Path | None) -> str | None:
    """The path from the root. ``UsageError`` for one that the dataset's record, which is UTF-8, cannot hold."""
    if path is None:
        return None
    found = str(from_home(path).absolute())
    try:
        found.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the path {found!r} is not UTF-8; rename it, or name a link to it") from None
    return found


def _paths(paths: PathsOption) -> list[str | None] | None:
    return [_absolute(path) for path in paths] if paths else None


def describe(name: str) -> dict[str, Any]:
    """The stable record of a dataset."""
    from metavqa_cli.engine.manifest import open_manifest

    path, manifest = open_manifest(workspace(), name)
    encoder = manifest["encoder"] or {}
    return {
        "dataset": name, "path": str(path), "source": manifest["recipe"]["dataset"].get("source", "scenes"),
        "fingerprint": manifest["fingerprint"], "encoder": encoder.get("model"), **manifest["summary"],
    }  # fmt: skip


def info(name: NameArgument = "scenes", format: FormatOption = "auto", json: JsonOption = False) -> None:
    """The counts of a dataset: tasks, pairs, images, answers, chance and majority."""
    console.emit(describe(name), chosen_format(format, json))


def export(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the files.")],
    kind: Annotated[
        str, typer.Option("--format", help="hyperclip: meta_train.json, meta_test.json and prompt_meta.json.")
    ] = "hyperclip",
    force: ForceOption = False,
) -> None:
    """Write the tasks of a dataset in the format of the paper's release."""
    if kind != "hyperclip":
        raise UsageError(f"there is no format {kind!r} to export to; the only one is hyperclip")
    from metavqa_cli.engine.export import export_release

    for path in export_release(workspace(), name, from_home(out), force):
        console.out(str(path))
