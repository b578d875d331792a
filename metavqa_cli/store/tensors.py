"""Tensor files that explain themselves: safetensors with a JSON header and a checksum, and never a pickle.

The file's ``__metadata__`` holds ``metavqa`` (the header as JSON) and ``sha256`` (of the tensors' names, types, shapes
and bytes). Headers, and what was measured (``load_arrays``), are read without torch.
"""

import hashlib
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.schema.text import json_text
from metavqa_cli.store.atomic import atomic_path
from metavqa_cli.store.entries import check_memory, data_bytes, parse_head

if TYPE_CHECKING:
    import numpy as np
    import torch

Loaded = TypeVar("Loaded")
MAX_HEADER_BYTES = 32_000_000  # safetensors allows 100 MB; parsed, each may take ten bytes of memory
REMEDY = "make it again with the command that wrote it and --force"


@dataclass(frozen=True)
class Layout:
    """What a safetensors file says about itself: its metadata and, for each tensor, type, shape and byte range.

    ``data_start`` is the file position of byte 0 of those ranges.
    """

    metadata: dict[str, str]
    tensors: dict[str, dict[str, Any]]
    data_start: int


def save_tensors(path: Path, tensors: "dict[str, torch.Tensor]", header: dict[str, Any]) -> None:
    """Write ``tensors`` (any device and dtype) and the JSON-able ``header`` to ``path``, atomically.

    Raises ``JobError`` when the disk is full, the folder read-only, and so on.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"metavqa": json_text(header), "sha256": checksum(stored)}
    with atomic_path(path) as temporary:
        try:
            save_file(stored, temporary, metadata=metadata)
        except SafetensorError as error:  # it hides the errno of a full disk in its text
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error


def load_tensors(path: Path, *, remedy: str = REMEDY) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """The tensors (on the CPU) and the header of ``path``, after checking length, checksum and finiteness.

    Raises ``MissingError`` when there is no such file and ``JobError`` (with ``remedy``) when it is not intact.
    """
    from safetensors.torch import load_file

    tensors, header = _loaded(path, load_file, checksum, remedy)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise _not_finite(path, name, remedy)
    return tensors, header


def load_arrays(path: Path, *, remedy: str = REMEDY) -> "tuple[dict[str, np.ndarray], dict[str, Any]]":
    """As ``load_tensors``, with the same checks and errors, but as arrays and without torch.

    For what was measured, not for weights: NumPy has no bfloat16, which is refused as damage is.
    """
    import numpy as np
    from safetensors.numpy import load

    arrays, header = _loaded(path, lambda path: load(path.read_bytes()), _array_checksum, remedy)
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise _not_finite(path, name, remedy)
    return dict(sorted(arrays.items())), header  # as load_tensors; the library gives them in no order


def _loaded(
    path: Path, load: Callable[[Path], Loaded], digest: Callable[[Loaded], str], remedy: str
) -> tuple[Loaded, dict[str, Any]]:
    """What ``load`` makes of the file, and its header, after checking length and checksum."""
    from safetensors import SafetensorError

    layout = read_layout(path, remedy=remedy)
    header = header_of(path, layout, remedy=remedy)
    check_memory(path, data_bytes(layout.tensors))
    try:
        found = load(path)
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"{path} is damaged ({error}); {remedy}") from None
    if digest(found) != layout.metadata.get("sha256"):
        raise JobError(f"{path} is damaged: its contents do not match its checksum; {remedy}")
    return found, header


def _not_finite(path: Path, name: str, remedy: str) -> JobError:
    return JobError(f"{path} holds NaN or infinite values in {name!r}; {remedy}")


def read_header(path: Path, *, remedy: str = REMEDY) -> dict[str, Any]:
    """The header that ``save_tensors`` wrote, without torch. Checks the file's length; errors as ``load_tensors``."""
    return header_of(path, read_layout(path, remedy=remedy), remedy=remedy)


def header_of(path: Path, layout: Layout, *, remedy: str = REMEDY) -> dict[str, Any]:
    """The ``metavqa`` header within ``layout``; ``JobError`` when the file was not written by this program."""
    try:
        header = parse_json(layout.metadata["metavqa"])
    except (KeyError, ValueError):
        header = None
    if not isinstance(header, dict):
        raise JobError(f"{path} is a safetensors file, but not one of metavqa's; {remedy}")
    return header


def read_layout(path: Path, *, remedy: str = REMEDY) -> Layout:
    """Parse the head of a safetensors file (8-byte little-endian length, then JSON) and check the file's length."""
    found = _size(path)
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if found < 8 or length > MAX_HEADER_BYTES:
            raise JobError(f"{path} is not a safetensors file ({found} bytes); {remedy}")
        if found < 8 + length:
            raise JobError(f"{path} is truncated: expected at least {8 + length} bytes, found {found}; {remedy}")
        data = handle.read(length)
    try:
        layout = Layout(*parse_head(data), 8 + length)
    except ValueError as error:
        raise JobError(f"{path} is damaged: its header cannot be read ({error}); {remedy}") from None
    expected = layout.data_start + data_bytes(layout.tensors)
    if found != expected:
        word = "truncated" if found < expected else "damaged"
        raise JobError(f"{path} is {word}: expected {expected} bytes, found {found}; {remedy}")
    return layout


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"{path} does not exist; check the path, or run the command that writes it") from None
    if path.is_dir():
        raise MissingError(f"{path} is a folder, not a file; name a .safetensors file")
    if not stat.S_ISREG(found.st_mode):
        raise JobError(f"{path} is not a regular file; name a .safetensors file")
    return found.st_size


def checksum(tensors: "Mapping[str, torch.Tensor]") -> str:
    """SHA-256 over names, types, shapes and bytes of CPU tensors, in the order of their names."""
    import torch

    return _sha256(
        (name, str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, tensor in sorted(tensors.items())
    )


def _array_checksum(arrays: "Mapping[str, np.ndarray]") -> str:
    """As ``checksum``: types are called as torch calls them, since that is what files hold the sum of."""
    import numpy as np

    return _sha256(
        (name, f"torch.{array.dtype}", array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        for name, array in sorted(arrays.items())
    )


def _sha256(parts: Iterator[tuple[str, str, tuple[int, ...], memoryview]]) -> str:
    digest = hashlib.sha256()
    for name, of, shape, data in parts:
        digest.update(f"{name} {of} {shape}\n".encode())
        digest.update(data)
    return digest.hexdigest()
