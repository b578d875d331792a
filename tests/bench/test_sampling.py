"""Few steps stay many times as fast as all of them. ``pytest -m bench`` runs the short form of the comparison."""

import json

import pytest
import torch

from metavqa_cli.guidance.hyperldm import Denoiser, LatentScaler
from metavqa_cli.guidance.schedule import linear_schedule
from metavqa_cli.methods.hyperldm import sample_latents
from metavqa_cli.schema.config import Ldm, Sampling
from tests.bench import sampling


@pytest.mark.bench
def test_few_steps_are_faster_than_all_of_them_by_about_their_share(capsys: pytest.CaptureFixture[str]) -> None:
    sampling.main(["--short", "--json"])
    rows = {row["subject"]: row for row in json.loads(capsys.readouterr().out)["results"]}
    for name in ("dpmpp_2m 4", "ddim 4"):
        assert rows[f"weights for 1 question, {name}"]["ratio"] > 3  # of 50 / 4
    for label in sampling.SETTINGS:
        assert 0 < rows[f"accuracy, {label}, ddpm"]["value"] < 100
        assert "to ddpm, spread" in rows[f"accuracy, {label}, dpmpp_2m 4"]["reference"]


def test_the_default_calls_the_denoiser_fifteen_times_less_often_than_ddpm_would() -> None:
    """Once a step, for both branches of the guidance and all questions together."""
    settings, schedule = Sampling(), linear_schedule(Ldm().T, Ldm().beta_start, Ldm().beta_end)
    denoiser = Denoiser(4, 6, (16,), 8, torch.Generator().manual_seed(0)).eval()
    rows: list[int] = []
    denoiser.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    scaler = LatentScaler(torch.zeros(4), torch.ones(4))
    e = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    sample_latents(denoiser, schedule, scaler, e, 1.5, range(3), settings.sampler, settings.steps)
    assert rows == [6] * settings.denoising_steps(schedule.T)
    assert 2 * sampling.LIMIT * len(rows) <= schedule.T
