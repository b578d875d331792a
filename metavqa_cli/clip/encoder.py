"""Frozen CLIP encoders: questions, statements and images to unit-norm embeddings.

``tiny`` is the model that ships in ``assets/``, which needs no open_clip; any other name is what open_clip takes:
``local-dir:DIR``, ``hf-hub:REPO``, ``MODEL/TAG``, or ``MODEL/FILE`` of weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from metavqa_cli.clip.decoding import Shaping
from metavqa_cli.clip.pipeline import encode_images_of, stack_pixels
from metavqa_cli.clip.tiny.package import PREPROCESSING, known_tokens, load_package, package_hash
from metavqa_cli.clip.tiny.tokenizer import Tokenizer
from metavqa_cli.clip.weights import LOCAL, Loaded, Source, find_source, load_model
from metavqa_cli.clip.weights import TINY as TINY
from metavqa_cli.schema.errors import DeviceError, UsageError
from metavqa_cli.store.images import ImageFile

TINY_FOLDER = Path(__file__).parent.parent / "assets" / "tiny_clip"
RESIZE = {"model": None, "squash": "squash", "crop": "shortest", "pad": "longest"}  # ours -> open_clip's
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """A frozen text and image encoder on one device.

    ``identity`` is everything that changes an embedding (model, weights, preprocessing, library version); feature files
    and generated classifiers record it, and refuse another. ``notes`` are sentences for the person who chose the model.
    """

    name: str
    model: Any
    tokenizer: Any
    identity: dict[str, Any]
    device: torch.device
    notes: tuple[str, ...] = ()

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

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic of the model; embeddings are float32 whatever it is."""
        found: torch.dtype = getattr(torch, self.identity["dtype"])
        return found

    @cached_property
    def shaping(self) -> Shaping:
        """How an image comes to the model's size, as open_clip's own transform does it."""
        size = self.identity["image_size"]
        height, width = (size, size) if isinstance(size, int) else size
        mode = self.identity["resize_mode"]
        # open_clip forgets the interpolation where it crops to an oblong
        bilinear = self.identity["interpolation"] == "bilinear" and not (mode == "shortest" and height != width)
        return Shaping(height, width, mode, bilinear, self.identity.get("fill_color", 0))

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch: int = 512) -> Float[Tensor, "text embed"]:
        """Unit-norm embeddings on the encoder's device; a text beyond ``context_length`` tokens is cut."""
        tokens = (self.tokenizer(list(texts[i : i + batch])).to(self.device) for i in range(0, len(texts), batch))
        rows = [F.normalize(self.model.encode_text(each, normalize=False).float(), dim=-1) for each in tokens]
        return torch.cat(rows) if rows else torch.zeros(0, self.embed, device=self.device)

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "image embed"]:
        """Unit-norm embeddings of RGB Pillow images, at least one."""
        return self.encode_pixels(stack_pixels([self.shaping(image).tobytes() for image in images], self.shaping))

    @torch.inference_mode()
    def encode_pixels(self, pixels: UInt8[Tensor, "image height width 3"]) -> Float[Tensor, "image embed"]:
        """Unit-norm embeddings, on the encoder's device, of images that have the model's size already."""
        x = self.normalised(pixels).to(self.dtype)
        return F.normalize(self.model.encode_image(x, normalize=False).float(), dim=-1)

    def normalised(self, pixels: UInt8[Tensor, "image height width 3"]) -> Float[Tensor, "image 3 height width"]:
        """What open_clip's transform makes of ``pixels``, float32 and channels last, on the encoder's device."""
        x = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(self.identity[key], device=self.device)[:, None, None] for key in ("mean", "std"))
        return x.div_(255).sub_(mean).div_(std)

    def encode_files(
        self, files: Sequence[Path | ImageFile], batch: int = 256
    ) -> Iterator[Float[Tensor, "image embed"]]:
        """Embeddings of image files, a batch at a time, all of which must be good. Errors as ``open_image``."""
        for encoded in encode_images_of(self, files, batch=batch, workers=1):
            for _, error in encoded.broken:
                raise error
            yield encoded.features.to(self.device)


def load_encoder(name: str, device: torch.device, *, resize: str = "model", precision: str = "auto") -> ClipEncoder:
    """Load an encoder by name.

    ``resize`` is how images become square (model, squash, crop or pad), ``precision`` the model's arithmetic (auto:
    bf16 on a GPU that has it, else fp32).
    Raises ``UsageError`` for a name that open_clip does not know or weights that need another activation,
    ``MissingError`` when weights cannot be fetched, ``JobError`` when a file of them is damaged, and ``DeviceError``
    when the device cannot compute in this precision.
    """
    dtype = _dtype(precision, device)
    source = Source(name, name) if name == TINY else find_source(name)
    loaded = _load_tiny(RESIZE[resize]) if name == TINY else load_model(source, RESIZE[resize])
    identity = _identity(source, loaded, dtype)
    model = loaded.model.eval().to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    encoder = ClipEncoder(name, model, loaded.tokenizer, identity, device, source.notes)
    return replace(encoder, identity={**identity, "embed": _width(encoder, precision)})


def _load_tiny(resize: str | None) -> Loaded:
    """The built-in model, as open_clip would load it."""
    weights = package_hash(TINY_FOLDER)
    model, config = load_package(TINY_FOLDER)
    preprocessing = {**PREPROCESSING, "size": config["vision_cfg"]["image_size"]}
    if resize is not None:
        preprocessing["resize_mode"] = resize
    return Loaded(model, Tokenizer(config["text_cfg"]["context_length"]), preprocessing, weights)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float32
    return DTYPES[precision]


def _identity(source: Source, loaded: Loaded, dtype: torch.dtype) -> dict[str, Any]:
    """Everything that changes an embedding; the folder and the name of a local file are none of that."""
    preprocess = loaded.preprocessing
    local = source.file is not None or source.name.startswith(LOCAL)
    fill = preprocess.get("fill_color", 0) if preprocess["resize_mode"] == "longest" else 0
    return {
        "model": ("local-dir" if source.file is None else source.model) if local else source.name,
        "weights": loaded.hash,
        "embed": None,
        "quick_gelu": any(type(module).__name__ == "QuickGELU" for module in loaded.model.modules()),
        "image_size": preprocess["size"] if isinstance(preprocess["size"], int) else list(preprocess["size"]),
        "mean": list(preprocess["mean"]),
        "std": list(preprocess["std"]),
        "interpolation": preprocess["interpolation"],
        "resize_mode": preprocess["resize_mode"],
        "dtype": str(dtype).removeprefix("torch."),
        "open_clip": version("open_clip_torch"),
        **({"fill_color": fill} if fill else {}),
    }


def _width(encoder: ClipEncoder, precision: str) -> int:
    """E, from embedding a text; what the device cannot do in a reduced precision shows here, and not in an hour."""
    text = ["the size of an embedding"]
    if encoder.dtype == torch.float32:
        return encoder.encode_text(text).shape[1]
    grey = torch.full((1, encoder.shaping.height, encoder.shaping.width, 3), 128, dtype=torch.uint8)
    words = f"the CLIP model {encoder.name!r}", f"in {encoder.identity['dtype']} on {encoder.device}"
    try:
        found = torch.cat([encoder.encode_text(text), encoder.encode_pixels(grey)])
    except (RuntimeError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DeviceError(f"{words[0]} cannot compute {words[1]} ({reason}); use --set clip.precision=fp32") from None
    if not found.isfinite().all():
        other = "bf16 or fp32" if precision == "fp16" else "fp32"
        raise UsageError(f"{words[0]} gives NaN or infinite values {words[1]}; use --set clip.precision={other}")
    return found.shape[1]
