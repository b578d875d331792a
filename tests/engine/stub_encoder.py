"""An encoder without a model, for tests of what is built around it."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.clip.encoder import ClipEncoder
from metavqa_cli.clip.images import open_image
from metavqa_cli.clip.pipeline import Encoded, batch_bounds
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.images import ImageFile
from tests.miniature import CPU

PIPELINE = "metavqa_cli.engine.embedding.encode_images_of"


class Stub(ClipEncoder):
    """Embeddings are a function of the file's name or of the text; ``embedded`` remembers them."""

    embedded: list[str]
    context_length = 77

    def is_too_long(self, text: str) -> bool:
        """A word is a token."""
        return len(text.split()) + 2 > self.context_length

    def encode_text(self, texts: Sequence[str], batch: int = 512) -> Tensor:
        """A vector of 8 for each text."""
        return self.vectors(texts)

    def vectors(self, names: Sequence[str]) -> Tensor:
        """A unit vector for every name, always the same."""
        self.embedded.extend(names)
        seeds = [int.from_bytes(sha256(name.encode()).digest()[:4], "big") for name in names]
        rows = [torch.randn(8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1) if rows else torch.zeros(0, 8)


def make_stub(**identity: Any) -> Stub:
    """A stub that has embedded nothing yet."""
    made = Stub("stub", None, None, {"model": "stub", "embed": 8, **identity}, CPU)
    object.__setattr__(made, "embedded", [])
    return made


def encode_by_name(
    encoder: Stub, files: Sequence[ImageFile], *, batch: int, workers: int, every: int
) -> Iterator[Encoded]:
    """In place of the image pipeline: files are opened, but what counts is their names."""
    for first, last in batch_bounds(len(files), batch, every):
        good, broken = [], []
        for at, file in enumerate(files[first:last], first):
            try:
                open_image(file)
                good.append(Path(file.name).stem)
            except MetaVQAError as error:
                broken.append((at, error))
        yield Encoded(first, last - first, encoder.vectors(good), tuple(broken))
