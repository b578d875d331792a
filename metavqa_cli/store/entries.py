"""The entries of a safetensors head, checked before anything is allocated for what they promise.

The format's rules: each entry's type is known, its shape is whole numbers whose product fits its byte range, and the
ranges follow one another from 0 without overlap or hole, so that together they are the rest of the file.
"""

import math
import os
from pathlib import Path
from typing import Any

from metavqa_cli.schema.errors import DeviceError
from metavqa_cli.schema.strict import parse_json

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
MOST_TENSORS = 100_000
MOST_AXES = 32
LARGEST = 2**48  # elements, an axis of 0 counted as 1: no product of a shape overflows

Entries = dict[str, dict[str, Any]]


def parse_head(data: bytes) -> tuple[dict[str, str], Entries]:
    """The metadata and the entries of a safetensors head. ``ValueError`` says in a few words what is wrong with it."""
    entries = parse_json(data)
    if not isinstance(entries, dict):
        raise ValueError("its header is no object")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is no object of texts")
    if len(entries) > MOST_TENSORS:
        raise ValueError(f"{len(entries):,} tensors, more than {MOST_TENSORS:,}")
    ranges = sorted(_range(name, entry) for name, entry in entries.items())
    end = 0
    for start, stop, name in ranges:
        if start != end:
            raise ValueError(f"tensor {_shown(name)} begins at byte {start}, and the one before ends at {end}")
        end = stop
    return metadata, entries


def data_bytes(entries: Entries) -> int:
    """How long the data of sound entries is."""
    return max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)


def _range(name: str, entry: Any) -> tuple[int, int, str]:
    """Where a tensor's bytes begin and end, after everything else about it was found sound."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {_shown(name)} needs dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ValueError(f"tensor {_shown(name)} is of an unknown type")
    if not _are_sizes(shape) or len(shape) > MOST_AXES or math.prod(max(1, size) for size in shape) > LARGEST:
        raise ValueError(f"tensor {_shown(name)} has an impossible shape")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {_shown(name)} has impossible offsets")
    start, stop = offsets
    if (needed := math.prod(shape) * ITEM_BYTES[dtype]) != stop - start:
        raise ValueError(f"tensor {_shown(name)} needs {needed} bytes, and its offsets are {stop - start} apart")
    return start, stop, name


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)  # no bool


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 60 else f"{name[:60]}…")


def check_memory(path: Path, needed: int) -> None:
    """``DeviceError`` when ``needed`` bytes of ``path`` are more than all memory of the machine (where it says)."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    if 0 < there < needed:
        raise DeviceError(
            f"{path} holds {needed / 2**30:,.1f} GiB, and this machine has {there / 2**30:,.1f} GiB of memory; "
            "use a machine with more"
        )
