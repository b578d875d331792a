"""The written-out descent is the inner loop by autograd: its end, its first- and its second-order gradient."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metavqa_cli.base_network import descent
from metavqa_cli.base_network.adaptation import inner_loop
from metavqa_cli.base_network.adapter import answer_logits, task_loss
from metavqa_cli.base_network.descent import adapted_weights
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.tasks.batches import TaskBatch
from tests.base_network.examples import random_batch, random_weights

LAYOUT, SCALE, LR = WeightLayout(embed=6, hidden=4), 20.0, 0.05
BATCH = random_batch([5, 3, 9, 4], [3, 2, 4, 3], LAYOUT.embed, padding=2)
STEPS = [0, 7, torch.tensor([2, 0, 5, 3])]


def by_autograd(start: Tensor, batch: TaskBatch, steps: int | Tensor, order: str) -> Tensor:
    def loss_of(W: Tensor) -> Tensor:
        return task_loss(answer_logits(LAYOUT, W, batch, SCALE), batch.labels, batch.example_mask)

    return inner_loop(loss_of, start, steps, LR, order)  # type: ignore[arg-type]


def in_single(batch: TaskBatch) -> TaskBatch:
    return replace(batch, x=batch.x.float(), answers=batch.answers.float())


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", ["none", "first", "second"])
def test_it_ends_where_autograd_ends(steps: int | Tensor, order: str) -> None:
    start = random_weights(4, LAYOUT.size)
    found = adapted_weights(LAYOUT, start, BATCH, steps, LR, SCALE, order)  # type: ignore[arg-type]
    torch.testing.assert_close(found, by_autograd(start, BATCH, steps, order), rtol=1e-10, atol=1e-12)
    counts = torch.as_tensor(steps).expand(4)
    assert torch.equal(found[counts == 0], start[counts == 0])
    assert not (found[counts > 0] == start[counts > 0]).all(1).any()


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", ["first", "second"])
def test_what_depends_on_its_end_has_the_gradient_of_autograd(steps: int | Tensor, order: str) -> None:
    """Of any function of the end: here one that is no loss of the tasks, so that every direction is seen."""
    start, direction = random_weights(4, LAYOUT.size).requires_grad_(), random_weights(4, LAYOUT.size, seed=5)
    ends = (
        adapted_weights(LAYOUT, start, BATCH, steps, LR, SCALE, order),  # type: ignore[arg-type]
        by_autograd(start, BATCH, steps, order),
    )
    (found,), (expected,) = (torch.autograd.grad((end * direction).sin().sum(), start) for end in ends)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_the_second_order_gradient_is_that_of_finite_differences() -> None:
    """Its hidden units stay on one side of their kink over 1e-6."""
    batch = random_batch([3, 4], [2, 3], LAYOUT.embed)
    start = (0.3 * random_weights(2, LAYOUT.size)).requires_grad_()

    def end(W: Tensor) -> Tensor:
        return adapted_weights(LAYOUT, W, batch, torch.tensor([3, 1]), LR, SCALE, "second")

    assert torch.autograd.gradcheck(end, start, eps=1e-6, atol=1e-5)


def test_one_start_for_all_tasks_gets_the_sum_of_their_gradients() -> None:
    W = random_weights(1, LAYOUT.size)[0].requires_grad_()
    end = adapted_weights(LAYOUT, W.expand(4, -1), BATCH, STEPS[2], LR, SCALE, "second")
    (found,) = torch.autograd.grad(end.square().sum(), W)
    rows = W.detach().expand(4, -1).clone().requires_grad_()
    end = adapted_weights(LAYOUT, rows, BATCH, STEPS[2], LR, SCALE, "second")
    torch.testing.assert_close(found, torch.autograd.grad(end.square().sum(), rows)[0].sum(0))


def test_the_start_is_left_as_it_was_and_the_end_is_another_tensor() -> None:
    start = random_weights(4, LAYOUT.size)
    before = start.clone()
    end = adapted_weights(LAYOUT, start, BATCH, 3, LR, SCALE)
    assert torch.equal(start, before) and end.data_ptr() != start.data_ptr()


def test_a_task_of_very_many_examples_goes_the_other_way_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    many = random_batch([2 * LAYOUT.embed + 1, 5], [3, 2], LAYOUT.embed)
    start, calls = random_weights(2, LAYOUT.size), []
    monkeypatch.setattr(descent, "inner_loop", lambda *args: calls.append(len(args)) or inner_loop(*args))
    found = adapted_weights(LAYOUT, start, many, 4, LR, SCALE)
    assert calls
    direct = descent._Problem.of(LAYOUT, many, SCALE).descend(start.clone(), [2] * 4, LR, None)
    torch.testing.assert_close(found, direct, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cached", [1, 8 * LAYOUT.embed * (LAYOUT.hidden + 11) * 2])
@pytest.mark.parametrize("order", ["none", "first", "second"])
def test_how_many_tasks_are_worked_on_at_once_does_not_matter(
    cached: int, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time, and two."""
    start = random_weights(4, LAYOUT.size).requires_grad_()

    def end_and_gradient() -> tuple[Tensor, Tensor | None]:
        end = adapted_weights(LAYOUT, start, BATCH, STEPS[2], LR, SCALE, order)  # type: ignore[arg-type]
        return end.detach(), torch.autograd.grad(end.sin().sum(), start)[0] if end.requires_grad else None

    whole = end_and_gradient()
    monkeypatch.setattr(descent, "CACHED", cached)
    assert len(descent._blocks(LAYOUT, BATCH, [0] * 4)) == (4 if cached == 1 else 2)
    torch.testing.assert_close(end_and_gradient(), whole, rtol=1e-10, atol=1e-12)


def test_padding_and_other_tasks_do_not_matter() -> None:
    start = random_weights(4, LAYOUT.size)
    together = adapted_weights(LAYOUT, start, BATCH, 5, LR, SCALE)
    for i in range(4):
        alone = adapted_weights(LAYOUT, start[i : i + 1], BATCH.select(torch.tensor([i])), 5, LR, SCALE)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=1e-12)


def test_in_single_precision_fifty_steps_stay_at_those_in_double() -> None:
    """At the logit scale of the paper and from its initialisation, where autograd's own rounding is as large."""
    layout = WeightLayout(embed=48, hidden=16)
    batch = random_batch([20, 33], [4, 6], layout.embed)
    start = random_weights(2, layout.size)
    exact = adapted_weights(layout, start, batch, 50, 0.01, 100.0)
    single = adapted_weights(layout, start.float(), in_single(batch), 50, 0.01, 100.0)
    assert F.mse_loss(single.double(), exact) < 1e-6 * (exact - start).square().mean()


@pytest.mark.parametrize("most", [9, 2 * LAYOUT.embed + 1])
def test_under_autocast_it_keeps_the_weights_precision(most: int) -> None:
    """Either way it is computed: who else is in a batch does not change a task's precision."""
    batch = in_single(random_batch([5, 3, most, 4], [3, 2, 4, 3], LAYOUT.embed))
    start = random_weights(4, LAYOUT.size).float()
    plain = adapted_weights(LAYOUT, start, batch, 5, LR, SCALE)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(adapted_weights(LAYOUT, start, batch, 5, LR, SCALE), plain)
