"""Workers shape images exactly as open_clip's own transform does, bit for bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from metavqa_cli.clip.decoding import decode
from metavqa_cli.clip.encoder import ClipEncoder
from metavqa_cli.clip.pipeline import stack_pixels
from metavqa_cli.schema.errors import JobError, MissingError

SIDES = st.integers(1, 120)
SIZES = st.sampled_from([32, 33, (32, 32), (24, 40), (40, 24)])
MODES = st.sampled_from(["squash", "shortest", "longest"])


def shaped_by(size: int | tuple[int, int], mode: str, interpolation: str, fill: int = 0) -> ClipEncoder:
    """An encoder without a model."""
    identity = {
        "image_size": size, "resize_mode": mode, "interpolation": interpolation, "fill_color": fill,
        "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    return ClipEncoder("none", None, None, identity, torch.device("cpu"))


@settings(deadline=None, max_examples=150)
@given(SIDES, SIDES, SIZES, MODES, st.sampled_from(["bicubic", "bilinear"]), st.sampled_from([0, 127]))
def test_pixels_equal_those_of_open_clips_transform(
    width: int, height: int, size: int | tuple[int, int], mode: str, interpolation: str, fill: int
) -> None:
    encoder = shaped_by(size, mode, interpolation, fill)
    numbers = {key: tuple(encoder.identity[key]) for key in ("mean", "std")}
    transform = image_transform_v2(
        PreprocessCfg(size, resize_mode=mode, interpolation=interpolation, fill_color=fill, **numbers), is_train=False
    )
    noise = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(noise)
    try:
        expected = transform(image)
    except ValueError:  # a side of 0 pixels: open_clip refuses what is here taken as 1 pixel
        assert mode == "longest" and max(width / height, height / width) > 20
        return
    found = encoder.normalised(stack_pixels([encoder.shaping(image).tobytes()], encoder.shaping))
    assert found.shape == (1, *expected.shape)
    assert torch.equal(found[0], expected)


def test_a_worker_needs_neither_torch_nor_open_clip() -> None:
    code = (
        "import sys, metavqa_cli.clip.decoding; print([m for m in ('torch', 'open_clip', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_broken_files_are_reported_by_their_place(tmp_path: Path) -> None:
    Image.new("RGB", (9, 5), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    files = [tmp_path / name for name in ("bad.png", "good.png", "none.png", "good.png")]
    found = decode(files, shaped_by(4, "squash", "bicubic").shaping)
    assert found.good == 2 and found.pixels == bytes([255, 0, 0]) * 32
    assert [(number, type(error)) for number, error in found.broken] == [(0, JobError), (2, MissingError)]


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("size", [(1, 4000), (4000, 1)])
def test_a_line_of_pixels_is_no_photograph(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    """Its shorter side scaled to 336 would make it 1.3 million pixels long."""
    Image.new("RGB", size).save(tmp_path / "line.png")
    found = decode([tmp_path / "line.png"], shaped_by(336, mode, "bicubic").shaping)
    assert found.good == 0 and "line.png" in str(found.broken[0][1]) and "too narrow" in str(found.broken[0][1])
