"""`metavqa ask`, `generate` and `predict`: classifiers from typed questions."""

import io
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.answers import Printer, print_judgements, raise_for
from metavqa_cli.cli.options import (
    ConfigOption,
    ForceOption,
    FormatOption,
    JsonOption,
    PresetOption,
    SetOption,
    chosen_format,
    complete_run,
    workspace,
)
from metavqa_cli.cli.session import ClipOption, DatasetOption, DeviceOption, PrecisionOption, open_session
from metavqa_cli.engine.configuration import resolve_config
from metavqa_cli.engine.opening import named_ldm, newest_ldm, own_config
from metavqa_cli.schema.errors import BusyError, MetaVQAError, UsageError
from metavqa_cli.schema.samplers import Sampler

if TYPE_CHECKING:
    from metavqa_cli.engine.ask import Answer, Asker
    from metavqa_cli.engine.classifier import Classifier
    from metavqa_cli.engine.judging import Loaded
    from metavqa_cli.engine.request import Request

STDIN = "-"
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="RUN", autocompletion=complete_run, help="HyperLDM run; the newest if not given."),
]
AnswersOption = Annotated[
    str | None, typer.Option("--answers", help="Comma-separated answers; from similar training questions if not given.")
]
TemplateOption = Annotated[str | None, typer.Option("--template", help="Statement with {} for the answer.")]
GammaOption = Annotated[float | None, typer.Option("--gamma", help="Guidance scale; the run's own if not given.")]
SamplesOption = Annotated[
    int | None, typer.Option("--samples", min=1, max=10_000, help="Latents whose mean is decoded.")
]
SamplerOption = Annotated[
    Sampler | None,
    typer.Option("--sampler", help="dpmpp_2m, ddim or ddpm (all steps); as the run is configured if not given."),
]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps of dpmpp_2m or ddim.")]
SampleSeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the sampled latents.")]
ImagesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="IMAGE...", help="Image files, folders or patterns.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Judge at most so many images.")]


def ask(
    question: Annotated[str, typer.Argument(help="A question about images, or - to read questions from stdin.")],
    images: ImagesArgument = None,
    answers: AnswersOption = None,
    template: TemplateOption = None,
    gamma: GammaOption = None,
    samples: SamplesOption = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    seed: SampleSeedOption = 0,
    limit: LimitOption = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Also draw images and answers to this PNG file.")
    ] = None,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    clip: ClipOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Generate a classifier for a question and judge images with it. No labelled image is needed."""
    request = _request(question, answers, template, gamma, seed, many=question == STDIN)
    request = replace(request, samples=samples, sampler=sampler, steps=steps)
    if not images:
        raise UsageError("no image to judge; name files, folders or patterns after the question")
    _check_sheet(sheet, question, force)
    asker = _open_asker(preset, config, set, dataset, clip, device, precision, model)
    from metavqa_cli.engine.judging import load_images

    loaded = load_images(asker.encoder, images, limit)
    if not loaded.names:
        raise_for(loaded.errors, False)
    failed: Collection[type[MetaVQAError]] = ()
    answered = True
    with Printer(chosen_format(format, json), many=question == STDIN) as printer:
        if question == STDIN:
            failed, answered = _ask_each(asker, request, loaded, printer)
        else:
            answer = asker.ask(request, loaded.names, loaded.x)
            printer.show(answer)
            _draw(sheet, answer)
    raise_for(loaded.errors, answered, failed)


def _ask_each(
    asker: "Asker", request: "Request", loaded: "Loaded", printer: Printer
) -> tuple[set[type[MetaVQAError]], bool]:
    """Answer every line of stdin that is not blank; returns the kinds of errors, and whether any was answered.

    A question that cannot be answered does not stop the others. Its error is printed at once: whoever asked at a pipe
    waits for it as for an answer.
    """
    failed: set[type[MetaVQAError]] = set()
    number, answered = 0, False
    for number, text in enumerate(_lines(), 1):
        try:
            printer.show(asker.ask(replace(request, question=text), loaded.names, loaded.x))
            answered = True
        except MetaVQAError as error:
            console.fail(f"question {number}: {error}", error)
            failed.add(type(error))
    if not number:
        raise UsageError("there is no question on stdin; write one a line, or name one in place of -")
    return failed, answered


def _lines() -> Iterator[str]:
    if sys.stdin is None:  # closed by the shell
        return iter(())
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    return (line.strip() for line in sys.stdin if line.strip())


def _check_sheet(sheet: Path | None, question: str, force: bool) -> None:
    if sheet is not None and question == STDIN:
        raise UsageError("--sheet draws the answer to one question; name it in place of -")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet writes a PNG file, not {sheet.name!r}; give it a name that ends in .png")
    if sheet is not None and sheet.exists() and not force:
        raise BusyError(f"{sheet} exists; choose another --sheet, or replace it with --force")


def _draw(sheet: Path | None, answer: "Answer") -> None:
    if sheet is None:
        return
    from metavqa_cli.engine.sheet import write_sheet

    write_sheet(sheet, answer.classifier.question, answer.judgements)
    console.narrate(f"drawn to {sheet}")


def generate(
    question: Annotated[str, typer.Argument(help="A question about images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.safetensors).")],
    answers: AnswersOption = None,
    template: TemplateOption = None,
    gamma: GammaOption = None,
    samples: SamplesOption = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    seed: SampleSeedOption = 0,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    clip: ClipOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Generate a classifier for a question and keep it as one self-describing file."""
    request = _request(question, answers, template, gamma, seed)
    request = replace(request, samples=samples, sampler=sampler, steps=steps)
    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file in it with --output")
    if output.exists() and not force:
        raise BusyError(f"{output} exists; choose another --output, or replace it with --force")
    asker = _open_asker(preset, config, set, dataset, clip, device, precision, model)
    from metavqa_cli.engine.classifier import save_classifier

    answer = asker.ask(request)
    save_classifier(answer.classifier, output)
    for warning in answer.warnings:
        console.warn(warning)
    made = answer.classifier
    record = {
        "file": str(output), "bytes": output.stat().st_size, "question": made.question, "answers": list(made.answers),
        "template": made.template, "gamma": made.gamma, "seed": made.seed, "weights": made.layout.size,
        "runs": made.runs,
    }  # fmt: skip
    console.emit(record, chosen_format(format, json))


def predict(
    classifier: Annotated[Path, typer.Argument(help="A file that `metavqa generate` wrote.")],
    images: ImagesArgument = None,
    limit: LimitOption = None,
    clip: ClipOption = None,
    device: DeviceOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Judge images with a classifier file. Needs only the file and its CLIP model."""
    if not images:
        raise UsageError("no image to judge; name files, folders or patterns after the classifier")
    from metavqa_cli.engine.classifier import check_encoder, judge, load_classifier
    from metavqa_cli.engine.judging import load_images

    made = load_classifier(classifier)
    own = {"clip": {"model": clip or _clip_of(classifier, made)}}
    session = open_session(preset, config, set, {"clip.model": clip, "runtime.device": device}, own=own)
    check_encoder(made.encoder, session.encoder, f"the classifier {classifier}")
    loaded = load_images(session.encoder, images, limit)
    if loaded.names:
        judgements = judge(made, session.encoder, loaded.names, loaded.x)
        print_judgements(judgements, chosen_format(format, json))
    raise_for(loaded.errors, bool(loaded.names))


def _clip_of(path: Path, made: "Classifier") -> str:
    """The name of the CLIP model that the classifier was made with. ``UsageError`` when only its owner knows where."""
    name = str(made.encoder["model"])
    if name == "local-dir":
        raise UsageError(f"{path} was made with a CLIP model from a folder; name it with --clip local-dir:FOLDER")
    return name


def _open_asker(preset: str, config: Path | None, sets: list[str] | None, dataset: str | None,
                clip: str | None, device: str | None, precision: str | None, model: str | None) -> "Asker":  # fmt: skip
    """The chosen HyperLDM, loaded, in its own configuration and with its own CLIP model unless told otherwise."""
    if model is None:
        resolved = resolve_config(preset, config, sets, {"dataset.name": dataset})
        told = resolved.origins["dataset.name"] != "default"
        run = newest_ldm(workspace(), resolved.config, resolved.config.dataset.name if told else None)
    else:
        run = named_ldm(workspace(), model, dataset)
    flags = {"clip.model": clip, "runtime.device": device, "runtime.precision": precision}
    session = open_session(preset, config, sets, flags, own=own_config(run))
    from metavqa_cli.engine.ask import Asker

    return Asker(session, run)


def _request(
    question: str, answers: str | None, template: str | None, gamma: float | None, seed: int, many: bool = False
) -> "Request":
    """The request, checked before anything heavy is loaded; of ``many``, the questions are checked when they come."""
    from metavqa_cli.engine.request import Request, check_answers, check_gamma, check_question
    from metavqa_cli.tasks.prompts import check_template

    return Request(
        question=question if many else check_question(question),
        answers=None if answers is None else check_answers(answers.split(",")),
        template=None if template is None else check_template(template),
        gamma=None if gamma is None else check_gamma(gamma),
        seed=seed,
    )
