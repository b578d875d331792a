"""What a person asks for, checked before anything heavy is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.samplers import Sampler

MAX_QUESTION = 2_000  # characters
MAX_ANSWERS = 1_000


@dataclass(frozen=True)
class Request:
    """A typed question and the choices that go with it; None means "derive it". ``samples`` latents are averaged
    (none: as many as configured), drawn by ``sampler`` with ``steps`` denoising steps (ddpm always takes all)."""

    question: str
    answers: Sequence[str] | None = None
    template: str | None = None
    gamma: float | None = None
    seed: int = 0
    samples: int | None = None
    sampler: Sampler | None = None
    steps: int | None = None


def check_question(question: str) -> str:
    """The question without needless space. ``UsageError`` when it is empty or absurdly long."""
    text = " ".join(question.split())
    if not text:
        raise UsageError("the question is empty; type one, for example: metavqa ask 'What color is the car?' photo.png")
    if len(text) > MAX_QUESTION:
        raise UsageError(
            f"the question has {len(text):,} characters, more than {MAX_QUESTION:,}; ask one short question"
        )
    return text


def check_gamma(gamma: float) -> float:
    """A finite, non-negative guidance scale, or ``UsageError``."""
    if not 0 <= gamma < float("inf"):
        raise UsageError(
            f"gamma is {gamma}, but must be a number from 0 up: 0 ignores the question, 1 is plain guidance"
        )
    return gamma


def check_answers(answers: Sequence[str]) -> tuple[str, ...]:
    """Stripped, without repetitions. ``UsageError`` when fewer than two, or far too many, are left."""
    kept = tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
    if len(kept) < 2:
        found = ", ".join(map(repr, kept)) or "none"
        raise UsageError(
            f"a classifier needs at least two different answers, found {found}; name them: --answers red,blue"
        )
    if len(kept) > MAX_ANSWERS:
        raise UsageError(f"{len(kept)} answers are more than {MAX_ANSWERS}; name fewer with --answers")
    return kept
