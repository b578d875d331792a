"""`metavqa quickstart`: the whole main job on the built-in world, in one command."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metavqa_cli.cli import console
from metavqa_cli.cli.answers import ranked
from metavqa_cli.cli.evaluate import print_rows
from metavqa_cli.cli.options import (
    ConfigOption,
    ForceOption,
    FormatOption,
    JsonOption,
    PresetOption,
    SetOption,
    chosen,
    chosen_format,
)
from metavqa_cli.cli.session import DeviceOption, PrecisionOption, SeedOption, finish, open_session
from metavqa_cli.engine.configuration import DEFAULT_PRESET

if TYPE_CHECKING:
    from metavqa_cli.engine.ask import Answer
    from metavqa_cli.engine.quickstart import Story
    from metavqa_cli.tasks.taskset import Task


def quickstart(
    preset: PresetOption = "tiny",
    seed: SeedOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Build, train, evaluate and ask on the built-in world. Steps that are done are found and not repeated."""
    start = time.monotonic()
    flags = {"seed": seed, "runtime.device": device, "runtime.precision": precision}
    session = open_session(preset, config, set, flags, force=force, together=True)
    from metavqa_cli.engine.quickstart import equivalent_commands, next_commands
    from metavqa_cli.engine.quickstart import quickstart as tell

    console.narrate(f"workspace {session.workspace.root}, device {session.device.type}. The same, step by step:")
    for command in equivalent_commands(session, _options(preset, config, set, flags)):
        console.narrate(f"  {command}")
    story = finish(tell(session))
    form = chosen_format(format, json)
    if form in ("json", "jsonl"):
        console.emit(as_record(story, time.monotonic() - start), form)
        return
    console.narrate("")
    print_rows(story.result, False, form)
    for task, truths, answer in story.asked:
        _show(task, truths, answer)
    console.narrate("")
    console.narrate(f"done in {time.monotonic() - start:.0f} s. Try next:")
    folder = session.workspace.dataset_dir(session.config.dataset.name)
    for command in next_commands(story, folder, _workspace_option()):
        console.narrate(f"  {command}")


def as_record(story: "Story", seconds: float) -> dict[str, Any]:
    """The story as stable JSON keys."""
    from metavqa_cli.engine.classifier import as_record as judgement_record

    asked = [
        {"question": task.question, "novelty": task.novelty,
         "images": [{**judgement_record(judgement), "truth": truth}
                    for judgement, truth in zip(answer.judgements, truths, strict=True)]}
        for task, truths, answer in story.asked
    ]  # fmt: skip
    runs = {name: run.id for name, run in story.models.items()}
    return {**story.result, "runs": runs, "asked": asked, "seconds": round(seconds, 1)}


def _options(preset: str, config: Path | None, sets: list[str] | None, flags: Mapping[str, Any]) -> list[str]:
    """What was typed, for commands that do a part of the same."""
    typed = [] if preset == DEFAULT_PRESET else ["--preset", preset]
    typed += [] if config is None else ["--config", str(config)]
    typed += [word for text in sets or () for word in ("--set", text)]
    typed += [word for key, value in flags.items() if value is not None
              for word in (f"--{key.rpartition('.')[2]}", str(value))]  # fmt: skip
    return [*typed, *_workspace_option()]


def _workspace_option() -> list[str]:
    return [] if chosen.root is None else ["--workspace", str(chosen.root)]


def _show(task: "Task", truths: list[str], answer: "Answer") -> None:
    """A held-out question, what was answered for each image, and what is true."""
    console.out("")
    console.out(f"{task.question}  (held out: new {task.novelty})")
    for judgement, truth in zip(answer.judgements, truths, strict=True):
        shown = ranked(judgement.ranked)
        console.out(f"  {judgement.image}: {shown}  [true: {truth}; zero-shot CLIP: {judgement.clip[0][0]}]")
