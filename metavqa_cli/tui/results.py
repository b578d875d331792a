"""What the room Ask asks the thread of ``asking`` for, and what comes back. Nothing here imports torch.

``propose`` and ``generate`` are works for ``Asking.submit``; the values they return can be kept and shown anywhere.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from metavqa_cli.engine.proposal import NEAREST, Neighbour, nearest_by_words, proposed_answers
from metavqa_cli.engine.request import Request, check_answers, check_gamma, check_question
from metavqa_cli.schema.errors import JobError, UsageError
from metavqa_cli.schema.samplers import SAMPLERS
from metavqa_cli.schema.text import neutral
from metavqa_cli.tasks.prompts import check_template, to_template
from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.asking import Checkpoint, sentence

if TYPE_CHECKING:
    from metavqa_cli.engine.ask import Answer, Asker
    from metavqa_cli.engine.judging import ImageCache

GAMMA_STEP = 0.25
MAX_SAMPLES, MAX_STEPS = 10_000, 100_000
FIELDS = ("gamma", "samples", "sampler", "steps", "seed")


@dataclass(frozen=True)
class Proposal:
    """What is known of a question before anything is generated. ``by_words``: by its spelling, not by the model."""

    question: str
    nearest: tuple[Neighbour, ...]
    answers: tuple[str, ...]
    template: str
    by_words: bool


@dataclass(frozen=True, eq=False)
class Result:
    """A generated classifier and how it judged ``files``; ``wrong`` are sentences about those that cannot be read."""

    request: Request
    answer: "Answer"
    files: tuple[Path, ...]
    wrong: tuple[str, ...]
    embedding_ms: float
    number: int = 0

    @property
    def gamma(self) -> float:
        return self.answer.classifier.gamma

    @property
    def run(self) -> str:
        return self.answer.classifier.runs["ldm"]

    @property
    def tops(self) -> dict[str, str]:
        """The first answer for each image."""
        return {judgement.image: judgement.ranked[0][0] for judgement in self.answer.judgements}

    @property
    def how(self) -> str:
        """What the classifier was drawn with."""
        made = self.answer.classifier
        sampler = made.sampler
        return (
            f"γ {made.gamma:g}, {sampler['sampler']} {sampler['steps']} steps, {sampler['samples']} "
            f"sample{'s' * (sampler['samples'] != 1)}, seed {made.seed}"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before trusting the answers, and which images were not judged."""
        return (*self.answer.warnings, *self.wrong)

    @property
    def times(self) -> str:
        """The time split, in milliseconds."""
        phases = {**({"images": self.embedding_ms} if self.files else {}), **self.answer.milliseconds}
        return ", ".join(f"{phase} {ms:.0f} ms" for phase, ms in phases.items())


def propose_by_words(question: str, tasks: Sequence[Task]) -> Proposal:
    """What the words of ``question`` tell, of the training questions among ``tasks``."""
    found = nearest_by_words(question, [task for task in tasks if task.split == "train"])
    near = tuple(Neighbour(task.question, similarity) for task, similarity in found)
    same = next((task for task in tasks if task.split == "train" and task.question == question.strip()), None)
    template = to_template(question).text if same is None else same.template
    return Proposal(question, near, tuple(proposed_answers([task for task, _ in found])), template, True)


def propose(asker: "Asker", checkpoint: Checkpoint, *, question: str) -> Proposal:
    """What the model tells of ``question``."""
    text = check_question(question)
    e = asker.encoder.encode_text([text])
    checkpoint()
    near, answers = asker.neighbours(e)
    return Proposal(question, tuple(near[:NEAREST]), tuple(answers), asker.template(text), False)


@cache
def image_cache() -> "ImageCache":
    """The embeddings of what was judged, for the thread that owns torch."""
    from metavqa_cli.engine.judging import ImageCache

    return ImageCache()


def generate(asker: "Asker", checkpoint: Checkpoint, *, request: Request, files: Sequence[Path]) -> Result:
    """A classifier for ``request``, tested on ``files``."""
    start = time.perf_counter()
    loaded = image_cache().load(asker.encoder, files, checkpoint)
    embedding_ms = round(1000 * (time.perf_counter() - start), 2)
    answer = asker.ask(request, loaded.names, loaded.x, before_step=checkpoint)
    return Result(request, answer, tuple(files), tuple(map(str, loaded.errors)), embedding_ms)


def defaults(asker: "Asker", checkpoint: Checkpoint) -> dict[str, str]:
    """What the run does where nothing is chosen, as it is typed."""
    sampling = asker.ldm.sampler.sampling
    steps = sampling.denoising_steps(asker.ldm.sampler.schedule.T)
    values = (f"{asker.ldm.gamma:g}", str(sampling.latents), sampling.sampler, str(steps), "0")
    return dict(zip(FIELDS, values, strict=True))


def save(result: Result, path: Path) -> Path | Exception:
    """Write the classifier of ``result`` to ``path``, over whatever is there; ``path``, or what kept it from that."""
    from metavqa_cli.engine.classifier import save_classifier

    try:
        save_classifier(result.answer.classifier, path)
        return path
    except Exception as error:
        return JobError(sentence(error))


def stepped(result: Result, typed: Mapping[str, str], what: str, direction: int) -> dict[str, str]:
    """The field, as it is typed, that changes γ by a quarter, the samples by a factor of two, or turns the sampler.

    From what is ``typed``, or what the result was made with where nothing is: keys may come faster than results.
    """
    made, chosen = result.answer.classifier, read_choices(typed)
    if what == "gamma":
        gamma = made.gamma if chosen["gamma"] is None else float(chosen["gamma"])
        return {"gamma": f"{max(0.0, gamma + direction * GAMMA_STEP):g}"}
    if what == "samples":
        samples = int(chosen["samples"] or made.sampler["samples"])
        return {"samples": str(max(1, min(MAX_SAMPLES, samples * 2 if direction > 0 else samples // 2)))}
    place = SAMPLERS.index(chosen["sampler"] or made.sampler["sampler"]) + direction
    return {"sampler": SAMPLERS[place % len(SAMPLERS)]}


def read_choices(typed: Mapping[str, str]) -> dict[str, float | int | str | None]:
    """γ, samples, sampler, steps and seed from what was typed for each; None for nothing. ``UsageError`` names one."""
    text = {name: typed.get(name, "").strip() for name in FIELDS}
    sampler = text["sampler"].lower() or None
    if sampler not in (None, *SAMPLERS):
        raise UsageError(f"the sampler is {text['sampler']!r}, but must be dpmpp_2m, ddim or ddpm")
    return {
        "gamma": None if not text["gamma"] else check_gamma(_number("gamma", text["gamma"], float)),
        "samples": _count("samples", text["samples"], 1, MAX_SAMPLES),
        "sampler": sampler,
        "steps": None if sampler == "ddpm" else _count("steps", text["steps"], 1, MAX_STEPS),
        "seed": _count("seed", text["seed"], 0, 2**63 - 1) or 0,
    }


def _number(name: str, text: str, kind: Callable[[str], float]) -> float:
    try:
        return kind(text.replace(",", "."))
    except ValueError:
        raise UsageError(f"{name} is {text!r}, but must be a number, for example 1.5") from None


def _count(name: str, text: str, least: int, most: int) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not least <= int(text) <= most:
        raise UsageError(f"{name} is {text!r}, but must be a whole number from {least} to {most:,}")
    return int(text)


def read_request(question: str, answers: str | None, template: str | None, typed: Mapping[str, str]) -> Request:
    """The request that was typed; None for answers or template that the model is to propose. ``UsageError`` else."""
    return Request(
        check_question(question),
        None if answers is None else check_answers(answers.split(",")),
        None if template is None else check_template(template),
        **read_choices(typed),  # type: ignore[arg-type]
    )


def command(result: Result, workspace: Path) -> list[str]:
    """The arguments of ``metavqa`` that give the same result. ``UsageError`` when no command line can."""
    request, made = result.request, result.answer.classifier
    asked = made.question if made.question != "-" else ""
    if not result.files or not asked:
        raise UsageError("there is no image to judge; choose some, or save the classifier and use metavqa predict")
    options = ["--workspace", str(workspace.absolute()), "ask", "--model", result.run, "--gamma", repr(made.gamma),
               "--samples", str(made.sampler["samples"]), "--sampler", str(made.sampler["sampler"])]  # fmt: skip
    if made.sampler["sampler"] != "ddpm":
        options += ["--steps", str(made.sampler["steps"])]
    options += ["--seed", str(made.seed), f"--template={made.template}"]
    if not any("," in answer for answer in made.answers):
        options.append(f"--answers={','.join(made.answers)}")
    elif request.answers is not None:
        raise UsageError("an answer has a comma, which --answers takes for the end of it; save the classifier instead")
    words = [asked, *map(str, result.files)]
    if any(neutral(word, one_line=True) != word for word in (*words, made.template, *made.answers, str(workspace))):
        raise UsageError("a name or the question has characters that no command line can hold; save the classifier")
    return [*options, *(["--"] if any(word.startswith("-") for word in words) else []), *words]


def file_name(result: Result) -> str:
    """A name for the file of a classifier: its question, as far as file systems like it."""
    words = "".join(letter if letter.isalnum() else " " for letter in result.answer.classifier.question.lower()).split()
    return f"{'-'.join(words)[:60] or 'classifier'}.safetensors"
