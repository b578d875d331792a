"""What was not finite, in words: which of loss, gradient, parameters and features, and in which tasks.

A step that failed is taken once more, for looking only: it is a function of its number. No other step pays for it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metavqa_cli.engine.precision import Arithmetic, computing
from metavqa_cli.engine.trainable import Trainable
from metavqa_cli.engine.world import World, here
from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.wording import some
from metavqa_cli.tasks.arena import Arena


class NotFinite(JobError):
    """Classifiers answer with NaN. Exit code 1."""


def bad_parameters(module: nn.Module) -> list[str]:
    """The names of the parameters that hold NaN or infinite values."""
    return [name for name, value in module.named_parameters() if not value.isfinite().all()]


def all_finite(module: nn.Module) -> bool:
    """Whether all parameters are finite; one wait for the device."""
    largest = torch._foreach_norm([*module.parameters()], torch.inf)
    return bool(torch.stack([value.detach() for value in largest]).isfinite().all())


def explain(trainable: Trainable[Any], step: int, generator: torch.Generator, how: Arithmetic) -> tuple[str, str]:
    """What was not finite in ``step``, with its tasks; and the way out, if it is known to be another than a lower rate.

    Called by all processes of the job, each of which looks at its share; the parameters are those before the step.
    """
    world, module, tasks = here(), trainable.module, trainable.tasks(step)
    if names := bad_parameters(module):
        return f"the parameter {some(names)} is not finite at step {step}{_of(tasks)}", ""
    if images := bad_images(tasks):
        return f"the features of {images} are not finite at step {step}{_of(tasks)}", REBUILD
    with computing(next(module.parameters()).device, how):
        loss, _ = trainable.loss(step, generator)
    whole, bad = float(world.summed(loss.detach().clone())), _shares(world, not loss.isfinite().all())
    if any(bad):
        concerned = tasks if world.size == 1 else tasks.select(_rows(world, bad, len(tasks)))
        return f"the loss is not finite at step {step} (loss {whole:.4g}){_of(concerned)}", ""
    named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    found = torch.autograd.grad(loss, [value for _, value in named], allow_unused=True)
    flags = torch.tensor([float(grad is not None and not grad.isfinite().all()) for grad in found])
    names = [name for (name, _), flag in zip(named, world.summed(flags).tolist(), strict=True) if flag]
    of = f" of {some(names)}" if names else ""
    return f"the gradient{of} is not finite at step {step} (loss {whole:.4g}){_of(tasks)}", ""


REBUILD = "build the dataset again with `metavqa dataset build --force`"


def _of(tasks: Arena) -> str:
    return f", whose batch has the tasks {some(tasks.questions)}"


def _shares(world: World, mine: bool) -> list[bool]:
    flags = torch.zeros(world.size)
    flags[world.rank] = float(mine)
    return [flag > 0 for flag in world.summed(flags).tolist()]


def _rows(world: World, chosen: Sequence[bool], n: int) -> Tensor:
    """The rows of a batch of ``n`` that the chosen processes compute."""
    shares = [World(rank, world.size).share(n).rows for rank in range(world.size)]
    return torch.cat([torch.arange(n)[rows] for rows, wanted in zip(shares, chosen, strict=True) if wanted]).unique()


def bad_images(tasks: Arena) -> str:
    """The images, or else the questions or answers, of ``tasks`` whose features are not finite; "" if all are."""
    batch = tasks.pairs.padded
    places = (~batch.x.isfinite().all(2) & batch.example_mask).nonzero().tolist()
    images = [[image for image, _ in (*task.support, *task.query)] for task in tasks.tasks]
    if places:
        return f"the images {some(list(dict.fromkeys(images[task][place] for task, place in places)))}"
    rows = [*tasks.e.isfinite().all(1).logical_not().nonzero().flatten().tolist(),
            *(~batch.answers.isfinite().all(2) & batch.answer_mask).any(1).nonzero().flatten().tolist()]  # fmt: skip
    return f"the question or answers of {some([tasks.questions[row] for row in rows])}" if rows else ""


def check_weights(weights: Tensor, questions: Sequence[str], what: str, way_out: str) -> None:
    """``JobError`` that names the questions whose ``weights`` [task, P] (or [1, P] for all) are not finite."""
    bad = weights.isfinite().all(1).logical_not()
    if bad.any():
        names = questions if len(weights) == 1 else [questions[row] for row in bad.nonzero().flatten().tolist()]
        found = f"{what} are not finite for {len(names)} of {len(questions)} tasks ({some(names)})"
        raise here().common(JobError(f"{found}; {way_out}"))
