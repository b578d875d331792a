"""The images of one command: the good ones embedded, the bad ones reported, none of them stopping the others."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from metavqa_cli.clip.encoder import TINY, ClipEncoder
from metavqa_cli.clip.images import expand_images, open_image
from metavqa_cli.engine.session import fewer_threads
from metavqa_cli.schema.errors import MetaVQAError

BATCH = 64
CACHED = 20_000  # embeddings kept: 40 MB of 512 numbers
HELD_PIXELS = 50_000_000  # decoded at once, so that a folder of photographs fits into the memory


@dataclass(frozen=True, eq=False)
class Loaded:
    """Names and unit-norm embeddings ``x`` [image, E] of the images that could be read, and an error for each other."""

    names: list[str]
    x: Tensor
    errors: list[MetaVQAError]


def load_images(encoder: ClipEncoder, arguments: Sequence[str], limit: int | None = None) -> Loaded:
    """Embed files, folders and patterns. Those that cannot be read become ``errors``, in the order of ``arguments``."""
    paths, errors = expand(arguments)
    loaded = load_files(encoder, paths[:limit])
    return replace(loaded, errors=[*errors, *loaded.errors])


def load_files(encoder: ClipEncoder, files: Sequence[Path], before_image: Callable[[], None] | None = None) -> Loaded:
    """Embed image files. ``before_image`` is called before every one; what it raises ends the work."""
    with fewer_threads(encoder.name == TINY and len(files) <= BATCH):
        return _load_files(encoder, files, before_image)


def _load_files(encoder: ClipEncoder, files: Sequence[Path], before_image: Callable[[], None] | None) -> Loaded:
    errors: list[MetaVQAError] = []
    names: list[str] = []
    rows: list[Tensor] = []
    waiting: list[Image.Image] = []
    for path in files:
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


class ImageCache:
    """Embeddings of images that were judged before. A file that has changed, or another encoder, is embedded anew."""

    def __init__(self) -> None:
        self._rows: dict[tuple[object, ...], Tensor] = {}

    def load(
        self, encoder: ClipEncoder, files: Sequence[Path], before_image: Callable[[], None] | None = None
    ) -> Loaded:
        """As ``load_files``."""
        made_by = json.dumps(encoder.identity, sort_keys=True)
        keys = {str(file): _key(made_by, file) for file in files}
        new = [file for file in files if keys[str(file)] not in self._rows]
        loaded = load_files(encoder, new, before_image)
        self._rows.update({keys[name]: row for name, row in zip(loaded.names, loaded.x, strict=True)})
        while len(self._rows) > CACHED:
            del self._rows[next(iter(self._rows))]
        known = {name: row for name, row in zip(loaded.names, loaded.x, strict=True)}
        known |= {name: self._rows[key] for name, key in keys.items() if key in self._rows}
        names = [str(file) for file in files if str(file) in known]
        rows = [known[name] for name in names]
        return Loaded(names, torch.stack(rows) if rows else loaded.x, loaded.errors)


def _key(made_by: str, file: Path) -> tuple[object, ...]:
    """Everything that an embedding depends on; without the file, nothing that is ever kept."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return (made_by, str(file))
    return (made_by, str(file), found.st_mtime_ns, found.st_size)


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
