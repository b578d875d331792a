"""`metavqa train`: the initialisation, the zoo, the generator and HyperLDM."""

from typing import Annotated

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
from metavqa_cli.cli.session import (
    DatasetOption,
    DeviceOption,
    ParentsOption,
    ResumeOption,
    SeedOption,
    finish,
    open_job,
)
from metavqa_cli.store.runs import Run

app = typer.Typer(no_args_is_help=True, help="Train the parts, in the order baseline, zoo, hvae, ldm.")
InitOption = Annotated[
    str | None, typer.Option("--init", metavar="RUN", help="Initialisation; the newest if not given.")
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="Passes over the training tasks.")]


def report(run: Run, format: FormatOption, json: bool) -> None:
    """Print what a finished run is and measured."""
    manifest = run.manifest()
    record = {"run": run.id, "kind": run.kind, "variant": manifest.get("variant"), "parents": manifest["parents"],
              "result": run.result()}  # fmt: skip
    console.emit(record, chosen_format(format, json))


@app.command()
def baseline(
    method: Annotated[str | None, typer.Option("--method", help="multitask, mnet-maml or mnet-fomaml.")] = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train an initialisation W for the base network (Algorithms 2 and 3)."""
    flags = {"baseline.method": method, "baseline.epochs": epochs, "seed": seed, "dataset.name": dataset,
             "runtime.device": device}  # fmt: skip
    session = open_job("baseline", preset, config, set, flags, force=force, resume=resume)
    from metavqa_cli.engine.ensure import ensured_dataset, finished_run
    from metavqa_cli.engine.pretrain import train_baseline

    finish(ensured_dataset(session, with_parents))
    report(finish(finished_run(session, train_baseline(session))), format, json)


@app.command()
def zoo(
    init: InitOption = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Fine-tune one classifier for every training task: what the paper's generator learns from."""
    flags = {"seed": seed, "dataset.name": dataset, "runtime.device": device}
    session = open_job("zoo", preset, config, set, flags, force=force, resume=resume)
    from metavqa_cli.engine.ensure import ensure_init, finished_run
    from metavqa_cli.engine.pretrain import build_zoo

    start = finish(ensure_init(session, init or _parent(resume, "init"), with_parents))
    report(finish(finished_run(session, build_zoo(session, start))), format, json)


@app.command()
def hvae(
    objective: Annotated[str | None, typer.Option("--objective", help="weights (the paper) or task.")] = None,
    init: InitOption = None,
    epochs: EpochsOption = None,
    latent: Annotated[int | None, typer.Option("--latent", help="Latent size.")] = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train the generator of weights: the paper's VAE of the zoo, or latents trained on the tasks' own loss."""
    flags = {"hvae.objective": objective, "hvae.latent": latent, "seed": seed, "dataset.name": dataset,
             "hvae.epochs": epochs, "task_latents.epochs": epochs, "runtime.device": device}  # fmt: skip
    session = open_job("hvae", preset, config, set, flags, force=force, resume=resume)
    from metavqa_cli.engine.ensure import ensure_init, ensure_zoo, finished_run
    from metavqa_cli.engine.generators import train_generator

    start = finish(ensure_init(session, init or _parent(resume, "init"), with_parents))
    finish(ensure_zoo(session, start, with_parents))
    report(finish(finished_run(session, train_generator(session, start))), format, json)


@app.command()
def ldm(
    gamma: Annotated[float | None, typer.Option("--gamma", help="Guidance scale; validated if not given.")] = None,
    on: Annotated[str | None, typer.Option("--on", help="Generator: hvae or weights (the paper's), or task.")] = None,
    generator: Annotated[str | None, typer.Option("--generator", metavar="RUN", help="A generator's run.")] = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train HyperLDM, which samples a generator's latents for a question (Algorithms 12 to 14)."""
    flags = {"ldm.gamma": gamma, "ldm.epochs": epochs, "seed": seed, "dataset.name": dataset, "runtime.device": device,
             "hvae.objective": "weights" if on == "hvae" else on}  # fmt: skip
    session = open_job("ldm", preset, config, set, flags, force=force, resume=resume)
    from metavqa_cli.engine.diffusion import train_ldm
    from metavqa_cli.engine.ensure import ensure_generator, finished_run

    parent = finish(ensure_generator(session, generator or _parent(resume, "generator"), with_parents))
    report(finish(finished_run(session, train_ldm(session, parent))), format, json)


def _parent(resume: str | None, role: str) -> str | None:
    """The parent of a run to be resumed."""
    from metavqa_cli.store import runs

    return str(runs.get(workspace(), resume).manifest()["parents"][role]) if resume else None
