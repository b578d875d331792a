"""The shipped form of the tiny CLIP: fp16 safetensors that keep only the token rows that were trained.

open_clip's vocabulary has 49,408 rows, of which captions of the Scenes world touch a few hundred. ``write_package``
keeps those; ``unpack`` restores a complete open_clip folder (``local-dir:``) in which an untrained row is zero, so that
an unknown word carries no meaning instead of a random one.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store.atomic import write_bytes

CONFIG_PATH = Path(__file__).parent / "tiny_clip.json"
WEIGHTS = "tiny_clip.safetensors"
UNPACKED_WEIGHTS, UNPACKED_CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
ROWS, TOKENS = "token_embedding.rows", "token_embedding.ids"
EMBEDDING = "token_embedding.weight"
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


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


def unpack(folder: Path, cache: Path) -> Path:
    """A ``local-dir:`` folder with open_clip's own file names under ``cache``, made once for each package.

    A damaged one is made again. Raises ``MissingError`` without a package and ``JobError`` when ``cache`` refuses.
    """
    target = cache / f"tiny-clip-{package_hash(folder)[:16]}"
    if is_complete(target):
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as temporary:
            draft = Path(temporary) / target.name
            _write_unpacked(folder, draft)
            _move(draft, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise JobError(
            f"cannot unpack the built-in CLIP model into {cache}: {reason}; set XDG_CACHE_HOME to a writable folder"
        ) from error
    return target


def is_complete(folder: Path) -> bool:
    """Whether an unpacked folder is there with both files whole (safetensors' own check of the length)."""
    try:
        with safe_open(folder / UNPACKED_WEIGHTS, "pt"):
            json.loads((folder / UNPACKED_CONFIG).read_text("utf-8"))
    except (OSError, ValueError, SafetensorError):
        return False
    return True


def _write_unpacked(folder: Path, draft: Path) -> None:
    try:
        weights = {name: _half(value) for name, value in restore(folder).items()}
        config = {"model_cfg": json.loads((folder / CONFIG_PATH.name).read_text("utf-8")), "preprocess_cfg": PREPROCESS}
    except (ValueError, KeyError, SafetensorError) as error:
        raise MissingError(f"the built-in CLIP model in {folder} is damaged ({error}); install metavqa again") from None
    draft.mkdir()
    (draft / UNPACKED_WEIGHTS).write_bytes(save(weights))
    (draft / UNPACKED_CONFIG).write_text(json.dumps(config, indent=2), "utf-8")


def _move(draft: Path, target: Path) -> None:
    """Put ``draft`` in place of a damaged ``target``, unless another process was faster; its folder is the same."""
    if target.exists() and not is_complete(target):
        target.rename(draft.with_name("damaged"))
    try:
        draft.rename(target)
    except OSError:
        if not is_complete(target):
            raise
