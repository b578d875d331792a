"""The images of one command: the good ones embedded, the bad ones reported, none of them stopping the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from metavqa_cli.clip.encoder import ClipEncoder
from metavqa_cli.clip.images import expand_images, open_image
from metavqa_cli.schema.errors import MetaVQAError

BATCH = 64
HELD_PIXELS = 50_000_000  # decoded at once, so that a folder of photographs fits into the memory


@dataclass(frozen=True, eq=False)
class Loaded:
    """Names and unit-norm embeddings ``x`` [image, E] of the images that could be read, and an error for each other."""

    names: list[str]
    x: Tensor
    errors: list[MetaVQAError]


def load_images(
    encoder: ClipEncoder,
    arguments: Sequence[str],
    limit: int | None = None,
    before_image: Callable[[], None] | None = None,
) -> Loaded:
    """Embed files, folders and patterns. Those that cannot be read become ``errors``, in the order of ``arguments``.

    ``before_image`` is called before every file; what it raises ends the work.
    """
    paths, errors = expand(arguments)
    names: list[str] = []
    rows: list[Tensor] = []
    waiting: list[Image.Image] = []
    for path in paths[:limit]:
        if before_image is not None:
            before_image()
        try:
            waiting.append(open_image(path))
            names.append(str(path))
        except MetaVQAError as error:
            errors.append(error)
        if len(waiting) == BATCH or sum(image.width * image.height for image in waiting) > HELD_PIXELS:
            rows.append(encoder.encode_images(waiting))
            waiting = []
    if waiting:
        rows.append(encoder.encode_images(waiting))
    return Loaded(names, torch.cat(rows) if rows else torch.zeros(0, encoder.embed, device=encoder.device), errors)


def expand(arguments: Sequence[str]) -> tuple[list[Path], list[MetaVQAError]]:
    """The image files that ``arguments`` name, each once, and an error for every folder or pattern without any."""
    paths: list[Path] = []
    errors: list[MetaVQAError] = []
    for argument in arguments:
        try:
            paths += expand_images([argument])
        except MetaVQAError as error:
            errors.append(error)
    return list(dict.fromkeys(paths)), errors
