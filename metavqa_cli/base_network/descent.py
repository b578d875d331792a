"""Gradient descent on the adapter's own weights, written out: ``inner_loop`` on its loss, several times as fast.

Two facts about f(x, W) = x + W2·relu(W1·x/√E + b1)/√H + b2 are used. W1 moves only in the span of the task's examples,
so its gradient is never formed: what the hidden units see follows from the examples' Gram matrix, and W1 itself is
written once, at the end. And gradients enter the other weights as they are made, in one product with accumulation,
where autograd writes, adds up and reads them again. Of the five large products of a step three are left, and the
weights of a task stay in a core's cache.

Shapes: T tasks, N examples, E embedding, H hidden units, K answers. A dot above a name in the comments (here ``_dot``)
is its change along a direction of the weights.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metavqa_cli.base_network.adaptation import Order, inner_loop
from metavqa_cli.base_network.adapter import EPS, answer_logits, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.transfer import to_device

CACHED = 10 * 2**20
"""Bytes of second layers and examples that a CPU works on at once. At 768-256-768 all of 128 tasks take 1.4 times as
long as ten at a time, at 128-32-128 a few at a time twice as long as two hundred."""


def adapted_weights(
    layout: WeightLayout,
    start: Float[Tensor, "task params"],
    batch: TaskBatch,
    steps: int | Int64[Tensor, " task"],
    lr: float,
    logit_scale: float,
    order: Order = "none",
) -> Float[Tensor, "task params"]:
    """Each task's weights after ``steps`` steps of plain gradient descent from ``start`` on its mean cross-entropy.

    What ``inner_loop`` gives for ``task_loss`` of ``answer_logits``, up to rounding; ``steps`` and ``order`` as there.
    A task that stands still costs nothing.
    """
    counts = [steps] * batch.n_tasks if isinstance(steps, int) else steps.tolist()
    with torch.autocast(start.device.type, enabled=False):  # sums of small steps need the weights' own precision
        if batch.x.shape[1] > 2 * layout.embed:  # the Gram matrix of so many costs more than W1's own products
            return inner_loop(lambda W: _losses(layout, W, batch, logit_scale), start, steps, lr, order)
        blocks = [_Block.of(layout, batch, tasks, counts, logit_scale) for tasks in _blocks(layout, batch, counts)]
        if order == "none":
            return _descended(start, blocks, lr, None)
        adapted: Tensor = _Descent.apply(start, blocks, lr, order)
        return adapted


def _blocks(layout: WeightLayout, batch: TaskBatch, counts: list[int]) -> list[list[int]]:
    """Tasks that are worked on together, those with the most steps first: on a CPU as many as its caches hold."""
    tasks = sorted(range(len(counts)), key=counts.__getitem__, reverse=True)
    held = batch.x.element_size() * layout.embed * (layout.hidden + batch.x.shape[1])
    together = max(1, CACHED // held) if batch.x.device.type == "cpu" else len(tasks)
    return [tasks[first : first + together] for first in range(0, len(tasks), together)]


def _losses(layout: WeightLayout, W: Tensor, batch: TaskBatch, logit_scale: float) -> Float[Tensor, " task"]:
    return task_loss(answer_logits(layout, W, batch, logit_scale), batch.labels, batch.example_mask)


def _where_on(change: Float[Tensor, "T N H"], u: Float[Tensor, "T N H"]) -> Float[Tensor, "T N H"]:
    """``change`` of what hidden units see where they are on, else 0; a product with a mask takes four times as long."""
    return torch.ops.aten.threshold_backward(change, u, 0)


@dataclass(frozen=True, eq=False)
class _Head:
    """The loss's gradient at one step, and what its change needs. With ŷ = r·y, r = 1/‖y‖, cos = A·ŷ, s the scale:

    p = softmax(s·cos), g = ∂loss/∂cos = s·(p − onehot)/n, ∂loss/∂y = r·(Aᵀg − (g·cos)·ŷ).
    """

    unit: Float[Tensor, "T N E"]
    r: Float[Tensor, "T N 1"]
    cos: Float[Tensor, "T N K"]
    p: Float[Tensor, "T N K"]
    g: Float[Tensor, "T N K"]
    along: Float[Tensor, "T N 1"]  # g·cos
    dy: Float[Tensor, "T N E"]


@dataclass(frozen=True, eq=False)
class _Step:
    """What a later backward pass needs of one step of the first ``len(u)`` tasks."""

    u: Float[Tensor, "T N H"]
    W2: Float[Tensor, "T E H"]
    head: _Head


@dataclass(frozen=True, eq=False)
class _Problem:
    """The losses of some tasks as functions of their weights; what no step changes."""

    layout: WeightLayout
    x: Float[Tensor, "T N E"]
    gram: Float[Tensor, "T N N"]  # x·xᵀ/E + 1, where the 1 is b1's
    answers: Float[Tensor, "T K E"]
    onehot: Float[Tensor, "T N K"]
    absent: Bool[Tensor, "T 1 K"]
    weight: Float[Tensor, "T N 1"]  # s/n for real examples, 0 for padding
    scale: float

    @classmethod
    def of(cls, layout: WeightLayout, batch: TaskBatch, scale: float) -> "_Problem":
        x, mask = batch.x, batch.example_mask
        gram = torch.baddbmm(x.new_ones(()), x, x.mT, alpha=1 / layout.embed)
        onehot = torch.zeros(*mask.shape, batch.answers.shape[1], dtype=x.dtype, device=x.device)
        onehot.scatter_(2, batch.labels[..., None], 1.0)
        weight = scale * mask.to(x.dtype) / mask.sum(1, keepdim=True).clamp_min(1)
        absent = ~batch.answer_mask[:, None]
        return cls(layout, x, gram, batch.answers, onehot, absent, weight[..., None], scale)

    def first(self, tasks: int) -> "_Problem":
        """The first ``tasks`` of them, as views."""
        if tasks == len(self.x):
            return self
        parts = {name: getattr(self, name)[:tasks] for name in ("x", "gram", "answers", "onehot", "absent", "weight")}
        return replace(self, **parts)

    def head(self, y: Float[Tensor, "T N E"]) -> _Head:
        """The gradient of each example's share of the loss at the adapter's outputs ``y``, which are overwritten."""
        r = (torch.linalg.vector_norm(y, dim=-1, keepdim=True).square_() + EPS).rsqrt_()
        unit = y.mul_(r)
        cos = torch.bmm(unit, self.answers.mT)
        p = (self.scale * cos).masked_fill_(self.absent, -torch.inf).softmax(-1)
        g = (p - self.onehot).mul_(self.weight)
        along = (g * cos).sum(-1, keepdim=True)
        dy = torch.baddbmm(unit * along, g, self.answers, beta=-1).mul_(r)
        return _Head(unit, r, cos, p, g, along, dy)

    def head_change(self, head: _Head, y_dot: Float[Tensor, "T N E"]) -> Float[Tensor, "T N E"]:
        """How ``head.dy`` changes when the outputs change by ``y_dot``, which is overwritten."""
        q = (head.unit * y_dot).sum(-1, keepdim=True)  # ṙ = −r²·q
        unit_dot = y_dot.addcmul_(head.unit, q, value=-1).mul_(head.r)
        cos_dot = torch.bmm(unit_dot, self.answers.mT)
        p_dot = head.p * cos_dot
        p_dot = (p_dot - head.p * p_dot.sum(-1, keepdim=True)).mul_(self.scale)
        g_dot = p_dot * self.weight
        along_dot = (g_dot * head.cos + head.g * cos_dot).sum(-1, keepdim=True)
        turned = unit_dot.mul_(head.along).addcmul_(head.unit, along_dot).addcmul_(head.dy, q)
        return torch.baddbmm(turned, g_dot, self.answers, beta=-1).mul_(head.r)

    @torch.no_grad()
    def descend(
        self, weights: Float[Tensor, "T params"], active: list[int], lr: float, tape: list[_Step] | None
    ) -> Float[Tensor, "T params"]:
        """``weights``, moved in place: step k moves the first ``active[k]`` tasks. Steps go onto ``tape``."""
        E, H = self.layout.embed**-0.5, self.layout.hidden**-0.5
        W1, W2, b1, b2 = self.layout.unflatten(weights)  # views: what is done to them is done to the weights
        pre = torch.baddbmm(b1[:, None], self.x, W1.mT, alpha=E)
        shifted, moved = self.x + b2[:, None], torch.zeros_like(pre)
        for n in active:
            part, u, W2_n = self.first(n), pre[:n].relu(), W2[:n]
            head = part.head(torch.baddbmm(shifted[:n], u, W2_n.mT, alpha=H))
            du = _where_on(torch.bmm(head.dy, W2_n), u)  # times H: ∂loss/∂pre
            if tape is not None:
                tape.append(_Step(u, W2_n.clone(), head))
            W2_n.baddbmm_(head.dy.mT, u, alpha=-lr * H)
            db2 = head.dy.sum(1)
            b2[:n].sub_(db2, alpha=lr)
            shifted[:n].sub_(db2[:, None], alpha=lr)
            moved[:n].add_(du)
            pre[:n].baddbmm_(part.gram, du, alpha=-lr * H)
        W1.baddbmm_(moved.mT, self.x, alpha=-lr * H * E)
        b1.sub_(moved.sum(1), alpha=lr * H)
        return weights

    @torch.no_grad()
    def ascend(self, gradient: Float[Tensor, "T params"], tape: list[_Step], lr: float) -> Float[Tensor, "T params"]:
        """∂/∂start of what has ``gradient`` at the end of the descent: v ← v − lr·(Hessian at step k)·v, backwards.

        Each Hessian times v is the change of the step's gradient along v, by the same products as the step itself.
        """
        E, H = self.layout.embed**-0.5, self.layout.hidden**-0.5
        v = gradient.clone(memory_format=torch.contiguous_format)
        V1, V2, v1, v2 = self.layout.unflatten(v)
        pre_dot = torch.baddbmm(v1[:, None], self.x, V1.mT, alpha=E)
        moved = torch.zeros_like(pre_dot)
        for step in reversed(tape):
            n = len(step.u)
            part, V2_n, dy = self.first(n), V2[:n], step.head.dy
            u_dot = _where_on(pre_dot[:n], step.u)
            y_dot = torch.baddbmm(v2[:n, None], u_dot, step.W2.mT, alpha=H).baddbmm_(step.u, V2_n.mT, alpha=H)
            dy_dot = part.head_change(step.head, y_dot)
            du_dot = _where_on(torch.bmm(dy_dot, step.W2).baddbmm_(dy, V2_n), step.u)
            V2_n.baddbmm_(dy_dot.mT, step.u, alpha=-lr * H).baddbmm_(dy.mT, u_dot, alpha=-lr * H)
            v2[:n].sub_(dy_dot.sum(1), alpha=lr)
            moved[:n].add_(du_dot)
            pre_dot[:n].baddbmm_(part.gram, du_dot, alpha=-lr * H)
        V1.baddbmm_(moved.mT, self.x, alpha=-lr * H * E)
        v1.sub_(moved.sum(1), alpha=lr * H)
        return v


@dataclass(frozen=True, eq=False)
class _Block:
    """Some tasks of a batch, those with the most steps first: ``active[k]`` of them take step k."""

    rows: Int64[Tensor, " T"]
    problem: _Problem
    active: list[int]

    @classmethod
    def of(cls, layout: WeightLayout, batch: TaskBatch, tasks: list[int], counts: list[int], scale: float) -> "_Block":
        rows = to_device(torch.tensor(tasks, dtype=torch.int64), batch.x.device)
        part = TaskBatch(*(getattr(batch, field.name)[rows] for field in fields(batch)))
        active = [sum(counts[task] > step for task in tasks) for step in range(counts[tasks[0]])]
        return cls(rows, _Problem.of(layout, part, scale), active)


def _descended(
    start: Float[Tensor, "task params"], blocks: list[_Block], lr: float, tapes: list[list[_Step]] | None
) -> Float[Tensor, "task params"]:
    """Where all tasks end; the steps of each block go onto a tape of its own."""
    end = torch.empty(start.shape, dtype=start.dtype, device=start.device)
    for block in blocks:
        tape: list[_Step] | None = None
        if tapes is not None:
            tapes.append(tape := [])
        end[block.rows] = block.problem.descend(start[block.rows].detach(), block.active, lr, tape)
    return end


class _Descent(torch.autograd.Function):
    """The descent with MAML's gradient, of the whole path from the start, or with FOMAML's, which is its end's."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, blocks: list[_Block], lr: float, order: Order) -> Tensor:
        ctx.blocks, ctx.lr, ctx.tapes = blocks, lr, [] if order == "second" else None
        return _descended(start, blocks, lr, ctx.tapes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.tapes is None:
            return gradient, None, None, None
        of_start = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        for block, tape in zip(ctx.blocks, ctx.tapes, strict=True):
            of_start[block.rows] = block.problem.ascend(gradient[block.rows], tape, ctx.lr)
        return of_start, None, None, None
