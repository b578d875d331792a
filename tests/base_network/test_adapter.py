"""The functional forward equals a plain module, task by task; padding changes nothing."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from metavqa_cli.base_network.adapter import answer_logits, embed, initial_weights, task_accuracy, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from tests.base_network.examples import random_batch, random_weights

LAYOUT = WeightLayout(embed=8, hidden=4)
SCALE = 30.0


class Adapter(nn.Module):
    """The base network of one task as a module, with the factors of the NTK parametrisation written out."""

    def __init__(self, layout: WeightLayout, flat: Tensor) -> None:
        super().__init__()
        E, H = layout.embed, layout.hidden
        self.W1, self.W2 = nn.Linear(E, H).double(), nn.Linear(H, E).double()
        W1, W2, b1, b2 = flat.split([H * E, E * H, H, E])
        state = {"W1.weight": W1.view(H, E), "W2.weight": W2.view(E, H), "W1.bias": b1, "W2.bias": b2}
        self.load_state_dict(state)

    def forward(self, x: Tensor) -> Tensor:
        E, H = self.W1.in_features, self.W1.out_features
        hidden = torch.relu(x @ self.W1.weight.T / math.sqrt(E) + self.W1.bias)
        return F.normalize(x + hidden @ self.W2.weight.T / math.sqrt(H) + self.W2.bias, dim=-1)


def test_forward_equals_a_module_for_each_task() -> None:
    batch, weights = random_batch([5, 5, 5], [3, 3, 3], LAYOUT.embed), random_weights(3, LAYOUT.size)
    modules = torch.stack([Adapter(LAYOUT, flat)(x) for flat, x in zip(weights, batch.x, strict=True)])
    torch.testing.assert_close(embed(LAYOUT, weights, batch.x), modules)


def test_zero_weights_are_plain_clip() -> None:
    batch = random_batch([6, 6], [4, 4], LAYOUT.embed)
    logits = answer_logits(LAYOUT, torch.zeros(2, LAYOUT.size, dtype=torch.float64), batch, SCALE)
    torch.testing.assert_close(logits, SCALE * batch.x @ batch.answers.mT)


def test_loss_and_accuracy_equal_those_of_each_task_alone() -> None:
    sizes, answers = [7, 2, 5], [2, 5, 3]
    batch, weights = random_batch(sizes, answers, LAYOUT.embed), random_weights(3, LAYOUT.size)
    logits = answer_logits(LAYOUT, weights, batch, SCALE)
    for i, (n, a) in enumerate(zip(sizes, answers, strict=True)):
        alone = SCALE * Adapter(LAYOUT, weights[i])(batch.x[i, :n]) @ batch.answers[i, :a].T
        labels = batch.labels[i, :n]
        torch.testing.assert_close(logits[i, :n, :a], alone)
        torch.testing.assert_close(
            task_loss(logits, batch.labels, batch.example_mask)[i], F.cross_entropy(alone, labels).detach()
        )
        accuracy = (alone.argmax(-1) == labels).double().mean()
        torch.testing.assert_close(task_accuracy(logits, batch.labels, batch.example_mask)[i], accuracy)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_padding_changes_neither_losses_nor_gradients(shape: list[tuple[int, int]], padding: int, seed: int) -> None:
    sizes, answers = [n for n, _ in shape], [a for _, a in shape]
    weights = random_weights(len(shape), LAYOUT.size, seed).requires_grad_()
    losses, gradients = [], []
    for columns in (0, padding):
        batch = random_batch(sizes, answers, LAYOUT.embed, seed, padding=columns)
        loss = task_loss(answer_logits(LAYOUT, weights, batch, SCALE), batch.labels, batch.example_mask)
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.sum(), weights)[0])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_padded_rows_keep_both_derivatives_finite_at_zero_weights() -> None:
    batch = random_batch([1, 4], [1, 3], LAYOUT.embed, padding=2)
    weights = torch.zeros(2, LAYOUT.size, dtype=torch.float64, requires_grad=True)
    loss = task_loss(answer_logits(LAYOUT, weights, batch, SCALE), batch.labels, batch.example_mask).sum()
    (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), weights)
    assert gradient.abs().sum() > 0
    assert torch.isfinite(second).all()


def test_initial_weights() -> None:
    layout = WeightLayout(embed=128, hidden=64)
    paper = initial_weights(layout, "paper", torch.Generator().manual_seed(3))
    near = initial_weights(layout, "near-clip", torch.Generator().manual_seed(3))
    for part in layout.unflatten(paper):
        assert abs(part.std() - 1) < 0.3
    W1, W2, b1, b2 = layout.unflatten(near)
    assert torch.equal(W1, layout.unflatten(paper).W1)
    assert not torch.cat([W2.flatten(), b1, b2]).any()
    x = F.normalize(torch.randn(1, 4, 128, generator=torch.Generator().manual_seed(4)), dim=-1)
    torch.testing.assert_close(embed(layout, near[None], x), x)
