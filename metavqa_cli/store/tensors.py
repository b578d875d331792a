"""Tensor files that explain themselves: safetensors with a JSON header and checksums, and never a pickle.

They are written and sealed as ``container`` says; files of before there were seals have a ``sha256`` of the tensors'
names, types, shapes and bytes. Headers, and what was measured (``load_arrays``), are read without torch.
"""

import hashlib
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.store.container import ALGORITHMS, DATA, WRITER, Part, blocks, data_sum, seal_state, write_parts
from metavqa_cli.store.entries import check_memory, data_bytes, parse_head
from metavqa_cli.store.sealed import NewerError, this_version

if TYPE_CHECKING:
    import numpy as np
    import torch

Loaded = TypeVar("Loaded")
MAX_HEADER_BYTES = 32_000_000  # safetensors allows 100 MB; parsed, each may take ten bytes of memory
REMEDY = "make it again with the command that wrote it and --force"
TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""Torch's names of safetensors' types."""


@dataclass(frozen=True)
class Layout:
    """What a safetensors file says about itself: its metadata and, for each tensor, type, shape and byte range.

    ``data_start`` is the file position of byte 0 of those ranges; ``sealed`` is False for files of before there were
    seals.
    """

    metadata: dict[str, str]
    tensors: dict[str, dict[str, Any]]
    data_start: int
    sealed: bool = False


def save_tensors(path: Path, tensors: "dict[str, torch.Tensor]", header: dict[str, Any]) -> None:
    """Write ``tensors`` (any device and dtype) and the JSON-able ``header`` to ``path``, atomically.

    Raises ``JobError`` when the disk is full, the folder read-only, and so on.
    """
    names = {f"torch.{torch}": name for name, torch in TORCH.items()}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # so that each is aligned
    parts = [
        Part(name, names[str(tensor.dtype)], tuple(tensor.shape), tensor.nbytes, partial(_bytes_of, tensor))
        for name, tensor in ordered
    ]
    write_parts(path, parts, header, "sha256")


def _bytes_of(tensor: "torch.Tensor") -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def load_tensors(path: Path, *, remedy: str = REMEDY) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """The tensors (on the CPU) and the header of ``path``, after checking length, checksum and finiteness.

    Raises ``MissingError`` when there is no such file and ``JobError`` (with ``remedy``) when it is not intact.
    """
    from safetensors.torch import load, load_file

    def loaded(path: Path) -> "dict[str, torch.Tensor]":  # the library opens no name that is not UTF-8
        return load_file(path) if _is_utf8(path) else load(path.read_bytes())

    tensors, header = _loaded(path, loaded, _bytes_of, remedy)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise _not_finite(path, name, remedy)
    return tensors, header


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def load_arrays(path: Path, *, remedy: str = REMEDY) -> "tuple[dict[str, np.ndarray], dict[str, Any]]":
    """As ``load_tensors``, with the same checks and errors, but as arrays and without torch.

    For what was measured, not for weights: NumPy has no bfloat16, which is refused as damage is.
    """
    import numpy as np
    from safetensors.numpy import load

    def bytes_of(array: np.ndarray) -> memoryview:
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    arrays, header = _loaded(path, lambda path: load(path.read_bytes()), bytes_of, remedy)
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise _not_finite(path, name, remedy)
    return dict(sorted(arrays.items())), header  # as load_tensors; the library gives them in no order


def _loaded(
    path: Path,
    load: Callable[[Path], dict[str, Loaded]],
    bytes_of: Callable[[Loaded], memoryview],
    remedy: str,
) -> tuple[dict[str, Loaded], dict[str, Any]]:
    """What ``load`` makes of the file, and its header, after checking length and checksum."""
    from safetensors import SafetensorError

    layout = read_layout(path, remedy=remedy)
    header = header_of(path, layout, remedy=remedy)
    check_memory(path, data_bytes(layout.tensors))
    try:
        found = load(path)
        content = {name: bytes_of(value) for name, value in found.items()}
        intact = _is_intact(layout, content)
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"{path} is damaged ({error}); {remedy}") from None
    if not intact:
        raise JobError(f"{path} is damaged: its contents do not match its checksum; {remedy}")
    return found, header


def check_tensors(path: Path, *, remedy: str = REMEDY) -> bool:
    """Read the whole file once, a piece at a time, without torch; whether it has a seal. Errors as ``load_tensors``.

    Numbers that are not finite are not looked for.
    """
    layout = read_layout(path, remedy=remedy)
    header = header_of(path, layout, remedy=remedy)
    try:
        if layout.sealed:
            stated, found = data_sum(layout.metadata, blocks(path, layout.data_start, path.stat().st_size))
        else:
            stated, found = _unsealed_sum(path, layout, header)
    except (KeyError, TypeError) as error:
        raise JobError(f"{path} is damaged ({error}); {remedy}") from None
    if stated != found:
        raise JobError(f"{path} is damaged: its contents do not match its checksum; {remedy}")
    return layout.sealed


def _unsealed_sum(path: Path, layout: Layout, header: dict[str, Any]) -> tuple[str, str]:
    """The stated and the found checksum of a file of before there were seals: an index, a model, or features."""
    if "crc32" in layout.metadata:
        summed = 0
        for block in blocks(path, layout.data_start, path.stat().st_size):
            summed = zlib.crc32(block, summed)
        return layout.metadata["crc32"], str(summed)
    if "sha256" in layout.metadata:
        return layout.metadata["sha256"], _sha256(_described(path, layout))
    digest, content = hashlib.sha256(), {name: data for name, _, data in _described(path, layout)}
    for name in ("ids", "features"):
        for block in content[name]:
            digest.update(block)
    return str(header["sha256"]), digest.hexdigest()


def _is_intact(layout: Layout, content: Mapping[str, memoryview]) -> bool:
    """Whether the bytes of all tensors are those that the file states a checksum of."""
    if layout.sealed:
        in_file = sorted(layout.tensors, key=lambda name: layout.tensors[name]["data_offsets"])
        stated, found = data_sum(layout.metadata, (content[name] for name in in_file))
        return stated == found
    described = ((name, layout.tensors[name], [content[name]]) for name in sorted(content))
    return layout.metadata.get("sha256") == _sha256(described)


def _described(path: Path, layout: Layout) -> Iterator[tuple[str, dict[str, Any], Iterable[memoryview]]]:
    for name, entry in sorted(layout.tensors.items()):
        start, stop = (layout.data_start + offset for offset in entry["data_offsets"])
        yield name, entry, blocks(path, start, stop)


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
        prefix = handle.read(8)
        length = int.from_bytes(prefix, "little")
        if found < 8 or length > MAX_HEADER_BYTES:
            raise JobError(f"{path} is not a safetensors file ({found} bytes); {remedy}")
        if found < 8 + length:
            raise JobError(f"{path} is truncated: expected at least {8 + length} bytes, found {found}; {remedy}")
        text = handle.read(length)
    try:
        layout = Layout(*parse_head(text), 8 + length)
    except ValueError as error:
        raise JobError(f"{path} is damaged: its header cannot be read ({error}); {remedy}") from None
    layout = _checked(path, layout, prefix + text, remedy)
    expected = layout.data_start + data_bytes(layout.tensors)
    if found != expected:
        word = "truncated" if found < expected else "damaged"
        raise JobError(f"{path} is {word}: expected {expected} bytes, found {found}; {remedy}")
    return layout


def _checked(path: Path, layout: Layout, head: bytes, remedy: str) -> Layout:
    """``layout`` with its seal checked. ``JobError`` when the head is not as written, or by a later metavqa."""
    state = seal_state(head, layout.metadata)
    if state == "broken":
        raise JobError(f"{path} is damaged: its header does not match its checksum; {remedy}")
    if state == "sealed" and layout.metadata[DATA].partition(":")[0] not in ALGORITHMS:
        raise NewerError(
            f"{path} was written by {layout.metadata.get(WRITER)} in a form that this {this_version()} does not know; "
            "upgrade metavqa to use it"
        )
    return replace(layout, sealed=state == "sealed")


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


def _sha256(described: Iterable[tuple[str, dict[str, Any], Iterable[memoryview]]]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors in the order of their names: the sum of unsealed files."""
    digest = hashlib.sha256()
    for name, entry, content in described:
        digest.update(f"{name} torch.{TORCH[entry['dtype']]} {tuple(entry['shape'])}\n".encode())
        for data in content:
            digest.update(data)
    return digest.hexdigest()
