"""Rows of files that are read when they are asked for, so that memory depends on the request and not on the files.

``write_arrays`` keeps named arrays in one safetensors file with a JSON header and a CRC-32 of its data, which
``read_arrays`` checks as a whole: a million tasks are 600 MB, read in half a second, and never held.
"""

import mmap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from metavqa_cli.schema.errors import JobError
from metavqa_cli.store.container import Part, write_parts
from metavqa_cli.store.tensors import check_tensors, header_of, read_layout

if TYPE_CHECKING:
    import numpy as np

PAGES = 64 * 1024  # bytes that the system maps around a row that is touched
MAPPED = 32 * 2**20  # bytes of a file that stay mapped
ROWS = MAPPED // PAGES
NAMES = {"<i8": "I64", "<i4": "I32", "|u1": "U8"}  # safetensors' names of the types
TYPES = {name: kind for kind, name in NAMES.items()}

Check: TypeAlias = Callable[[Any], None]  # of an array


class Pages:
    """What was read through memory maps is given back to the system at every ``MAPPED`` bytes.

    Until then it counts as the process's memory. It stays in the system's cache, so that reading it again costs a tenth
    more than if it had been kept.
    """

    def __init__(self) -> None:
        self._used: dict[int, mmap.mmap] = {}
        self._touched = 0

    def touch(self, found: mmap.mmap | None, rows: int, row_bytes: int = 0) -> None:
        """Count ``rows`` that were read through the map; None for an array in memory."""
        if found is None:
            return
        self._used[id(found)] = found
        self._touched += rows * max(PAGES, row_bytes)
        if self._touched >= MAPPED and hasattr(mmap, "MADV_DONTNEED"):
            for used in self._used.values():
                used.madvise(mmap.MADV_DONTNEED)
            self._used, self._touched = {}, 0


class MappedRows:
    """Rows ``[row, ...]`` of one array or of several in a row, mostly memory maps; those asked for are copied.

    ``check`` is called with rows that were found, and ``pages`` keeps the memory within bounds together with
    other arrays of the same file. ``ValueError`` for arrays of different types or widths.
    """

    def __init__(self, parts: "Sequence[np.ndarray]", check: Check | None = None, pages: Pages | None = None) -> None:
        import numpy as np

        if len({(part.dtype, part.shape[1:]) for part in parts}) != 1:
            raise ValueError(f"{len(parts)} arrays of {len({part.shape[1:] for part in parts})} shapes are not one")
        self._maps = [_map_of(part) for part in parts]
        self._parts = [np.asarray(part) for part in parts]
        self._starts = [0, *accumulate(len(part) for part in parts)]
        self._check, self._pages = check, pages or Pages()

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._parts[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """Size on the disk."""
        return sum(part.nbytes for part in self._parts)

    def __len__(self) -> int:
        return self._starts[-1]

    def take(self, rows: "np.ndarray") -> "np.ndarray":
        """A copy of the rows at ``rows`` (int64 ``[n]``, from 0), ``[n, ...]``. ``IndexError`` for one outside."""
        import numpy as np

        if self._maps == [None]:
            self._within(rows)
            found = self._parts[0][rows]
            if self._check is not None:
                self._check(found)
            return found
        found = np.empty((len(rows), *self.shape[1:]), self._parts[0].dtype)
        self.fill(found, np.arange(len(rows)), rows)
        return found

    def fill(self, found: "np.ndarray", places: "np.ndarray", rows: "np.ndarray") -> None:
        """Write the rows at ``rows`` to ``found[places]`` (``[any, ...]``). ``IndexError`` for one outside.

        Each part is read once, in the order of the file, and so many rows at a time as may be mapped.
        """
        import numpy as np

        self._within(rows)
        order = np.argsort(rows, kind="stable")
        wanted, places = rows[order], places[order]
        cuts = np.searchsorted(wanted, self._starts).tolist()
        for part, source, start, low, high in zip(self._parts, self._maps, self._starts, cuts, cuts[1:], strict=False):
            for first in range(low, high, ROWS):
                last = min(first + ROWS, high)
                copied = part[wanted[first:last] - start]
                if self._check is not None:
                    self._check(copied)
                found[places[first:last]] = copied
                self._pages.touch(source, last - first)

    def _within(self, rows: "np.ndarray") -> None:
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")

    def between(self, start: int, stop: int) -> "np.ndarray":
        """A copy of the rows from ``start`` to before ``stop``, of an array that is whole."""
        (part,) = self._parts
        found = part[start:stop].copy()
        self._pages.touch(self._maps[0], 1, found.nbytes)
        return found

    def within(self, start: int, stop: int) -> "MappedRows":
        """The rows from ``start`` to before ``stop`` as rows of their own; nothing is read."""
        (part,) = self._parts
        return MappedRows([part[start:stop]], self._check, self._pages)

    def whole(self) -> "np.ndarray":
        """A copy of all rows."""
        import numpy as np

        found = np.concatenate(self._parts)
        for source, part in zip(self._maps, self._parts, strict=True):
            self._pages.touch(source, 1, part.nbytes)
        return found


def _map_of(array: "np.ndarray | None") -> mmap.mmap | None:
    """The map that ``array`` is a view of."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array


def map_file(path: Path) -> "np.ndarray":
    """The bytes of ``path``, uint8 ``[byte]``, as a read-only memory map; of an empty file, an empty array."""
    import numpy as np

    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]", header: dict[str, Any]) -> None:
    """Write ``arrays`` (int64, int32 or uint8, one axis) and the JSON-able ``header`` to ``path``, atomically."""
    import numpy as np

    stored = {name: np.ascontiguousarray(each) for name, each in arrays.items()}
    stored = dict(sorted(stored.items(), key=lambda item: (-item[1].itemsize, item[0])))  # so that each is aligned
    parts = [
        Part(name, NAMES[each.dtype.str], each.shape, each.nbytes, partial(_content, each))
        for name, each in stored.items()
    ]
    write_parts(path, parts, header, "crc32")


def _content(array: "np.ndarray") -> "memoryview | bytes":
    return array.data if array.size else b""


def read_arrays(path: Path) -> "tuple[dict[str, MappedRows], dict[str, Any]]":
    """What ``write_arrays`` wrote, after checking length and content, without holding it.

    ``MissingError`` when there is no such file, ``JobError`` when it is not intact.
    """
    layout = read_layout(path)
    header = header_of(path, layout)
    if not check_tensors(path):
        raise JobError(f"{path} was written by an earlier version of metavqa; remove it")
    try:
        data = map_file(path)[layout.data_start :]
        pages = Pages()
        return {
            name: MappedRows([data[slice(*entry["data_offsets"])].view(TYPES[entry["dtype"]])], pages=pages)
            for name, entry in layout.tensors.items()
        }, header
    except (KeyError, ValueError) as error:
        raise JobError(f"{path} is not a file of arrays ({error}); remove it") from None
