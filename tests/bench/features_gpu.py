"""Feature extraction against a card's matrix rate: ``python -m tests.bench.features_gpu`` prints JSON.

ViT-L/14 at 336 pixels with random weights, loaded as a local file, embeds 20,000 made JPEGs of COCO's sizes. The
operations of its image tower (a multiply and an add are two) against the rate of large matrix products in the same
precision, measured here: limit 0.5. Smaller ``--images`` and ``--model`` and ``--device cpu`` run anywhere.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # worker processes import this module too, and should start as fast as those of the command line
    import torch

    from metavqa_cli.clip.encoder import ClipEncoder

LIMIT = 0.5


def operations(config: dict[str, Any]) -> float:
    """Floating-point operations of a ViT for one image: its matrix products, attention included."""
    vision = config["vision_cfg"]
    width, patch = vision["width"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    tokens = patches + 1
    inner = int(width * vision.get("mlp_ratio", 4))
    layer = 2 * tokens * width * (4 * width + 2 * inner) + 4 * tokens**2 * width
    return float(vision["layers"] * layer + 2 * patches * 3 * patch**2 * width + 2 * width * config["embed_dim"])


def matrix_rate(device: "torch.device", dtype: "torch.dtype", side: int, repeats: int) -> float:
    """Operations a second of ``side`` × ``side`` matrix products, the best of five rounds."""
    import torch

    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(6):  # the first is for warming up
        _wait(device)
        begun = time.perf_counter()
        for _ in range(repeats):
            _ = left @ right
        _wait(device)
        best = max(best, 2 * side**3 * repeats / (time.perf_counter() - begun))
    return best


def _wait(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_encoder(model: str, device: "torch.device", precision: str, folder: Path) -> "ClipEncoder":
    """``model`` with random weights, through a local file as a person would load it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from metavqa_cli.clip.encoder import load_encoder

    torch.manual_seed(0)
    save_file(open_clip.create_model(model).state_dict(), folder / "weights.safetensors")
    encoder = load_encoder(f"{model}/{folder / 'weights.safetensors'}", device, precision=precision)
    (folder / "weights.safetensors").unlink()
    return encoder


def main(arguments: Sequence[str] | None = None) -> None:
    import open_clip
    import torch

    from tests.bench.features import measure
    from tests.bench.photographs import make_photographs

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="ViT-L-14-336-quickgelu")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--side", type=int, default=8192, help="of the matrices")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        files = make_photographs(Path(folder) / "images", options.images, options.workers)
        encoder = random_encoder(options.model, device, options.precision, Path(folder))
        found = measure(encoder, files, options.batch, options.workers)
    matrices = matrix_rate(device, encoder.dtype, options.side, 20)
    each = operations(open_clip.get_model_config(options.model))
    report = {
        "machine": _machine(device),
        "setting": {**vars(options), "dtype": encoder.identity["dtype"], "operations_per_image": each},
        "images_per_second": {name: round(value, 3) for name, value in found.items()},
        "matrix_tflops": matrices / 1e12,
        "pipeline_tflops": found["pipeline"] * each / 1e12,
        "encode_only_tflops": found["encode_only"] * each / 1e12,
        "share_of_matrix_rate": found["pipeline"] * each / matrices,
        "limit": LIMIT,
    }
    print(json.dumps(report, indent=2))


def _machine(device: "torch.device") -> dict[str, Any]:
    import torch

    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cores": os.cpu_count(), "machine": platform.machine(), "card": card, "torch": torch.__version__}


if __name__ == "__main__":
    main()
