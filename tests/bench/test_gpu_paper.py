"""What the script on the whole preset counts is what is done; ``pytest -m bench`` runs its short form."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from metavqa_cli.guidance.hyperldm import Denoiser
from tests.bench import gpu_paper
from tests.bench.costs import ADAM, CLIP, EMA, Cost, denoiser_weights, sampling_cost, update_bytes
from tests.bench.stand_in import RELEASE

SHAPE = (4, 12, (32, 64, 32), 8)


@pytest.mark.parametrize("both", [False, True])
def test_the_operations_of_sampling_are_those_of_the_denoiser(both: bool) -> None:
    denoiser, rows = Denoiser(*SHAPE, torch.Generator()), 5
    copies = rows * (1 + both)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        denoiser(torch.zeros(copies, 4), torch.zeros(copies, dtype=torch.int64), torch.zeros(copies, 12))
    cost = sampling_cost(denoiser_weights(*SHAPE), rows, 1, both, "fp32")
    assert counted.get_total_flops() == cost.operations
    matrices = sum(p.numel() for p in denoiser.parameters() if p.ndim == 2)
    assert denoiser_weights(*SHAPE) == matrices and cost.bytes == 4 * matrices
    assert sampling_cost(matrices, rows, 7, both, "bf16") == Cost(7 * cost.operations, 7 * cost.bytes / 2)


def test_the_papers_denoiser_has_as_many_weights_as_is_said() -> None:
    assert denoiser_weights(32, 768, (8192, 16384, 8192), 150) == 618_099_392


def test_bytes_of_an_update_and_the_time_that_a_cost_takes() -> None:
    assert update_bytes(10, "tf32", ema=True) == 10 * (12 + CLIP + ADAM + EMA) == 640
    assert update_bytes(10, "bf16", ema=False) == 10 * (18 + CLIP + ADAM) == 580
    whole = Cost(2.0, 30.0) * 2 + Cost(1.0, 0.0)
    assert whole == Cost(5.0, 60.0) and whole.seconds(1.0, 100.0) == 5.0 and whole.seconds(100.0, 10.0) == 6.0


@pytest.mark.bench
@pytest.mark.skipif(not RELEASE.is_dir(), reason=f"the released Meta-VQA files are not in {RELEASE}")
def test_the_short_form_goes_through_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In two calls: what was measured and trained in the first is there in the second."""
    common = ["--short", "--device", "cpu", "--json", "--out", str(tmp_path / "out.json"), "--workspace", str(tmp_path)]
    gpu_paper.main([*common, "--stages", "zoo,hvae"])
    gpu_paper.main([*common, "--stages", "ldm,eval,question,equality"])
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept.keys() == {"zoo", "hvae", "ldm", "eval", "question", "equality", "rates"}
    assert kept["hvae"]["steps"] > 0 and 0 < kept["hvae"]["limit_s"] < kept["hvae"]["seconds"]
    assert kept["equality"]["notes"]["relative_difference"] == 0
    assert '"subject": "question"' in capsys.readouterr().out
