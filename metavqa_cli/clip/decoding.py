"""Image files to the pixels that an encoder takes, as bytes: what worker processes run, with Pillow alone.

``Shaping`` does what open_clip's inference transform does before it makes a tensor. A worker that imported open_clip
would take four seconds to start and 400 MB; one of these takes 0.2 s and 40 MB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from metavqa_cli.clip.images import open_image
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.images import ImageFile

ResizeMode = Literal["squash", "shortest", "longest"]


@dataclass(frozen=True)
class Shaping:
    """How an image of any size becomes ``height`` × ``width``.

    ``squash`` stretches it, ``shortest`` scales its shorter side and crops the centre, ``longest`` scales the longer
    one and pads with ``fill``.
    """

    height: int
    width: int
    mode: ResizeMode
    bilinear: bool = False
    fill: int = 0

    def __call__(self, image: Image.Image) -> Image.Image:
        """``image`` (RGB) at the encoder's size."""
        if self.mode == "squash":
            return self._resized(image, self.width, self.height)
        if self.mode == "longest":
            ratio = max(image.height / self.height, image.width / self.width)
            scaled = self._resized(image, round(image.width / ratio), round(image.height / ratio))
            return self._padded(scaled)
        if self.width != self.height:
            ratio = min(image.height / self.height, image.width / self.width)
            return self._cropped(self._resized(image, round(image.width / ratio), round(image.height / ratio)))
        short, side = min(image.size), self.width
        width, height = (side if edge == short else int(side * edge / short) for edge in image.size)
        return self._cropped(self._resized(image, width, height))

    def _resized(self, image: Image.Image, width: int, height: int) -> Image.Image:
        filtering = Image.Resampling.BILINEAR if self.bilinear else Image.Resampling.BICUBIC
        return image.resize((max(1, width), max(1, height)), filtering)

    def _padded(self, image: Image.Image) -> Image.Image:
        across, down = self.width - image.width, self.height - image.height
        border = (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2)
        return ImageOps.expand(image, border, (self.fill,) * 3) if any(border) else image

    def _cropped(self, image: Image.Image) -> Image.Image:
        left, top = round((image.width - self.width) / 2), round((image.height - self.height) / 2)
        return image.crop((left, top, left + self.width, top + self.height))


@dataclass(frozen=True)
class Decoded:
    """A run of images: the RGB bytes ``[good, height, width, 3]`` of those that could be read, and the others' errors.

    ``broken`` counts from 0 within the run.
    """

    pixels: bytes
    good: int
    broken: tuple[tuple[int, MetaVQAError], ...]


def decode(files: Sequence[Path | ImageFile], shaping: Shaping) -> Decoded:
    """Open and shape ``files``; one that cannot be read does not stop the others."""
    pixels: list[bytes] = []
    broken: list[tuple[int, MetaVQAError]] = []
    for number, file in enumerate(files):
        try:
            pixels.append(shaping(open_image(file)).tobytes())
        except MetaVQAError as error:
            broken.append((number, error.with_traceback(None)))
    return Decoded(b"".join(pixels), len(pixels), tuple(broken))


def image_bytes(shaping: Shaping) -> int:
    """Bytes of one shaped image."""
    return math.prod((shaping.height, shaping.width, 3))
