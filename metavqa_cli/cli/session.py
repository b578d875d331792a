"""From options to a session: what the commands that do work have in common."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.options import workspace
from metavqa_cli.engine.configuration import resolve_config
from metavqa_cli.engine.opening import own_config
from metavqa_cli.engine.torchrun import place
from metavqa_cli.schema.errors import UsageError

if TYPE_CHECKING:
    from metavqa_cli.engine.session import Session
    from metavqa_cli.schema.config import Config
    from metavqa_cli.schema.events import Event

T = TypeVar("T")

SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of training and sampling.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision", help="Of training and sampling: auto (bf16 on a GPU where it does no harm), fp32, bf16."
    ),
]
DatasetOption = Annotated[str | None, typer.Option("--dataset", help="Name of the dataset in the workspace.")]
ClipOption = Annotated[
    str | None, typer.Option("--clip", help="tiny, local-dir:DIR, hf-hub:REPO, or open_clip's MODEL/TAG or MODEL/FILE.")
]
ParentsOption = Annotated[bool, typer.Option("--with-parents", help="Also make whatever this is made from.")]
ResumeOption = Annotated[
    str | None,
    typer.Option("--resume", metavar="RUN", help="Go on with this unfinished run, with its own configuration."),
]
DeterministicOption = Annotated[
    bool | None,
    typer.Option("--deterministic/--no-deterministic", help="The same bits every time, by slower algorithms."),
]
OverrideOption = Annotated[
    bool,
    typer.Option("--override", help="With --resume: go on with the values that are given, and record that."),
]


def open_session(
    preset: str,
    config: Path | None,
    sets: Sequence[str] | None,
    flags: Mapping[str, Any],
    *,
    own: Mapping[str, Any] | None = None,
    force: bool = False,
    resume: str | None = None,
    override: bool = False,
    together: bool = False,
) -> "Session":
    """The session of a command. ``own`` is the configuration of the run that it is about; it beats the preset.

    With ``together``, the processes that torchrun started do the command as one: they meet here.
    """
    resolved = resolve_config(preset, config, sets, flags, resumed=own)
    from metavqa_cli.engine.session import Session, prepare_torch

    prepare_torch(resolved.config)
    session = Session(workspace(), resolved.config, force=force, resume=resume, override=override)
    _ = session.device  # one that is not there should be known before anything is made
    return _joined(session) if together and place().size > 1 else session


def _joined(session: "Session") -> "Session":
    """The session in the world of all processes: in the first one's configuration, and with one voice, its."""
    from metavqa_cli.engine.world import join
    from metavqa_cli.schema.config import Config

    world = join(session.device)
    if not world.first:
        console.only_errors(f"process {world.rank + 1} of {world.size}")
    values = world.decide(lambda: session.config.model_dump(mode="json"))
    return replace(session, config=sharing_cores(Config.model_validate(values)))


def sharing_cores(config: "Config") -> "Config":
    """The configuration in which each process of this machine decodes images with its share of the cores, unless their
    number is configured."""
    neighbours = place().local_size
    if config.runtime.workers or neighbours == 1:
        return config
    share = config.runtime.model_copy(update={"workers": max(1, (os.cpu_count() or 1) // neighbours)})
    return config.model_copy(update={"runtime": share})


def open_job(
    kind: str,
    preset: str,
    config: Path | None,
    sets: Sequence[str] | None,
    flags: Mapping[str, Any],
    *,
    force: bool = False,
    resume: str | None = None,
    override: bool = False,
) -> "Session":
    """The session of a job of ``kind`` on a dataset, in the dataset's own configuration if it is built.

    With ``resume`` in the configuration of that run. ``UsageError`` when something stronger contradicts the dataset's.
    """
    if override and resume is None:
        raise UsageError("--override changes the configuration of a run that goes on; name it with --resume RUN")
    if resume is None:
        recipe = _recipe(preset, config, sets, flags)
        return open_session(preset, config, sets, flags, own=recipe, force=force, together=True)
    if force:
        raise UsageError("--resume goes on with a run, --force begins another one; choose one of them")
    from metavqa_cli.store import runs

    run = runs.get(workspace(), resume)
    if run.kind != kind:
        raise UsageError(f"run {run.id} is of kind {run.kind}, not {kind}; resume it with `metavqa train {run.kind}`")
    return open_session(
        preset, config, sets, flags, own=own_config(run), resume=run.id, override=override, together=True
    )


def _recipe(
    preset: str, config: Path | None, sets: Sequence[str] | None, flags: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What the configured dataset was built with; None when it is not built. ``UsageError`` when told otherwise."""
    from metavqa_cli.engine.manifest import open_manifest
    from metavqa_cli.engine.site import await_entrance
    from metavqa_cli.schema.layers import flatten

    name = resolve_config(preset, config, sets, flags).config.dataset.name
    await_entrance(workspace().dataset_dir(name))
    if name not in workspace().datasets():
        return None
    whole = open_manifest(workspace(), name)[1]["recipe"]
    recipe: dict[str, Any] = {section: whole[section] for section in ("dataset", "clip")}
    resolved = resolve_config(preset, config, sets, flags, resumed=recipe)
    wanted = dict(flatten(resolved.config.model_dump(mode="json")))
    for key, built in flatten(recipe):
        if wanted.get(key) != built:
            raise UsageError(
                f"the dataset {name!r} was built with {key} = {built}, not {wanted.get(key)} (from "
                f"{resolved.origins[key]}); leave that out, or build another one: `metavqa dataset build --name NEW`"
            )
    return recipe


def finish(events: "Generator[Event, None, T]") -> T:
    """Show the progress of an engine verb and return what it returns."""
    returned: list[T] = []

    def passed() -> "Iterator[Event]":
        returned.append((yield from events))

    console.follow(passed())
    return returned[0]
