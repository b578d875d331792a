"""How rows are divided among processes, which device each one has, and what is said of a missing one."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.engine import session, world
from metavqa_cli.engine.session import choose_device
from metavqa_cli.engine.torchrun import Place, place
from metavqa_cli.engine.world import LostProcess, World, is_lost, lost_text
from metavqa_cli.schema.errors import DeviceError, UsageError


@given(st.integers(1, 40), st.integers(1, 9))
def test_the_shares_of_all_processes_are_the_batch(n: int, size: int) -> None:
    shares = [World(rank, size).share(n) for rank in range(size)]
    rows = [row for share in shares if share.weight for row in range(n)[share.rows]]
    assert rows == list(range(n))
    assert sum(share.weight for share in shares) == pytest.approx(1)
    assert all(len(range(n)[share.rows]) >= 1 for share in shares)
    counts = [len(range(n)[World(rank, size).bounds(n)]) for rank in range(size)]
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 12), st.integers(1, 5))
def test_the_shares_of_a_mean_add_up_to_it(n: int, size: int) -> None:
    values = torch.arange(n, dtype=torch.float64).square()
    parts = [World(rank, size).share(n) for rank in range(size)]
    found = [share.of(values[share.rows].mean(), {"size": values[share.rows].mean()}) for share in parts]
    assert sum(loss.item() for loss, _ in found) == pytest.approx(values.mean().item())
    assert sum(metrics["size"].item() for _, metrics in found) == pytest.approx(values.mean().item())


def test_one_process_hears_itself() -> None:
    alone, rows = World(), torch.rand(3, 2)
    assert alone.first and alone.gathered(rows, 3) is rows and alone.summed(rows) is rows
    assert alone.decide(lambda: "x") == "x" and alone.mean({"a": 2.0}) == {"a": 2.0} and not alone.any(False)
    with pytest.raises(ZeroDivisionError):
        alone.decide(lambda: 1 / 0)


def test_parts_come_out_in_the_order_of_their_rows() -> None:
    parts = [torch.tensor([3, 0]), torch.tensor([1]), torch.tensor([4, 2])]
    assert torch.equal(World().by_parts(parts, lambda part: part * 10), torch.arange(5) * 10)


@pytest.mark.parametrize("size", [2, 3])
def test_a_part_is_done_alone(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured for one part may itself be measured by parts; the others have no part in it."""
    seen: list[World] = []
    monkeypatch.setattr(world, "_world", last := World(size - 1, size))
    monkeypatch.setattr(World, "decide", lambda self, work: work())
    monkeypatch.setattr(World, "summed", lambda self, tensor: tensor)

    def measure(part: torch.Tensor) -> torch.Tensor:
        seen.append(world.here())
        return part + 1

    found = last.by_parts([torch.tensor([row]) for row in range(size)], measure)
    assert seen == [World()] and world.here() == last
    assert found.tolist() == [0] * (size - 1) + [size]


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(session.torch, "empty", lambda *_, **__: None)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_has_a_gpu_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 2)
    assert [choose_device(name, Place(rank, 4, rank % 2, 2)).index for rank in range(4)] == [0, 1, 0, 1]
    with pytest.raises(DeviceError, match=r"process 3 of this machine has no GPU of its own, there are 2; use"):
        choose_device(name, Place(2, 3, 2, 3))
    with pytest.raises(DeviceError, match="3 processes cannot share the device 'cuda:1'; use --device cuda"):
        choose_device("cuda:1", Place(0, 3, 0, 3))
    assert choose_device("cpu", Place(2, 3, 2, 3)) == torch.device("cpu")


def test_without_gpus_the_processes_share_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 0)
    assert choose_device("auto", Place(1, 2, 1, 2)) == torch.device("cpu")


def test_processes_that_do_not_know_where_to_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert place() == Place(1, 2)
    with pytest.raises(UsageError, match=r"WORLD_SIZE=2, but not where the processes meet .* start them with torchrun"):
        world.join(torch.device("cpu"))


GLOO = "[/src/gloo/transport/tcp/pair.cc:561] Connection closed by peer [10.0.0.2]:5. This may be an error. GLHF!"


@pytest.mark.parametrize(
    ("error", "lost"),
    [(RuntimeError(GLOO), True), (torch.distributed.DistBackendError("gone"), True), (LostProcess("gone"), True),
     (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False), (ValueError(GLOO), False)],
)  # fmt: skip
def test_a_missing_process_is_told_from_a_mistake(error: Any, lost: bool) -> None:
    assert is_lost(error) == lost


def test_only_a_missing_process_is_called_lost() -> None:
    with pytest.raises(LostProcess), world.explained():
        raise RuntimeError(GLOO)
    with pytest.raises(torch.OutOfMemoryError), world.explained():
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("told", "seconds"), [(False, world.PATIENCE.total_seconds()), (True, world.GRACE_SECONDS)])
def test_what_does_not_come_is_not_waited_for_without_end(
    told: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=0.5)
    monkeypatch.setattr(world, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None))
    world.awaited(lambda: True)
    with world.heeding(lambda: told), pytest.raises(LostProcess, match="did not come"):
        world.awaited(lambda: False)
    assert next(clock) == pytest.approx(seconds, abs=3)


def test_what_is_said_of_a_missing_process() -> None:
    sentence = "another process of this job ended or cannot be reached (Connection closed by peer [10.0.0.2]:5)"
    assert lost_text(RuntimeError(GLOO)) == sentence == lost_text(LostProcess(sentence))
