"""Frozen CLIP encoders through open_clip: questions, statements and images to unit-norm embeddings.

``tiny`` is the model that ships in ``assets/``; any other name is what open_clip takes: ``local-dir:DIR``,
``hf-hub:REPO`` or ``MODEL/TAG``.
"""

import difflib
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metavqa_cli.clip.images import open_image
from metavqa_cli.clip.tiny.package import known_tokens, package_hash, unpack
from metavqa_cli.schema.errors import MissingError, UsageError

TINY = "tiny"
TINY_FOLDER = Path(__file__).parent.parent / "assets" / "tiny_clip"
DECODERS = 2  # threads that decode images ahead of the encoder


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """A frozen text and image encoder on one device.

    ``identity`` is everything that changes an embedding (model, weights, preprocessing, library version); feature files
    and generated classifiers record it, and refuse another.
    """

    name: str
    model: Any
    preprocess: Any
    tokenizer: Any
    identity: dict[str, Any]
    device: torch.device

    @property
    def embed(self) -> int:
        """E, the size of an embedding."""
        return int(self.identity["embed"])

    @property
    def context_length(self) -> int:
        """Tokens that a text may have, its start and end marks included."""
        return int(self.tokenizer.context_length)

    @cached_property
    def known_tokens(self) -> frozenset[int] | None:
        """Token ids that the tiny model was trained on; None for models that know the whole vocabulary."""
        return known_tokens(TINY_FOLDER) if self.name == TINY else None

    def unknown_words(self, text: str) -> list[str]:
        """Words of ``text`` that carry no meaning for the tiny model."""
        known = self.known_tokens
        if known is None:
            return []
        words = (word.strip(".,;:!?\"'()") for word in text.lower().split())
        return [word for word in dict.fromkeys(words) if word and not known.issuperset(self.tokenizer.encode(word))]

    def is_too_long(self, text: str) -> bool:
        """Whether the tokenizer would cut ``text``."""
        if hasattr(self.tokenizer, "encode"):
            return len(self.tokenizer.encode(text)) + 2 > self.context_length
        tokens = self.tokenizer.tokenizer(text)["input_ids"]  # open_clip's wrapper of a Hugging Face tokenizer
        return len(tokens) > self.context_length

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch: int = 512) -> Float[Tensor, "text embed"]:
        """Unit-norm embeddings on the encoder's device; a text beyond ``context_length`` tokens is cut."""
        rows = [
            self.model.encode_text(self.tokenizer(list(texts[i : i + batch])).to(self.device), normalize=True)
            for i in range(0, len(texts), batch)
        ]
        return torch.cat(rows).float() if rows else torch.zeros(0, self.embed, device=self.device)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Any]) -> Float[Tensor, "image embed"]:
        """Unit-norm embeddings of RGB Pillow images, at least one."""
        pixels = torch.stack([self.preprocess(image) for image in images]).to(self.device)
        return self._encode(pixels)

    def encode_files(self, paths: Sequence[Path], batch: int = 256) -> Iterator[Float[Tensor, "image embed"]]:
        """Embeddings of image files, a batch at a time, decoded ahead in threads. Errors as ``open_image``."""
        starts = range(0, len(paths), batch)
        pool = ThreadPoolExecutor(DECODERS)
        try:
            ahead = [pool.map(self._load, paths[i : i + batch]) for i in starts[:2]]
            for i in starts:
                pixels = torch.stack(list(ahead.pop(0)))
                if i + 2 * batch < len(paths):
                    ahead.append(pool.map(self._load, paths[i + 2 * batch : i + 3 * batch]))
                yield self._encode(pixels.to(self.device))
        finally:
            pool.shutdown(cancel_futures=True)

    def _load(self, path: Path) -> Tensor:
        pixels: Tensor = self.preprocess(open_image(path))
        return pixels

    @torch.inference_mode()
    def _encode(self, pixels: Tensor) -> Tensor:
        embedding: Tensor = self.model.encode_image(
            pixels.contiguous(memory_format=torch.channels_last), normalize=True
        )
        return embedding.float()


def load_encoder(name: str, device: torch.device, cache: Path) -> ClipEncoder:
    """Load an encoder by name; ``cache`` is where the built-in model is unpacked.

    Raises ``UsageError`` for a name that open_clip does not know and ``MissingError`` when weights cannot be fetched.
    """
    import open_clip

    source = f"local-dir:{unpack(TINY_FOLDER, cache)}" if name == TINY else name
    model_name, tag = _parse(source)
    with _quiet():
        try:
            # unlike create_model_and_transforms, this refuses a model without weights instead of drawing random ones
            model, preprocess = open_clip.create_model_from_pretrained(model_name, pretrained=tag)
            tokenizer = open_clip.get_tokenizer(model_name)
        except UserWarning as warning:
            quick = f"{model_name}-quickgelu/{tag}"
            raise UsageError(f"the weights {name} need QuickGELU ({warning}); use --set clip.model={quick}") from None
        except Exception as error:  # Hugging Face, safetensors, torch and open_clip each have their own
            raise MissingError(_missing(name, error)) from error
    model = model.to(device).eval().to(memory_format=torch.channels_last)
    return ClipEncoder(name, model, preprocess, tokenizer, _identity(name, model, tokenizer), device)


def _parse(source: str) -> tuple[str, str | None]:
    """open_clip's model name and pretrained tag. ``UsageError`` naming what there is for one that it does not know."""
    import open_clip

    if source.startswith(("local-dir:", "hf-hub:")):
        return source, None
    model, _, tag = source.partition("/")
    models = open_clip.list_models()
    if model not in models:
        near = difflib.get_close_matches(model, [TINY, *models], 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "use tiny, local-dir:DIR, hf-hub:REPO or MODEL/TAG"
        raise UsageError(f"there is no CLIP model {model!r}; {hint}")
    if not (tag and (open_clip.get_pretrained_cfg(model, tag) or Path(tag).is_file())):
        known = [f"{model}/{each}" for each in open_clip.list_pretrained_tags_by_model(model)]
        raise UsageError(f"{source!r} names no weights; choose one of {', '.join(known) or 'another model'}")
    if not Path(tag).is_file() and open_clip.get_pretrained_cfg(model, tag).get("quick_gelu"):
        quick = f"{model}-quickgelu"
        if not (open_clip.get_model_config(model) or {}).get("quick_gelu") and quick in models:
            raise UsageError(f"the weights {source} need QuickGELU; choose {quick}/{tag}")  # before any download
    return model, tag


@contextmanager
def _quiet() -> Iterator[None]:
    """Only errors leave this block: open_clip also logs what it raises, on the root logger. QuickGELU is an error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*QuickGELU.*")
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        logging.disable(disabled)


def _missing(name: str, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    if name.startswith("local-dir:"):
        way_out = "the folder needs open_clip_config.json and the weights, as open_clip saves them"
    else:
        arguments = repr(name) if ":" in name else ", ".join(map(repr, name.split("/", 1)))
        way_out = f'fetch it once while connected: python -c "import open_clip; open_clip.create_model({arguments})"'
    return f"the CLIP model {name!r} cannot be loaded ({reason}); use 'tiny', or: {way_out}"


@torch.inference_mode()
def _identity(name: str, model: Any, tokenizer: Any) -> dict[str, Any]:
    import open_clip

    preprocess = open_clip.get_model_preprocess_cfg(model)
    text = tokenizer(["the size of an embedding"]).to(next(model.parameters()).device)
    return {
        "model": name if not name.startswith("local-dir:") else "local-dir",
        "weights": package_hash(TINY_FOLDER) if name == TINY else _weights_hash(model),
        "embed": int(model.encode_text(text).shape[1]),
        "quick_gelu": any(type(module).__name__ == "QuickGELU" for module in model.modules()),
        "image_size": preprocess["size"] if isinstance(preprocess["size"], int) else list(preprocess["size"]),
        "mean": list(preprocess["mean"]),
        "std": list(preprocess["std"]),
        "interpolation": preprocess["interpolation"],
        "resize_mode": preprocess["resize_mode"],
        "dtype": "float32",
        "open_clip": open_clip.__version__,
    }


def _weights_hash(model: Any) -> str:
    """sha256 over the parameters in order, whatever tag or folder they came from."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
