"""Names of CLIP models to weights in memory, through open_clip, and never through a pickle that can run code.

open_clip trusts what it is told: it builds GELU for weights that need QuickGELU, and reads mean and s.d. of a local
file from nowhere. What can be known about the weights is checked here first.
"""

import difflib
import hashlib
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError, UsageError
from metavqa_cli.store.tensors import read_layout
from metavqa_cli.store.zips import Zip

TINY = "tiny"
FORMS = "tiny, local-dir:DIR, hf-hub:REPO, MODEL/TAG or MODEL/FILE"
LOCAL, HUB, QUICK = "local-dir:", "hf-hub:", "-quickgelu"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
AGAIN = "copy or download it again"
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
SCRIPT_BUFFERS = ("input_resolution", "context_length", "vocab_size")  # numbers that OpenAI's archives keep as tensors


@dataclass(frozen=True)
class Published:
    """Weights that open_clip's list of pretrained models knows by their sha256 (or its first 8 digits)."""

    sha256: str
    model: str
    tag: str
    config: dict[str, Any]

    @property
    def is_certain(self) -> bool:
        """Whether nobody can make another file with this sum."""
        return len(self.sha256) == 64


@dataclass(frozen=True)
class Source:
    """Where a model comes from: open_clip's ``model`` and, unless that is a folder or repository, tag or file."""

    name: str
    model: str
    tag: str | None = None
    file: Path | None = None
    published: Published | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about weights that nobody vouches for."""
        if self.file is None or self.published:
            return ()
        found = f"{self.file} does not say how it was trained: mean, s.d. and interpolation are open_clip's defaults"
        other = self.model.removesuffix(QUICK) if self.model.endswith(QUICK) else self.model + QUICK
        if other in _models():
            kinds = ("QuickGELU", "GELU") if self.model.endswith(QUICK) else ("GELU", "QuickGELU")
            found += f", and the activation is {kinds[0]}; weights trained with {kinds[1]} need {other}/{self.file}"
        return (found,)


def find_source(name: str) -> Source:
    """What ``name`` stands for, with a local file looked into, and nothing fetched.

    ``UsageError`` for a name that open_clip does not know or a QuickGELU mismatch, ``MissingError`` when there is no
    such file, ``JobError`` when it is damaged.
    """
    import open_clip

    if name.startswith((LOCAL, HUB)):
        return Source(name, name)
    model, _, tag = name.partition("/")
    if model not in _models():
        near = difflib.get_close_matches(model, [TINY, *_models()], 3, 0.5)
        raise UsageError(
            f"there is no CLIP model {model!r}; {f'did you mean {_or(near)}?' if near else f'use {FORMS}'}"
        )
    if tag and (config := open_clip.get_pretrained_cfg(model, tag)):
        _refuse_activation(f"the weights {name}", model, tag, config)
        return Source(name, model, tag=tag)
    path = Path(tag).expanduser() if tag else None
    if path is not None and (path.exists() or path.suffix in SUFFIXES or "/" in tag):
        return _file_source(name, model, path)
    known = [f"{model}/{each}" for each in open_clip.list_pretrained_tags_by_model(model)]
    raise UsageError(f"{name!r} names no weights; choose one of {', '.join(known) or 'another model'}")


def _models() -> list[str]:
    import open_clip

    return list(open_clip.list_models())


def _or(words: list[str]) -> str:
    return " or ".join(words)


def _refuse_activation(what: str, model: str, tag: str, config: dict[str, Any]) -> None:
    import open_clip

    needed = bool(config.get("quick_gelu"))
    if needed == bool((open_clip.get_model_config(model) or {}).get("quick_gelu")):
        return
    other = model + QUICK if needed else model.removesuffix(QUICK)
    if other != model and other in _models():
        activation = "QuickGELU" if needed else "GELU"
        raise UsageError(f"{what} need {activation}; choose {other}/{tag} (--set clip.model={other}/{tag})")


# --- local files ---


def _file_source(name: str, model: str, path: Path) -> Source:
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder, expected a file of weights; a folder saved by open_clip is {LOCAL}{path}"
        )
    if not path.is_file():
        raise MissingError(f"there is no weights file {path} for the CLIP model {model!r}; check the path")
    if path.suffix == ".safetensors":
        read_layout(path, remedy=AGAIN)
        return Source(name, model, file=path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} has the suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    found = _published(_sha256(path))
    if found:
        _refuse_activation(f"the weights {path}, which are {found.model}/{found.tag},", model, str(path), found.config)
    if _is_script(path) and not (found and found.is_certain):
        raise UsageError(
            f"{path} is a TorchScript archive, a program and not only weights, and none that OpenAI published; "
            "save its state_dict() as .safetensors where you trust it"
        )
    return Source(name, model, file=path, published=found)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise MissingError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
    return digest.hexdigest()


def _published(sha256: str) -> Published | None:
    return next((known for known in published_files() if sha256.startswith(known.sha256)), None)


@cache
def published_files() -> tuple[Published, ...]:
    """Every pretrained file whose address has its sha256: 64 digits at OpenAI, the first 8 in open_clip's releases."""
    import open_clip

    found: dict[str, Published] = {}
    for model, tag in open_clip.list_pretrained():
        config = open_clip.get_pretrained_cfg(model, tag)
        if match := re.search(r"/([0-9a-f]{64})/[^/]+$|-([0-9a-f]{8})\.pth?$", config.get("url") or ""):
            sha256 = match[1] or match[2]
            found.setdefault(sha256, Published(sha256, model.removesuffix(QUICK), tag, config))
    return tuple(found.values())


def _is_script(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with compiled code beside its tensors."""
    try:
        with Zip(path) as archive:
            return any(name.split("/")[-1] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


# --- loading ---


@dataclass(frozen=True)
class Loaded:
    """A model (float32, on the CPU) with its tokenizer, what it needs of images (``size``, ``mean``, ``std``,
    ``interpolation``, ``resize_mode``), and the hash of its architecture and weights."""

    model: Any
    tokenizer: Any
    preprocessing: dict[str, Any]
    hash: str


def load_model(source: Source, resize: str | None) -> Loaded:
    """The model that ``source`` stands for.

    ``resize`` is open_clip's resize mode, or None for the model's own. ``MissingError`` or ``JobError`` naming the way
    out when it cannot be loaded. Never random weights in place of missing ones.
    """
    import open_clip

    with _quiet():
        try:
            config = _config(source)
            options: dict[str, Any] = {"image_resize_mode": resize}
            if source.published:  # what open_clip would know about the tag
                own = {f"image_{key}": source.published.config.get(key) for key in PREPROCESSING}
                options = own | {key: value for key, value in options.items() if value}
            if source.file is not None and source.published and _is_script(source.file):
                model = _load_script(source, source.file, options)
            else:  # unlike create_model_and_transforms, this refuses a model without weights
                tag = str(source.file) if source.file else source.tag
                model = open_clip.create_model_from_pretrained(
                    source.model, pretrained=tag, weights_only=True, return_transform=False, **options
                )
            tokenizer, preprocessing = open_clip.get_tokenizer(source.model), open_clip.get_model_preprocess_cfg(model)
            return Loaded(model, tokenizer, preprocessing, weights_hash(model, config))
        except UserWarning as warning:
            quick = f"{source.model}{QUICK}/{source.tag}"
            raise UsageError(
                f"the weights {source.name} need QuickGELU ({warning}); use --set clip.model={quick}"
            ) from None
        except MetaVQAError:
            raise
        except Exception as error:  # Hugging Face, safetensors, torch and open_clip each have their own
            raise _failure(source, error) from error


def _config(source: Source) -> dict[str, Any]:
    """open_clip's description of the architecture; refused when it asks for a stranger's code to be run."""
    import open_clip

    config = open_clip.get_model_config(source.model) or {}
    if re.search(r'"trust_remote_code": (?!false)', json.dumps(config)):  # a tokenizer's option, passed on unseen
        raise UsageError(
            f"the CLIP model {source.name!r} wants to run code of its own (trust_remote_code); use another"
        )
    return dict(config)


def _load_script(source: Source, path: Path, options: dict[str, Any]) -> Any:
    """The weights of one of OpenAI's TorchScript archives. Opening one may run its code: its sha256 is known."""
    import open_clip

    if source.published is None or not source.published.is_certain:
        raise UsageError(f"{path} is a program that OpenAI did not publish; it is not opened")
    state = torch.jit.load(str(path), map_location="cpu").state_dict()
    model = open_clip.create_model(
        source.model,
        force_preprocess_cfg={key.removeprefix("image_"): value for key, value in options.items()},
    )
    model.load_state_dict({name: value for name, value in state.items() if name not in SCRIPT_BUFFERS})
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Only errors leave this block: open_clip also logs what it raises, on the root logger. QuickGELU is an error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*QuickGELU.*")
            yield
    finally:
        logging.disable(disabled)


def _failure(source: Source, error: Exception) -> MetaVQAError:
    reason = _reason(error)
    if source.file is not None:
        return JobError(
            f"the weights {source.file} cannot be loaded as the CLIP model {source.model!r} ({reason}); {AGAIN}, "
            "or name the model that they are of"
        )
    if source.model.startswith(LOCAL):
        way_out = "the folder needs open_clip_config.json and the weights, as open_clip saves them"
    else:
        arguments = repr(source.name) if source.model.startswith(HUB) else f"{source.model!r}, {source.tag!r}"
        way_out = f'fetch it once while connected: python -c "import open_clip; open_clip.create_model({arguments})"'
    return MissingError(f"the CLIP model {source.name!r} cannot be loaded ({reason}); use 'tiny', or: {way_out}")


def _reason(error: Exception) -> str:
    """The telling line of what a library said."""
    text = str(error) or type(error).__name__
    if match := re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", text):
        return f"it is more than tensors: it asks for {match[1]}, and no code of a weights file is ever run"
    if "Weights only load failed" in text:
        return "it is damaged, or not a file of PyTorch weights"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].startswith("Error(s) in loading state_dict") else 1])[:200]


def weights_hash(model: Any, config: dict[str, Any]) -> str:
    """sha256 over architecture and parameters in order, whatever tag, file or folder they came from."""
    shape = {key: value for key, value in config.items() if key != "quick_gelu"}  # a field of its own
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
