"""Few steps stay many times as fast as all of them. ``pytest -m bench`` runs the short form of the comparison."""

import json

import pytest

from metavqa_cli.schema.config import Sampling
from tests.bench import sampling

pytestmark = pytest.mark.bench


def test_few_steps_are_faster_than_all_of_them_by_about_their_share(capsys: pytest.CaptureFixture[str]) -> None:
    sampling.main(["--short", "--json"])
    rows = {row["subject"]: row for row in json.loads(capsys.readouterr().out)["results"]}
    for name in ("dpmpp_2m 4", "ddim 4"):
        assert rows[f"weights for 1 question, {name}"]["ratio"] > 3  # of 50 / 4
    for label in sampling.SETTINGS:
        assert 0 < rows[f"accuracy, {label}, ddpm"]["value"] < 100
        assert "to ddpm, spread" in rows[f"accuracy, {label}, dpmpp_2m 4"]["reference"]


def test_the_default_takes_so_few_steps_that_it_can_be_as_fast_as_it_has_to_be() -> None:
    assert 350 / Sampling().denoising_steps(350) > 2 * sampling.LIMIT
