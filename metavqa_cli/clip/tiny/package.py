"""The shipped form of the tiny CLIP: fp16 safetensors that keep only the token rows that were trained.

CLIP's vocabulary has 49,408 rows, of which captions of the Scenes world touch a few hundred. ``write_package`` keeps
those; ``restore`` gives the weights of the complete model, in which an untrained row is zero, so that an unknown word
carries no meaning instead of a random one.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from metavqa_cli.clip.tiny.model import TinyClip, load_towers
from metavqa_cli.schema.errors import MissingError
from metavqa_cli.store.atomic import write_bytes

CONFIG_PATH = Path(__file__).parent / "tiny_clip.json"
WEIGHTS = "tiny_clip.safetensors"
ROWS, TOKENS = "token_embedding.rows", "token_embedding.ids"
EMBEDDING = "token_embedding.weight"
PREPROCESSING = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def write_package(state: dict[str, torch.Tensor], token_ids: torch.Tensor, folder: Path) -> None:
    """Write ``state`` (an open_clip CLIP state dict with one embedding row for each of ``token_ids`` [n]) as fp16."""
    kept = {name: _half(value) for name, value in state.items() if name not in (EMBEDDING, "attn_mask")}
    kept[ROWS] = _half(state[EMBEDDING])
    kept[TOKENS] = token_ids.to(torch.int32).cpu()
    write_bytes(folder / WEIGHTS, save(kept))  # not save_file, which calls a full disk a SafetensorError
    write_bytes(folder / CONFIG_PATH.name, CONFIG_PATH.read_bytes())


def _half(value: torch.Tensor) -> torch.Tensor:
    return (value.half() if value.is_floating_point() else value).cpu().contiguous()


def restore(folder: Path) -> dict[str, torch.Tensor]:
    """The complete float32 state dict of a packaged model."""
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / WEIGHTS).items()}
    ids, rows = state.pop(TOKENS).long(), state.pop(ROWS)
    vocabulary = json.loads((folder / CONFIG_PATH.name).read_text("utf-8"))["text_cfg"]["vocab_size"]
    state[EMBEDDING] = torch.zeros(vocabulary, rows.shape[1]).index_copy_(0, ids, rows)
    return state


def known_tokens(folder: Path) -> frozenset[int]:
    """Token ids whose rows were trained."""
    with safe_open(folder / WEIGHTS, "pt") as weights:
        return frozenset(weights.get_tensor(TOKENS).tolist())


def package_hash(folder: Path) -> str:
    """sha256 of the packaged weights and configuration: the identity of the tiny CLIP. ``MissingError`` if absent."""
    digest = hashlib.sha256()
    try:
        for name in (WEIGHTS, CONFIG_PATH.name):
            digest.update((folder / name).read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise MissingError(f"the built-in CLIP model is not in {folder} ({reason}); install metavqa again") from None
    return digest.hexdigest()


def load_package(folder: Path) -> tuple[TinyClip, dict[str, Any]]:
    """The model of a package (float32, on the CPU) and its configuration. ``MissingError`` when it is damaged."""
    try:
        config = json.loads((folder / CONFIG_PATH.name).read_text("utf-8"))
        return load_towers(config, restore(folder)), config
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise MissingError(
            f"the built-in CLIP model in {folder} is damaged ({reason}); install metavqa again"
        ) from None
