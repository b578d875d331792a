"""Whether decoding keeps up with the encoder: ``python -m tests.bench.features [--images N]`` prints JSON.

The pipeline (decode, resize, encode) beside a loop that only decodes and resizes and one that only encodes, for made
JPEGs of COCO's sizes and for Scenes pictures, with the tiny CLIP on a CPU. Processes that share the encoder's cores
cannot do better than ``shared_cores``, the rate at which an image's decoding and encoding add up: that is the bound of
a pipeline with as many workers as cores (``of_bound``); with cores to spare the bound is the slower of the two loops.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # worker processes import this module too, and should start as fast as those of the command line
    import torch

    from metavqa_cli.clip.encoder import ClipEncoder


def make_scenes(folder: Path, count: int) -> list[Path]:
    """Pictures of the built-in world, as its datasets keep them."""
    from metavqa_cli.tasks.sources.scenes.draw import draw
    from metavqa_cli.tasks.sources.scenes.scene import sample_scene

    paths = [folder / f"{number:06d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        draw(sample_scene(0, number)).save(path, compress_level=1)
    return paths


def rate(images: int, work: Callable[[], object]) -> float:
    """Images a second."""
    begun = time.perf_counter()
    work()
    return images / (time.perf_counter() - begun)


def decode_only(encoder: "ClipEncoder", files: Sequence[Path], batch: int, workers: int) -> None:
    from metavqa_cli.clip import pipeline

    with pipeline._decoders(workers, len(files)) as pool:
        for _ in pipeline._decoded(pool, files, pipeline.batch_bounds(len(files), batch), encoder.shaping):
            pass


def encode_only(encoder: "ClipEncoder", pixels: "torch.Tensor", images: int) -> None:
    """The batch ``pixels`` again and again, until ``images`` are encoded."""
    import torch

    for start in range(0, images, len(pixels)):
        encoder.encode_pixels(pixels[: images - start])
    if encoder.device.type == "cuda":
        torch.cuda.synchronize()


def one_batch(encoder: "ClipEncoder", files: Sequence[Path], batch: int) -> "torch.Tensor":
    """uint8 [batch, height, width, 3] of the first files, repeated if they are fewer."""
    from metavqa_cli.clip.decoding import decode
    from metavqa_cli.clip.pipeline import stack_pixels

    decoded = decode([files[i % len(files)] for i in range(batch)], encoder.shaping)
    return stack_pixels([decoded.pixels], encoder.shaping)


def measure(encoder: "ClipEncoder", files: Sequence[Path], batch: int, workers: int) -> dict[str, float]:
    """Images a second of each loop, everything warm."""
    from metavqa_cli.clip.pipeline import encode_images_of

    pixels = one_batch(encoder, files, batch)
    encode_only(encoder, pixels, 2 * batch)
    count = len(files)
    decoding = rate(count, lambda: decode_only(encoder, files, batch, workers))
    encoding = rate(count, lambda: encode_only(encoder, pixels.to(encoder.device), count))
    whole = rate(count, lambda: list(encode_images_of(encoder, files, batch=batch, workers=workers)))
    shared = 1 / (1 / decoding + 1 / encoding)
    slower = min(decoding, encoding)
    bound = shared if encoder.device.type == "cpu" and workers >= (os.cpu_count() or 1) else slower
    return {
        "pipeline": whole,
        "decode_only": decoding,
        "encode_only": encoding,
        "shared_cores": shared,
        "of_slower": whole / slower,
        "of_bound": whole / bound,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    import torch

    from metavqa_cli.clip.encoder import TINY, load_encoder
    from tests.bench.features_gpu import random_encoder
    from tests.bench.photographs import make_photographs

    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--large", help="also with this model of open_clip, random weights, e.g. ViT-B-32-quickgelu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        tiny = load_encoder(TINY, torch.device("cpu"))
        photographs = make_photographs(Path(folder) / "photographs", options.images)
        kinds = {"photographs": (tiny, photographs), "scenes": (tiny, make_scenes(Path(folder), options.images))}
        if options.large:
            large = random_encoder(options.large, torch.device("cpu"), "fp32", Path(folder))
            kinds[f"photographs, {options.large}"] = (large, photographs[: max(1, options.images // 4)])
        for kind, (encoder, files) in kinds.items():
            batch = options.batch if encoder is tiny else min(options.batch, 32)
            size = sum(path.stat().st_size for path in files) / len(files)
            speeds = _rounded(measure(encoder, files, batch, options.workers))
            found[kind] = {"bytes_per_image": round(size), "images_per_second": speeds}
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()}
    print(json.dumps({"machine": machine, "setting": vars(options), **found}, indent=2))


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3 if name.startswith("of_") else 1) for name, value in values.items()}


if __name__ == "__main__":
    main()
