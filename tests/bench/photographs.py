"""Made JPEGs with the sizes and about the bytes of COCO's photographs: shapes, gradients and noise from a seed."""

import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from PIL import Image, ImageDraw

SIZES = ((640, 480),) * 5 + ((480, 640),) * 2 + ((640, 427),) * 2 + ((427, 640), (500, 375), (640, 640))


def make_photographs(folder: Path, count: int, workers: int = 1) -> list[Path]:
    """Write ``count`` JPEGs, about 150 kB each, the same for every ``workers``."""
    folder.mkdir(parents=True, exist_ok=True)
    if workers <= 1:
        return [photograph(folder, number) for number in range(count)]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        return list(pool.map(partial(photograph, folder), range(count), chunksize=16))


def photograph(folder: Path, number: int) -> Path:
    rng = random.Random(number)
    size = rng.choice(SIZES)
    coarse = Image.frombytes("RGB", (8, 6), rng.randbytes(8 * 6 * 3))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, side = rng.randrange(size[0]), rng.randrange(size[1]), rng.randrange(20, 200)
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)((x, y, x + side, y + side), tuple(rng.randbytes(3)))
    tile = Image.frombytes("L", (128, 128), rng.randbytes(128 * 128))
    grain = Image.new("L", size)
    for left in range(0, size[0], 128):
        for top in range(0, size[1], 128):
            grain.paste(tile, (left, top))
    image = Image.blend(image, Image.merge("RGB", (grain, grain, grain)), 0.15)
    path = folder / f"{number:06d}.jpg"
    image.save(path, quality=90)
    return path
