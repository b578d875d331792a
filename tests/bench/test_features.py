"""The measurements of feature extraction run anywhere, on a few images; their figures are judged with -m bench."""

import json

import open_clip
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.bench import features, features_gpu


def test_the_pipeline_is_measured_against_both_of_its_halves(capsys: pytest.CaptureFixture[str]) -> None:
    features.main(["--images", "12", "--batch", "4", "--workers", "1"])
    report = json.loads(capsys.readouterr().out)
    for kind in ("photographs", "scenes"):
        speeds = report[kind]["images_per_second"]
        assert set(speeds) >= {"pipeline", "decode_only", "encode_only", "of_slower", "of_bound"}
        assert all(value > 0 for value in speeds.values())
    assert 50_000 < report["photographs"]["bytes_per_image"] < 300_000


def test_the_card_is_measured_by_its_own_matrix_products(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model with the same code."""
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    config["vision_cfg"] |= {"layers": 1, "width": 64}
    config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Bench-quickgelu", config)
    features_gpu.main(["--model", "Bench-quickgelu", "--images", "6", "--batch", "4", "--workers", "1",
                       "--device", "cpu", "--side", "64"])  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert report["share_of_matrix_rate"] > 0
    assert report["setting"]["operations_per_image"] == features_gpu.operations(config)


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-B-16"])
def test_the_operations_of_a_vit_are_those_that_torch_counts(name: str) -> None:
    config = open_clip.get_model_config(name)
    config["vision_cfg"] |= {"layers": 2, "width": 128}
    with torch.device("meta"):
        tower = open_clip.CLIP(**config).visual.eval()
        counter = FlopCounterMode(display=False)
        with counter:
            tower(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() == pytest.approx(features_gpu.operations(config), rel=0.01)


@pytest.mark.bench
def test_the_pipeline_is_as_fast_as_the_cores_allow(capsys: pytest.CaptureFixture[str]) -> None:
    features.main(["--images", "1000"])
    report = json.loads(capsys.readouterr().out)
    assert all(report[kind]["images_per_second"]["of_bound"] > 0.8 for kind in ("photographs", "scenes"))
