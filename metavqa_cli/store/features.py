"""Image features on disk: one safetensors file with a row for each image, read through a memory map.

Its tensors are ``features`` (float32 ``[image, embed]``) and ``ids`` (uint8: the image ids, one JSON string a line).
"""

import hashlib
import json
import math
import shlex
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.wording import some
from metavqa_cli.store.container import Part, blocks, write_parts
from metavqa_cli.store.mapped import Check, MappedRows
from metavqa_cli.store.tensors import Layout, header_of, read_layout

if TYPE_CHECKING:
    import numpy as np

CHECKSUM, QUICK = "sha256", "crc32"


def rebuild(dataset: str) -> str:
    """The way out of a damaged dataset."""
    return f"build it again with `metavqa dataset build --force --name {shlex.quote(dataset)}`"


def write_features(path: Path, ids: list[str], features: "np.ndarray", header: dict[str, Any]) -> None:
    """Write ``features`` (float32 ``[image, embed]``, finite) for the images ``ids`` to ``path``, atomically.

    ``header["encoder"]`` is the identity of the encoder that made them; a checksum is added.
    """
    import numpy as np

    if features.dtype != np.float32 or features.ndim != 2 or len(features) != len(ids):
        found = f"{features.dtype} {features.shape}"
        raise ValueError(f"{len(ids)} ids need float32 features [{len(ids)}, embed], found {found}")
    check_finite(ids, features)
    lines = dump_ids(ids)
    rows = np.ascontiguousarray(features)
    header = {**header, CHECKSUM: _checksum(rows, lines), QUICK: quick_sum(rows, lines)}
    parts = [
        Part("features", "F32", rows.shape, rows.nbytes, lambda: rows.data if rows.size else b""),
        Part("ids", "U8", (len(lines),), len(lines), lambda: lines),
    ]
    write_parts(path, parts, header, "crc32")


def check_finite(ids: Sequence[str], features: "np.ndarray") -> None:
    """``JobError`` that names the images (or texts) ``ids`` for which an encoder gave NaN or infinite ``features``."""
    import numpy as np

    bad = np.flatnonzero(~np.isfinite(features).all(1)).tolist()
    if bad:
        raise JobError(
            f"the encoder gives NaN or infinite values for {some([ids[row] for row in bad])}; try --precision fp32, "
            "and `metavqa env` shows the encoder"
        )


def dump_ids(ids: Sequence[str]) -> bytes:
    """``ids`` as one JSON string a line."""
    return "".join(json.dumps(name) + "\n" for name in ids).encode()


def parse_ids(lines: bytes) -> list[str]:
    """What ``dump_ids`` wrote; ``ValueError`` when damaged. One parse of all lines is six times as fast as one each."""
    try:
        found = json.loads(b"[" + lines.rstrip(b"\n").replace(b"\n", b",") + b"]")  # no string holds a bare line end
    except RecursionError:
        raise ValueError("an id is not a string") from None
    if not all(isinstance(name, str) for name in found):
        raise ValueError("an id is not a string")
    return list(found)


def quick_sum(features: "np.ndarray", lines: bytes) -> int:
    """CRC-32 of ids and features: finds damage at 2 GB/s where SHA-256 takes 0.4 GB/s."""
    return zlib.crc32(features.data if features.size else b"", zlib.crc32(lines))


def _checksum(features: "np.ndarray", lines: bytes) -> str:
    digest = hashlib.sha256(lines)
    digest.update(features.data)
    return digest.hexdigest()


def _fill(file: FileIO, view: memoryview) -> None:
    """Read until ``view`` is full or the file ends; one call reads at most 2 GB."""
    while len(view) and (count := file.readinto(view)):
        view = view[count:]


@dataclass(frozen=True)
class FeatureStore:
    """An open feature file. Rows are read from the disk when they are asked for."""

    path: Path
    header: dict[str, Any]
    layout: Layout

    @staticmethod
    def open(path: Path) -> "FeatureStore":
        """Open ``path`` after checking its header and length. ``MissingError`` or ``JobError`` as ``read_layout``."""
        remedy = rebuild(path.parent.parent.name)
        layout = read_layout(path, remedy=remedy)
        described = layout.tensors.get("features", {}), layout.tensors.get("ids", {})
        if [(entry.get("dtype"), len(entry.get("shape", []))) for entry in described] != [("F32", 2), ("U8", 1)]:
            raise JobError(f"{path} is not a feature file (it needs float32 `features` and `ids`); {remedy}")
        return FeatureStore(path, header_of(path, layout, remedy=remedy), layout)

    @property
    def remedy(self) -> str:
        return rebuild(self.path.parent.parent.name)

    def __len__(self) -> int:
        return int(self.layout.tensors["features"]["shape"][0])

    @cached_property
    def ids(self) -> list[str]:
        """The image of each row. ``JobError`` when they are damaged."""
        try:
            found = parse_ids(self._map("ids", "uint8").tobytes())
            if len(found) != len(self):
                raise ValueError(f"{len(found)} ids of {len(self)} rows")
            return found
        except ValueError as error:
            raise JobError(f"{self.path} is damaged ({error}); {self.remedy}") from None

    @cached_property
    def features(self) -> "np.ndarray":
        """All rows, float32 ``[image, embed]``, as a read-only memory map."""
        return self._map("features", "<f4")

    def verified(self) -> "np.ndarray":
        """All rows in memory, float32 ``[image, embed]``. ``JobError`` when the file is not what was written."""
        import numpy as np

        features = np.empty(self.layout.tensors["features"]["shape"], np.float32)
        self.read_into(features)
        return features

    def read_into(self, features: "np.ndarray") -> None:
        """Fill ``features`` (float32 ``[image, embed]``, contiguous) with all rows. Errors as ``verified``."""
        if features.size:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.layout.data_start + self.layout.tensors["features"]["data_offsets"][0])
                _fill(file, features.data.cast("B"))
        lines = self._map("ids", "uint8").tobytes()
        self._compare(lambda: quick_sum(features, lines), lambda: _checksum(features, lines))

    def check(self) -> None:
        """Read all rows once, holding none. Errors as ``verified``."""
        offsets = [self.layout.tensors[name]["data_offsets"] for name in ("ids", "features")]
        ranges = [(self.layout.data_start + start, self.layout.data_start + stop) for start, stop in offsets]
        content = (block for start, stop in ranges for block in blocks(self.path, start, stop))

        def checksum() -> str:
            digest = hashlib.sha256()
            for block in content:
                digest.update(block)
            return digest.hexdigest()

        self._compare(lambda: reduce(lambda summed, block: zlib.crc32(block, summed), content, 0), checksum)

    def _compare(self, quick: Callable[[], int], checksum: Callable[[], str]) -> None:
        """Compare the quick sum with the header's; of a file that has none, the checksum."""
        stated, written = self.stated, self.header.get(QUICK)
        if checksum() != stated if written is None else quick() != written:
            raise JobError(f"{self.path} is damaged (its checksum differs); {self.remedy}")

    @property
    def stated(self) -> str:
        """The checksum in the header. ``JobError`` when there is none."""
        if CHECKSUM not in self.header:
            raise JobError(f"{self.path} was written by another version of metavqa; {self.remedy}")
        return str(self.header[CHECKSUM])

    @property
    def nbytes(self) -> int:
        """Size of all rows."""
        return 4 * math.prod(self.layout.tensors["features"]["shape"])

    def mapped(self, check: Check | None = None) -> MappedRows:
        """All rows, to be read when asked for, and then checked."""
        return MappedRows([self.features], check)

    def rows(self, indices: "Sequence[int] | np.ndarray") -> "np.ndarray":
        """A copy of the rows at ``indices``, float32 ``[len(indices), embed]``."""
        import numpy as np

        return np.array(self.features[np.asarray(indices, dtype=np.int64)])

    def _map(self, name: str, dtype: str) -> "np.ndarray":
        import numpy as np

        entry = self.layout.tensors[name]
        shape = tuple(entry["shape"])
        if 0 in shape:  # an empty range cannot be mapped
            return np.zeros(shape, dtype)
        return np.memmap(self.path, dtype, "r", self.layout.data_start + entry["data_offsets"][0], shape)
