"""`metavqa train`: the baselines, the zoo, the generators, and what guides them."""

from typing import TYPE_CHECKING, Annotated

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
    DeterministicOption,
    DeviceOption,
    OverrideOption,
    ParentsOption,
    PrecisionOption,
    ResumeOption,
    SeedOption,
    finish,
    open_job,
)
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run

if TYPE_CHECKING:
    from metavqa_cli.engine.session import Session

app = typer.Typer(
    no_args_is_help=True, help="Train the parts, in the order baseline, zoo, hvae, then hyperclip or ldm."
)
InitOption = Annotated[
    str | None, typer.Option("--init", metavar="RUN", help="Initialisation; the newest if not given.")
]
OnOption = Annotated[
    str | None, typer.Option("--on", help="Generator: hnet, hvae (both the paper's) or task (tasks' own loss).")
]
GeneratorOption = Annotated[str | None, typer.Option("--generator", metavar="RUN", help="A generator's run.")]
DescriptorsOption = Annotated[
    float | None, typer.Option("--descriptors", help="Share of the training questions that may be read, e.g. 0.5.")
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="Passes over the training tasks.")]


METHODS = "multitask, film, cond-multitask, mnet-maml, mnet-fomaml, hnet-maml or cond-hnet-maml."


def report(run: Run, format: FormatOption, json: bool) -> None:
    """Print what a finished run is and measured."""
    manifest = run.manifest()
    record = {"run": run.id, "kind": run.kind, "variant": manifest.get("variant"), "parents": manifest["parents"],
              "result": run.result()}  # fmt: skip
    console.emit(record, chosen_format(format, json))


@app.command()
def baseline(
    method: Annotated[str | None, typer.Option("--method", help=METHODS)] = None,
    epochs: EpochsOption = None,
    descriptors: DescriptorsOption = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    deterministic: DeterministicOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    override: OverrideOption = False,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train a baseline: Table 2 of the paper, Algorithms 2 to 7."""
    flags = {"baseline.method": method, "baseline.epochs": epochs, "questions.descriptors": descriptors, "seed": seed,
             "dataset.name": dataset,
             "runtime.device": device, "runtime.precision": precision,
             "runtime.deterministic": deterministic}  # fmt: skip
    session = open_job("baseline", preset, config, set, flags, force=force, resume=resume, override=override)
    from metavqa_cli.engine.baselines import train_baseline
    from metavqa_cli.engine.ensure import ensured_dataset, finished_run

    finish(ensured_dataset(session, with_parents))
    report(finish(finished_run(session, train_baseline(session))), format, json)


@app.command()
def zoo(
    init: InitOption = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    deterministic: DeterministicOption = None,
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
    flags = {
        "seed": seed,
        "dataset.name": dataset,
        "runtime.device": device,
        "runtime.precision": precision,
        "runtime.deterministic": deterministic,
    }
    session = open_job("zoo", preset, config, set, flags, force=force, resume=resume)
    from metavqa_cli.engine.ensure import ensure_init, finished_run
    from metavqa_cli.engine.zoo import build_zoo

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
    precision: PrecisionOption = None,
    deterministic: DeterministicOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    override: OverrideOption = False,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train the generator of weights: the paper's VAE of the zoo, or latents trained on the tasks' own loss."""
    flags = {"hvae.objective": objective, "hvae.latent": latent, "seed": seed, "dataset.name": dataset,
             "hvae.epochs": epochs, "task_latents.epochs": epochs,
             "runtime.device": device, "runtime.precision": precision,
             "runtime.deterministic": deterministic}  # fmt: skip
    session = open_job("hvae", preset, config, set, flags, force=force, resume=resume, override=override)
    from metavqa_cli.engine.ensure import ensure_init, ensure_zoo, finished_run
    from metavqa_cli.engine.generators import train_generator

    start = finish(ensure_init(session, init or _parent(resume, "init"), with_parents))
    if session.config.hvae.objective == "weights":
        finish(ensure_zoo(session, start, with_parents))
    report(finish(finished_run(session, train_generator(session, start))), format, json)


@app.command()
def hyperclip(
    on: OnOption = None,
    generator: GeneratorOption = None,
    epochs: EpochsOption = None,
    descriptors: DescriptorsOption = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    deterministic: DeterministicOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    override: OverrideOption = False,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train HyperCLIP, which finds the CLIP embedding of weights (Algorithms 1, 9 and 10)."""
    flags = {"hyperclip.epochs": epochs, "questions.descriptors": descriptors, "seed": seed, "dataset.name": dataset,
             "runtime.device": device, "runtime.precision": precision,
             "runtime.deterministic": deterministic}  # fmt: skip
    session = open_job("hyperclip", preset, config, set, flags, force=force, resume=resume, override=override)
    from metavqa_cli.engine.contrast import train_hyperclip
    from metavqa_cli.engine.ensure import finished_run

    parent = _generator(session, on, generator or _parent(resume, "generator"), with_parents)
    report(finish(finished_run(session, train_hyperclip(session, parent))), format, json)


@app.command()
def ldm(
    gamma: Annotated[float | None, typer.Option("--gamma", help="Guidance scale; validated if not given.")] = None,
    on: OnOption = None,
    generator: GeneratorOption = None,
    epochs: EpochsOption = None,
    descriptors: DescriptorsOption = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    deterministic: DeterministicOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    override: OverrideOption = False,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train HyperLDM, which samples a generator's latents for a question (Algorithms 12 to 14)."""
    flags = {"ldm.gamma": gamma, "ldm.epochs": epochs, "questions.descriptors": descriptors, "seed": seed,
             "dataset.name": dataset,
             "runtime.device": device, "runtime.precision": precision,
             "runtime.deterministic": deterministic}  # fmt: skip
    session = open_job("ldm", preset, config, set, flags, force=force, resume=resume, override=override)
    from metavqa_cli.engine.diffusion import train_ldm
    from metavqa_cli.engine.ensure import finished_run

    parent = _generator(session, on, generator or _parent(resume, "generator"), with_parents)
    report(finish(finished_run(session, train_ldm(session, parent))), format, json)


@app.command()
def regression(
    on: Annotated[
        str | None, typer.Option("--on", help="Latents of hnet, hvae or task, or weights of the zoo.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", metavar="RUN", help="A generator's or zoo's run.")] = None,
    epochs: EpochsOption = None,
    descriptors: DescriptorsOption = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    deterministic: DeterministicOption = None,
    with_parents: ParentsOption = False,
    resume: ResumeOption = None,
    override: OverrideOption = False,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train the control without diffusion: from the question straight to a latent, or to weights."""
    flags = {"regression.epochs": epochs, "questions.descriptors": descriptors, "seed": seed,
             "dataset.name": dataset,
             "runtime.device": device, "runtime.precision": precision,
             "runtime.deterministic": deterministic}  # fmt: skip
    session = open_job("regression", preset, config, set, flags, force=force, resume=resume, override=override)
    from metavqa_cli.engine.ensure import ensure_init, ensure_zoo, finished_run
    from metavqa_cli.engine.regression import train_regression

    chosen = target or _parent(resume, "target")
    if chosen is not None and runs.get(workspace(), chosen).kind == "zoo":
        parent = runs.get(workspace(), chosen)
    elif chosen is None and on == "zoo":
        parent = finish(ensure_zoo(session, finish(ensure_init(session, None, with_parents)), with_parents))
    else:
        parent = _generator(session, on, chosen, with_parents)
    report(finish(finished_run(session, train_regression(session, parent))), format, json)


def _generator(session: "Session", on: str | None, chosen: str | None, with_parents: bool) -> Run:
    """The chosen generator, or the one named ``on`` (``weights`` is another name of hvae), or the usual one."""
    from metavqa_cli.engine.ensure import ensure_generator, usual_generator
    from metavqa_cli.engine.generators import VARIANTS

    name = usual_generator(session) if on is None else "hvae" if on == "weights" else on
    if name not in VARIANTS:
        raise UsageError(f"there is no generator {on!r}; --on takes {', '.join(VARIANTS)}")
    return finish(ensure_generator(session, name, chosen, with_parents))


def _parent(resume: str | None, role: str) -> str | None:
    """The parent of a run to be resumed."""
    return str(runs.get(workspace(), resume).manifest()["parents"][role]) if resume else None
