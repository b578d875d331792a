"""Writing a safetensors file in which every bit counts, and telling whether it still is what was written.

Its ``__metadata__`` holds ``metavqa`` (the header as JSON), ``written_by``, ``data`` (the algorithm and the checksum of
all bytes after the head) and ``seal``: the SHA-256 of the head, its length and its padding included, with zeros in the
place of the seal. So a header is checked without reading the tensors. Files of before there were seals have neither
``data`` nor ``seal``; a file with one of them must have both, so that no flipped bit makes it pass for an old one.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Protocol

from metavqa_cli.schema.text import json_text
from metavqa_cli.store.atomic import atomic_path
from metavqa_cli.store.sealed import this_version

DATA, SEAL, WRITER = "data", "seal", "written_by"
BLOCK = 2**20
ZEROS = "0" * 64
Algorithm = Literal["sha256", "crc32"]


class Sum(Protocol):
    def update(self, data: Any, /) -> None: ...
    def hexdigest(self) -> str: ...


class Crc32:
    """CRC-32 as ``hashlib`` has its algorithms: finds damage at 2 GB/s where SHA-256 takes 0.4 GB/s."""

    def __init__(self) -> None:
        self._sum = 0

    def update(self, data: Any, /) -> None:
        self._sum = zlib.crc32(data, self._sum)

    def hexdigest(self) -> str:
        return f"{self._sum:08x}"


ALGORITHMS: dict[str, Callable[[], Sum]] = {"sha256": hashlib.sha256, "crc32": Crc32}


@dataclass(frozen=True)
class Part:
    """One tensor to be written: safetensors' name of its type, its shape, and how to get its bytes when it is time."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    read: Callable[[], Any]


def write_parts(path: Path, parts: Sequence[Part], header: dict[str, Any], algorithm: Algorithm) -> None:
    """Write ``parts`` in their order, and the JSON-able ``header``, atomically; one part is in memory at a time.

    The same arguments give the same bytes.
    """
    data = ALGORITHMS[algorithm]()
    draft = _head(parts, header, f"{algorithm}:{data.hexdigest()}")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(draft)  # of the length that the head will have
        for part in parts:
            content = part.read()
            data.update(content)
            file.write(content)
        file.seek(0)
        head = _head(parts, header, f"{algorithm}:{data.hexdigest()}")
        file.write(head.replace(_seal_entry(ZEROS), _seal_entry(hashlib.sha256(head).hexdigest())))


def _head(parts: Sequence[Part], header: dict[str, Any], data: str) -> bytes:
    ends = [0, *accumulate(part.nbytes for part in parts)]
    written = json_text(header)
    entries: dict[str, Any] = {
        "__metadata__": {"metavqa": written, WRITER: this_version(), DATA: data, SEAL: ZEROS},
        **{part.name: {"dtype": part.dtype, "shape": list(part.shape), "data_offsets": [start, start + part.nbytes]}
           for part, start in zip(parts, ends, strict=False)},
    }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _seal_entry(digits: str) -> bytes:
    return f'"{SEAL}":"{digits}"'.encode()


def seal_state(head: bytes, metadata: Mapping[str, Any]) -> Literal["sealed", "unsealed", "broken"]:
    """Whether ``head`` (its 8 bytes of length and all its text) is as it was written; "unsealed": of an old file."""
    stated, data = metadata.get(SEAL), metadata.get(DATA)
    if stated is None and data is None:
        return "unsealed"
    if not isinstance(stated, str) or not isinstance(data, str) or not re.fullmatch("[0-9a-f]{64}", stated):
        return "broken"
    found = hashlib.sha256(head.replace(_seal_entry(stated), _seal_entry(ZEROS)))
    return "sealed" if found.hexdigest() == stated else "broken"


def data_sum(metadata: Mapping[str, str], blocks: "Iterator[Any]") -> tuple[str, str]:
    """The stated and the found checksum of the ``blocks`` of a sealed file's data. ``KeyError``: unknown algorithm."""
    algorithm, _, stated = metadata[DATA].partition(":")
    data = ALGORITHMS[algorithm]()
    for block in blocks:
        data.update(block)
    return stated, data.hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file of any size."""
    found = hashlib.sha256()
    for block in blocks(path, 0, path.stat().st_size):
        found.update(block)
    return found.hexdigest()


def blocks(path: Path, start: int, stop: int) -> Iterator[memoryview]:
    """The bytes of ``path`` from ``start`` to before ``stop`` (or its end), a piece at a time in the same memory."""
    block = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < stop and (count := file.readinto(block[: stop - start])):
            start += count
            yield block[:count]
