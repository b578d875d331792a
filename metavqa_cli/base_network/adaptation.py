"""Inner loop: gradient descent on every task of a batch at once (the algorithm A of Eq. 2)."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metavqa_cli.tasks.transfer import to_device

Order = Literal["none", "first", "second"]


def inner_loop(
    loss_of: Callable[[Tensor], Tensor],
    start: Float[Tensor, "task params"],
    steps: int | Int64[Tensor, " task"],
    lr: float,
    order: Order = "none",
) -> Float[Tensor, "task params"]:
    """Weights, or latents, after plain gradient descent from ``start``.

    ``loss_of`` maps [task D] to the tasks' losses [task], of which the sum is differentiated, so that each task
    follows its own gradient whatever else is in the batch. With ``steps`` [task] (on the CPU, so that no GPU is waited
    for), a task stands still after its own count. ``order`` says what a later backward pass sees: "none" a constant,
    "first" the inner gradients as constants (FOMAML), "second" everything (MAML).
    """
    counts = torch.as_tensor(steps).cpu().expand(len(start))
    moving = to_device(torch.arange(int(counts.max()))[:, None] < counts, start.device) if len(counts) else ()
    point = start.detach() if order == "none" else start
    if order == "second" and not start.requires_grad:
        point = start.detach().requires_grad_()
    for those in moving:
        rate = lr * those.to(start.dtype)[:, None]
        point = torch.addcmul(point, _gradient(loss_of, point, order), rate, value=-1)
    return point


def _gradient(loss_of: Callable[[Tensor], Tensor], point: Tensor, order: Order) -> Tensor:
    with torch.enable_grad():
        at = point if order == "second" else point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(at).sum(), at, create_graph=order == "second")
    return gradient
