"""Image features on disk: one safetensors file with a row for each image, read through a memory map.

Its tensors are ``features`` (float32 ``[image, embed]``) and ``ids`` (uint8: the image ids, one JSON string a line).
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metavqa_cli.schema.errors import JobError
from metavqa_cli.store.atomic import atomic_path
from metavqa_cli.store.tensors import Layout, header_of, read_layout

if TYPE_CHECKING:
    import numpy as np

CHECKSUM = "sha256"


def rebuild(dataset: str) -> str:
    """The way out of a damaged dataset."""
    return f"build it again with `metavqa dataset build --force --name {shlex.quote(dataset)}`"


def write_features(path: Path, ids: list[str], features: "np.ndarray", header: dict[str, Any]) -> None:
    """Write ``features`` (float32 ``[image, embed]``, finite) for the images ``ids`` to ``path``, atomically.

    ``header["encoder"]`` is the identity of the encoder that made them; a checksum is added.
    """
    import numpy as np
    from safetensors.numpy import save

    if features.dtype != np.float32 or features.ndim != 2 or len(features) != len(ids):
        found = f"{features.dtype} {features.shape}"
        raise ValueError(f"{len(ids)} ids need float32 features [{len(ids)}, embed], found {found}")
    if not np.isfinite(features).all():
        raise JobError(f"the features for {path} hold NaN or infinite values; check the encoder with `metavqa env`")
    lines = "".join(json.dumps(name) + "\n" for name in ids).encode()
    tensors = {"features": np.ascontiguousarray(features), "ids": np.frombuffer(lines, np.uint8)}
    header = {**header, CHECKSUM: _checksum(tensors["features"], lines)}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={"metavqa": json.dumps(header, ensure_ascii=False)}))


def _checksum(features: "np.ndarray", lines: bytes) -> str:
    digest = hashlib.sha256(lines)
    digest.update(features.data)
    return digest.hexdigest()


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
            lines = self._map("ids", "uint8").tobytes().decode("utf-8").splitlines()
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise JobError(f"{self.path} is damaged ({error}); {self.remedy}") from None

    @cached_property
    def features(self) -> "np.ndarray":
        """All rows, float32 ``[image, embed]``, as a read-only memory map."""
        return self._map("features", "<f4")

    def verified(self) -> "np.ndarray":
        """All rows in memory, float32 ``[image, embed]``. ``JobError`` when the file is not what was written."""
        import numpy as np

        features = np.array(self.features)
        if CHECKSUM not in self.header:
            raise JobError(f"{self.path} was written by another version of metavqa; {self.remedy}")
        if _checksum(features, self._map("ids", "uint8").tobytes()) != self.header.get(CHECKSUM):
            raise JobError(f"{self.path} is damaged (its checksum differs); {self.remedy}")
        return features

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
