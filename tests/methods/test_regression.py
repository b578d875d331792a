"""The regression is an MLP of √E·e, and its loss the mean squared error of a coordinate."""

import pytest
import torch
from torch import Tensor

from metavqa_cli.methods.regression import Regression, regression_loss
from tests.base_network.examples import random_weights
from tests.methods.test_cond_multitask import questions

EMBED, TARGET = 6, 3
E_TASKS, TARGETS = questions(20, EMBED), random_weights(20, TARGET)


def model() -> Regression:
    return Regression(EMBED, 16, TARGET, torch.Generator().manual_seed(0)).double()


def test_one_hidden_layer_sees_the_question_times_the_root_of_its_length() -> None:
    regression = model()
    (W1, b1), (W2, b2) = ((layer.weight, layer.bias) for layer in (regression.mlp[0], regression.mlp[2]))
    expected = (E_TASKS * 6**0.5 @ W1.T + b1).relu() @ W2.T + b2
    torch.testing.assert_close(regression.predict(E_TASKS), expected)
    assert W1.shape == (16, EMBED)
    assert len(regression.mlp) == 3


def test_a_prediction_depends_on_its_own_question_alone() -> None:
    regression = model()
    for i in range(3):
        torch.testing.assert_close(regression.predict(E_TASKS[i : i + 1])[0], regression.predict(E_TASKS)[i])


def test_the_loss_is_the_mean_squared_error_of_a_coordinate() -> None:
    regression = model()
    loss, metrics = regression_loss(regression, E_TASKS, TARGETS)
    errors = (regression.predict(E_TASKS).detach() - TARGETS).flatten().tolist()
    assert loss.item() == pytest.approx(sum(error**2 for error in errors) / (20 * TARGET))
    assert torch.equal(metrics["loss"], loss.detach())


def test_predicting_the_mean_of_standardised_targets_has_a_loss_of_one() -> None:
    regression = model()
    torch.nn.init.zeros_(regression.mlp[2].weight)
    standardised = (TARGETS - TARGETS.mean(0)) / TARGETS.std(0, correction=0)
    assert regression_loss(regression, E_TASKS, standardised)[0].item() == pytest.approx(1)


def test_every_parameter_changes_in_one_step_and_it_learns() -> None:
    regression = model()
    before = {name: p.detach().clone() for name, p in regression.named_parameters()}
    optimiser = torch.optim.Adam(regression.parameters(), lr=1e-2)

    def step() -> Tensor:
        optimiser.zero_grad()
        loss, _ = regression_loss(regression, E_TASKS, TARGETS)
        loss.backward()
        optimiser.step()
        return loss.detach()

    first = step()
    assert [name for name, p in regression.named_parameters() if torch.equal(p, before[name])] == []
    for _ in range(200):
        last = step()
    assert last < 0.2 * first


def test_parameters_come_from_the_generator_alone_and_a_state_fills_a_waiting_model() -> None:
    state = torch.get_rng_state()
    regression, waiting = model(), Regression(EMBED, 16, TARGET, None)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(regression.mlp[0].weight, model().mlp[0].weight)
    waiting.load_state_dict(regression.state_dict(), assign=True)
    assert torch.equal(waiting.predict(E_TASKS), regression.predict(E_TASKS))
