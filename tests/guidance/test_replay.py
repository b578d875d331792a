"""Replaying a recorded denoiser gives what calling it gives; recorded here by a stand-in for a CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metavqa_cli.guidance import replay
from metavqa_cli.guidance.hyperldm import Denoiser
from metavqa_cli.guidance.replay import Replayed, Work


class Recorder:
    """Like a graph, it repeats the work on the same memory and writes the result where it was the first time."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Work) -> tuple[Callable[[], object], Tensor]:
        result = work()
        self.recorded += 1

        def again() -> None:
            self.replayed += 1
            result.copy_(work())

        return again, result


def denoiser() -> Denoiser:
    made = Denoiser(4, 6, (16, 32), 8, torch.Generator().manual_seed(0))
    nn.init.normal_(made.out.weight, generator=torch.Generator().manual_seed(1))
    return made.requires_grad_(False)


def inputs(rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    e = nn.functional.normalize(torch.randn(rows, 6, generator=generator), dim=1)
    return torch.randn(rows, 4, generator=generator), torch.randint(50, (rows,), generator=generator), e


@torch.no_grad()
def test_what_is_replayed_is_what_would_have_been_called() -> None:
    plain, record = denoiser(), Recorder()
    replayed = Replayed(plain, record)
    assert replayed.latent == 4
    made = [(replayed(*inputs(rows, seed)), plain(*inputs(rows, seed))) for seed in range(3) for rows in (1, 2)]
    assert all(torch.equal(one, two) for one, two in made)  # none was overwritten by a later one
    assert (record.recorded, record.replayed) == (2, 6)
    plain.out.bias.add_(1.0)
    assert torch.equal(replayed(*inputs(2, 0)), plain(*inputs(2, 0)))


@torch.no_grad()
def test_large_batches_are_called_and_old_shapes_forgotten() -> None:
    record = Recorder()
    replayed = Replayed(denoiser(), record)
    replayed(*inputs(replay.ROWS + 1, 0))
    assert record.recorded == 0
    for rows in (1, 2, 3, 4, 5, 1):
        replayed(*inputs(rows, 0))
    assert record.recorded == 6 and len(replayed._graphs) == replay.SHAPES


def test_where_gradients_are_asked_for_or_nothing_can_be_recorded_it_is_called() -> None:
    plain, tries = denoiser(), []

    def refuses(work: Work) -> tuple[Callable[[], object], Tensor]:
        tries.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    replayed = Replayed(plain, refuses)
    z, t, e = inputs(2, 0)
    z.requires_grad_()
    assert replayed(z, t, e).requires_grad and not tries
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(replayed(z, t, e), plain(z, t, e))
    assert len(tries) == 1


@torch.no_grad()
def test_without_memory_to_record_in_it_is_called_and_recorded_another_time() -> None:
    plain, record, room = denoiser(), Recorder(), [False, True]

    def cramped(work: Work) -> tuple[Callable[[], object], Tensor]:
        if not room.pop(0):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return record(work)

    replayed = Replayed(plain, cramped)
    for _ in range(2):
        assert torch.equal(replayed(*inputs(2, 0)), plain(*inputs(2, 0)))
    assert record.recorded == 1
