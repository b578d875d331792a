"""The way of the published code, as a reference: one task at a time, a DataLoader over dicts, one call a step.

Written afresh after the authors' release: a task is a ``Dataset`` whose items are dicts with the image's features, the
features of all answers and the label; every inner step goes through its ``DataLoader`` again; the adapter works on one
task's named weights by autograd; batches of the HVAE and of HyperCLIP are filled row by row while every task's
accuracies are measured; and every diffusion step of every task calls the denoiser by itself, twice when guided.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from metavqa_cli.base_network.adapter import EPS
from metavqa_cli.base_network.layout import AdapterWeights, WeightLayout
from metavqa_cli.guidance.schedule import Schedule
from metavqa_cli.tasks.batches import TaskBatch

SCALE = 100.0
Weights = dict[str, Tensor]


class TaskItems(Dataset[dict[str, Any]]):
    """The examples of one task."""

    def __init__(self, images: dict[str, Tensor], answers: Tensor, pairs: Sequence[tuple[str, int]]) -> None:
        self.images, self.answers, self.pairs = images, answers, pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, label = self.pairs[index]
        return {"image_features": self.images[name], "text_features": self.answers, "label": label}


def loaders(batch: TaskBatch) -> list[DataLoader[dict[str, Any]]]:
    """A loader for the real examples of each task of a padded batch."""
    found = []
    for i in range(batch.n_tasks):
        places = batch.example_mask[i].nonzero()[:, 0].tolist()
        images = {str(place): batch.x[i, place] for place in places}
        pairs = [(str(place), int(batch.labels[i, place])) for place in places]
        items = TaskItems(images, batch.answers[i, batch.answer_mask[i]], pairs)
        found.append(DataLoader(items, batch_size=1024, shuffle=True))
    return found


def predict(weights: Weights, loader: DataLoader[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Logits and labels of all examples of a task."""
    outputs, labels = [], []
    for sample in loader:
        x, texts = sample["image_features"][:, None], sample["text_features"]
        hidden = F.relu(F.linear(x, weights["W1"] / x.shape[-1] ** 0.5, weights["b1"]))
        y = F.linear(hidden, weights["W2"] / hidden.shape[-1] ** 0.5, weights["b2"]) + x
        y = y / (y.square().sum(-1, keepdim=True) + EPS).sqrt()
        texts = texts / texts.norm(dim=-1, keepdim=True)
        outputs.append((SCALE * y @ texts.mT).squeeze(1))
        labels.append(sample["label"])
    return torch.cat(outputs), torch.cat(labels)


def accuracy(weights: Weights, loader: DataLoader[dict[str, Any]]) -> float:
    """Share of right answers."""
    with torch.no_grad():
        outputs, labels = predict(weights, loader)
    return float((outputs.argmax(1) == labels).float().mean())


def named(layout: WeightLayout, W: Tensor) -> Weights:
    """The parts of one flat vector."""
    return dict(zip(AdapterWeights._fields, layout.unflatten(W), strict=True))


def adapt(
    layout: WeightLayout, W: Tensor, loader: DataLoader[dict[str, Any]], steps: int, lr: float, second: bool = False
) -> Weights:
    """One task's weights after its inner loop; ``second`` keeps the graph of every step."""
    weights = named(layout, W)
    if not second:
        weights = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    for _ in range(steps):
        outputs, labels = predict(weights, loader)
        loss = F.cross_entropy(outputs, labels)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=second)
        weights = {name: value - lr * g for (name, value), g in zip(weights.items(), gradients, strict=True)}
    return weights


def zoo(layout: WeightLayout, W: Tensor, support: TaskBatch, steps: int, lr: float) -> Tensor:
    """Weights [task, P] of every task of a batch, one after the other."""
    adapted = [adapt(layout, W, loader, steps, lr) for loader in loaders(support)]
    return torch.stack([layout.flatten(AdapterWeights(**weights)) for weights in adapted]).detach()


def meta_gradient(
    layout: WeightLayout, W: Tensor, support: TaskBatch, query: TaskBatch, steps: Sequence[int], lr: float,
    measured: bool,
) -> Tensor:  # fmt: skip
    """MAML's gradient [P] for one meta-batch: tasks add theirs up. As released, each is ``measured`` four times."""
    total = torch.zeros_like(W)
    for task, (inner, outer) in enumerate(zip(loaders(support), loaders(query), strict=True)):
        point = W.detach().clone().requires_grad_()
        adapted = adapt(layout, point, inner, steps[task], lr, second=True)
        for weights in (named(layout, W), adapted) if measured else ():
            accuracy(weights, inner)
            accuracy(weights, outer)
        outputs, labels = predict(adapted, outer)
        (gradient,) = torch.autograd.grad(F.cross_entropy(outputs, labels), point)
        total += gradient
    return total / support.n_tasks


@dataclass
class Measured:
    """What is measured of every task when its weights enter a batch: accuracies before and after, on both sets."""

    layout: WeightLayout
    initial: Weights
    support: list[DataLoader[dict[str, Any]]]
    query: list[DataLoader[dict[str, Any]]]

    def __call__(self, task: int, W: Tensor) -> None:
        for weights in (self.initial, named(self.layout, W)):
            accuracy(weights, self.support[task])
            accuracy(weights, self.query[task])


def epoch(
    rows: Sequence[int],
    batch: int,
    weights: Tensor,
    step: Callable[[Tensor, list[int]], float],
    measured: Callable[[int, Tensor], None] | None,
) -> list[float]:
    """Losses of one pass over tasks: each is measured, its weights [P] fill a batch, and full batches are learned."""
    losses, held, members = [], torch.zeros(batch, weights.shape[1]), list[int]()
    for task in rows:
        if measured is not None:
            measured(task, weights[task])
        held[len(members)] = weights[task]
        members.append(task)
        if len(members) == batch:
            losses.append(step(held, members))
            members = []
    return losses


@torch.no_grad()
def sample(denoiser: nn.Module, schedule: Schedule, noise: Tensor, e: Tensor, gamma: float, last: int = 0) -> Tensor:
    """DDPM for one task: ``noise`` [T + 1, L], its question e [E]; down to time ``last``."""
    z, e = noise[:1], e[None]
    alphas, bars = schedule.alphas.tolist(), [*schedule.alphas_cumprod.tolist(), 1.0]
    for k, t in enumerate(reversed(range(last, schedule.T))):
        at = torch.full((1,), t)
        eps = (1 - gamma) * denoiser(z, at, torch.zeros_like(e)) + gamma * denoiser(z, at, e)
        sigma = ((1 - alphas[t]) * (1 - bars[t - 1]) / (1 - bars[t])) ** 0.5
        z = (z - (1 - alphas[t]) / (1 - bars[t]) ** 0.5 * eps) / alphas[t] ** 0.5 + sigma * noise[k + 1]
    return z[0]
