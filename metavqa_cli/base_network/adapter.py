"""f(x, W): the CLIP-Adapter evaluated from flat weights, for a batch of tasks at once (Appendix A.2)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from metavqa_cli.base_network.layout import AdapterWeights, WeightLayout
from metavqa_cli.tasks.batches import TaskBatch

EPS = 1e-12
"""Keeps the norm of padded rows (all zeros) and its first two derivatives finite."""


def embed(
    layout: WeightLayout, weights: Float[Tensor, "task params"], x: Float[Tensor, "task example embed"]
) -> Float[Tensor, "task example embed"]:
    """x + W2·relu(W1·x/√E + b1)/√H + b2, scaled to unit norm; the weights of task i see the examples of task i."""
    W1, W2, b1, b2 = layout.unflatten(weights)
    hidden = torch.baddbmm(b1[:, None], x, W1.mT, alpha=layout.embed**-0.5).relu()
    y = torch.baddbmm(x + b2[:, None], hidden, W2.mT, alpha=layout.hidden**-0.5)
    return y * (y.square().sum(-1, keepdim=True) + EPS).rsqrt()


def cosine_logits(
    embedded: Float[Tensor, "task example embed"], batch: TaskBatch, logit_scale: float
) -> Float[Tensor, "task example answer"]:
    """``logit_scale`` times the cosine with each answer; padded answers get -inf."""
    logits = logit_scale * torch.bmm(embedded, batch.answers.mT)
    return logits.masked_fill(~batch.answer_mask[:, None], -torch.inf)


def answer_logits(
    layout: WeightLayout, weights: Float[Tensor, "task params"], batch: TaskBatch, logit_scale: float
) -> Float[Tensor, "task example answer"]:
    """Logits of every answer of each task for each of its examples; padded answers get -inf."""
    return cosine_logits(embed(layout, weights, batch.x), batch, logit_scale)


def task_loss(
    logits: Float[Tensor, "task example answer"],
    labels: Int64[Tensor, "task example"],
    example_mask: Bool[Tensor, "task example"],
) -> Float[Tensor, " task"]:
    """Mean cross-entropy in nats over each task's real examples."""
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    return _masked_mean(losses, example_mask)


def task_accuracy(
    logits: Float[Tensor, "task example answer"],
    labels: Int64[Tensor, "task example"],
    example_mask: Bool[Tensor, "task example"],
) -> Float[Tensor, " task"]:
    """Top-1 accuracy, from 0 to 1, over each task's real examples."""
    return _masked_mean((logits.argmax(-1) == labels).to(logits.dtype), example_mask)


def initial_weights(
    layout: WeightLayout, init: Literal["near-clip", "paper"], generator: torch.Generator
) -> Float[Tensor, " params"]:
    """Weights to start from: all N(0, 1) (``paper``), or W1 ~ N(0, 1) and the rest 0, which is plain CLIP."""
    W = torch.randn(layout.size, generator=generator, device=generator.device)
    if init == "paper":
        return W
    W1, W2, b1, b2 = layout.unflatten(W)
    return layout.flatten(AdapterWeights(W1, W2.zero_(), b1.zero_(), b2.zero_()))


def _masked_mean(values: Float[Tensor, "task example"], mask: Bool[Tensor, "task example"]) -> Float[Tensor, " task"]:
    return (values * mask).sum(-1) / mask.sum(-1).clamp_min(1)
