"""No training step waits for the card, whatever is trained: the host stays ahead of it."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from metavqa_cli.engine import loop
from metavqa_cli.engine.finite import Average, Finite
from metavqa_cli.engine.together import Alone
from metavqa_cli.guidance.schedule import Schedule
from metavqa_cli.tasks import transfer
from tests.card import OnCard, Waited, Watched, move, on_card
from tests.engine.test_loop import METHODS, make, plan
from tests.miniature import CPU


def with_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one way to the card; the schedule's factors go there once, before the first step."""

    def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
        assert not isinstance(tensor, OnCard)
        return on_card(tensor)

    monkeypatch.setattr(transfer, "copied", to_device)
    monkeypatch.setattr(loop, "computing", lambda device, how: nullcontext())
    real = Schedule.factors

    def factors(self: Schedule, like: Tensor) -> tuple[Tensor, Tensor]:
        signal, spread = real(self, torch.zeros((), dtype=like.dtype))
        return on_card(signal), on_card(spread)

    monkeypatch.setattr(Schedule, "factors", factors)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_does_not_wait_for_the_card(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training, how = make(method), plan(ema=0.9)
    with_card(monkeypatch)
    module: nn.Module = training.module
    finite, average = Finite(CPU), Average(module, how.ema)
    for thing in (training, average.module):
        move(thing)
    move(finite, lambda tensor: True)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    with Watched():
        for step in range(2):
            read = loop._step(Alone(training), optimizer, loop.clipping_groups(module, ()), how, finite, step)
            average.update_parameters(module)
    assert finite.found() is None
    assert read()["loss"] > 0
    with Watched(), pytest.raises(Waited, match="reads from the card"):
        read()


def test_the_stand_in_refuses_what_a_card_makes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch)
    here, there = torch.ones(3), on_card(torch.ones(3))
    waits = (
        lambda: there.sum().item(), lambda: float(there[0]), lambda: bool(there[0] > 0), lambda: there.tolist(),
        lambda: there.cpu(), lambda: there[there > 0], lambda: there.nonzero(), lambda: here.to(there),
        lambda: there + here, lambda: there[torch.tensor([0, 1])], lambda: here.to(there.device),
        lambda: int(there.max()), lambda: torch.where(there > 0),
    )  # fmt: skip
    with Watched():
        for wait in waits:
            with pytest.raises(Waited):
                wait()
        made = there * torch.arange(3, device=there.device) + torch.tensor(2.0)
        assert isinstance(made, OnCard) and isinstance(transfer.to_device(here, there.device), OnCard)
    assert made.tolist() == [2.0, 3.0, 4.0]
