"""Image features in shards: one feature file for each ``SHARD`` images, so that a long build goes on where it stopped.

``images-00002-of-00016.safetensors`` holds a row for each readable image of the second slice of the ids, in their
order. Its header says whose features they are (``encoder``), where the slice begins (``first``) among ``total`` ids,
and which of its images could not be read (``broken``: ``[[id, reason], …]``).
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError
from metavqa_cli.store.features import FeatureStore, rebuild, write_features
from metavqa_cli.store.mapped import Check, MappedRows

if TYPE_CHECKING:
    import numpy as np

SHARD = 4096  # images: 12 MB at 768 dimensions, and about a minute of a small encoder's work on one core
NAME = re.compile(r"-(\d{5,})-of-(\d{5,})\.safetensors")
ShardState = Literal["finished", "absent", "other"]
Broken = tuple[tuple[str, str], ...]  # (image id, why it could not be read)


def shard_names(kind: str, total: int) -> list[str]:
    """File names of the shards of ``total`` images, at least one: ``images-00001-of-00016.safetensors``, …"""
    count = max(1, -(-total // SHARD))
    return [f"{kind}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def slices(ids: Sequence[str]) -> list[Sequence[str]]:
    """The ids of each shard, in the order of ``shard_names``."""
    return [ids[start : start + SHARD] for start in range(0, max(1, len(ids)), SHARD)]


def write_shard(
    path: Path,
    ids: Sequence[str],
    features: "np.ndarray",
    *,
    encoder: dict[str, Any],
    first: int,
    total: int,
    broken: Iterable[tuple[str, str]] = (),
) -> None:
    """Write one shard, atomically: ``features`` (float32 ``[good, embed]``) of the slice ``ids`` less the ``broken``.

    ``first`` is the position of the slice among ``total`` ids. The same arguments give the same bytes.
    """
    lost = [[image, reason] for image, reason in broken]
    header = {"encoder": encoder, "first": first, "total": total, "broken": lost}
    write_features(path, _good(ids, lost), features, header)


def _good(ids: Sequence[str], broken: Iterable[Sequence[str]]) -> list[str]:
    lost = {image for image, _ in broken}
    return [image for image in ids if image not in lost]


def read_shard_state(path: Path, ids: Sequence[str], identity: dict[str, Any], total: int | None = None) -> ShardState:
    """Whether ``path`` is the finished shard of the slice ``ids`` by the encoder ``identity``; reads no features.

    "other" is a shard of other images, of another encoder, or a damaged one: it has to be written again. A finished
    shard may have broken images: ``shard_broken``.
    """
    if not path.is_file():
        return "absent"
    try:
        store = FeatureStore.open(path)
        broken, stored = _broken(store), store.ids
    except MetaVQAError:
        return "other"
    fits = {image for image, _ in broken}.issubset(ids) and stored == _good(ids, broken)
    of_total = total is None or store.header.get("total") == total
    return "finished" if fits and of_total and store.header.get("encoder") == identity else "other"


def shard_broken(path: Path) -> Broken:
    """The broken images of the shard at ``path``. Errors as ``FeatureStore.open``."""
    return _broken(FeatureStore.open(path))


def _broken(store: FeatureStore) -> Broken:
    found = store.header.get("broken", [])
    try:
        return tuple((str(image), str(reason)) for image, reason in found)
    except (TypeError, ValueError):
        raise JobError(f"{store.path} is damaged (its list of broken images); {store.remedy}") from None


def describe_difference(there: dict[str, Any], here: dict[str, Any], words: tuple[str, str] = ("there", "here")) -> str:
    """The fields in which two encoders' identities differ, each with both values; "" when they are the same."""
    names = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    return "; ".join(f"{name}: {there.get(name)!r} {words[0]}, {here.get(name)!r} {words[1]}" for name in names)


@dataclass(frozen=True)
class ShardedFeatures:
    """The features of a whole dataset, of which every shard was found; read when asked for.

    ``path`` is what messages call it. A single feature file, as small datasets have, counts as one shard.
    """

    path: Path
    shards: tuple[FeatureStore, ...]

    @staticmethod
    def open(folder: Path, kind: str) -> "ShardedFeatures":
        """Open the shards ``kind-*.safetensors`` in ``folder`` after checking headers and lengths, not yet contents.

        ``MissingError`` naming the shards that are missing; ``JobError`` for a damaged shard, and for shards of
        different encoders or of different builds.
        """
        single = folder / f"{kind}.safetensors"
        paths = _complete(folder, kind)
        if not paths and single.is_file():
            return ShardedFeatures(single, (FeatureStore.open(single),))
        if not paths:
            raise MissingError(f"there are no features of {kind} in {folder}; {rebuild(folder.parent.name)}")
        shards = tuple(FeatureStore.open(path) for path in paths)
        for shard in shards[1:]:
            _same_encoder(shards[0], shard)
        _in_sequence(shards)
        return ShardedFeatures(folder / kind, shards)

    @property
    def remedy(self) -> str:
        return self.shards[0].remedy

    @property
    def encoder(self) -> dict[str, Any]:
        """The identity of the encoder that made them."""
        return dict(self.shards[0].header.get("encoder", {}))

    @cached_property
    def header(self) -> dict[str, Any]:
        """The first shard's header."""
        return self.shards[0].header

    @cached_property
    def broken(self) -> Broken:
        """The images without a row, each with the reason."""
        return tuple(pair for shard in self.shards for pair in _broken(shard))

    @property
    def embed(self) -> int:
        """E, the size of an embedding."""
        return int(self.shards[0].layout.tensors["features"]["shape"][1])

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def ids(self) -> list[str]:
        """The image of each row. ``JobError`` when they are damaged."""
        return [image for shard in self.shards for image in shard.ids]

    @cached_property
    def _starts(self) -> list[int]:
        """The row at which each shard begins, and the number of rows."""
        return [0, *accumulate(len(shard) for shard in self.shards)]

    def verified(self) -> "np.ndarray":
        """All rows, float32 ``[image, embed]``, read straight into one array. ``JobError`` for a damaged shard."""
        import numpy as np

        rows = np.empty((len(self), self.embed), np.float32)
        parts = [rows[start:stop] for start, stop in zip(self._starts, self._starts[1:], strict=False)]
        self._each(FeatureStore.read_into, parts)
        return rows

    def check(self) -> None:
        """Read all rows once, holding none. Errors as ``verified``."""
        self._each(FeatureStore.check)

    def _each(self, work: Callable[..., None], *arguments: "Sequence[np.ndarray]") -> None:
        with ThreadPoolExecutor(min(len(self.shards), os.cpu_count() or 1)) as pool:
            for _ in pool.map(work, self.shards, *arguments):
                pass

    @property
    def nbytes(self) -> int:
        """Size of all rows."""
        return sum(shard.nbytes for shard in self.shards)

    def mapped(self, check: Check | None = None) -> MappedRows:
        """All rows, to be read when asked for, and then checked."""
        return MappedRows([shard.features for shard in self.shards], check)

    def rows(self, indices: "Sequence[int] | np.ndarray") -> "np.ndarray":
        """A copy of the rows at ``indices`` (from 0), float32 ``[len(indices), embed]``, through memory maps."""
        import numpy as np

        return self.mapped().take(np.asarray(indices, dtype=np.int64))


def _complete(folder: Path, kind: str) -> list[Path]:
    """All shards of one build in order; none when there are none at all."""
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob(f"{kind}-*.safetensors"):
        if match := NAME.fullmatch(path.name.removeprefix(kind)):
            found.setdefault(int(match[2]), {})[int(match[1])] = path
    remedy = rebuild(folder.parent.name)
    if len(found) > 1:
        names = " and ".join(str(min(by_number.items())[1]) for _, by_number in sorted(found.items()))
        raise JobError(f"{names} are of different builds; {remedy}")
    for count, by_number in found.items():
        if missing := sorted({*range(1, count + 1)} - {*by_number}):
            verb = "shards {} of {} are" if len(missing) > 1 else "shard {} of {} is"
            raise MissingError(
                f"{verb.format(_and(missing), count)} missing in {folder}; run the same `metavqa dataset build` again, "
                "it only makes what is missing"
            )
        return [by_number[number] for number in range(1, count + 1)]
    return []


def _and(numbers: Sequence[int], shown: int = 10) -> str:
    """``3, 5 and 7``; of many, the first."""
    words = [str(number) for number in numbers[:shown]]
    if len(numbers) > shown:
        words.append(f"{len(numbers) - shown} more")
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _same_encoder(first: FeatureStore, other: FeatureStore) -> None:
    words = f"in {first.path.name}", f"in {other.path.name}"
    if difference := describe_difference(first.header.get("encoder", {}), other.header.get("encoder", {}), words):
        raise JobError(f"the shards in {first.path.parent} are of different encoders ({difference}); {first.remedy}")


def _in_sequence(shards: Sequence[FeatureStore]) -> None:
    """Each shard begins where the one before ended, and together they are as many images as each says."""
    widths = {shard.layout.tensors["features"]["shape"][1] for shard in shards}
    begins = [0, *accumulate(len(shard) + len(_broken(shard)) for shard in shards)]
    for shard, begin in zip(shards, begins, strict=False):
        found = shard.header.get("first"), shard.header.get("total")
        if found != (begin, begins[-1]) or len(widths) > 1:
            raise JobError(
                f"{shard.path} is of another build: it begins at image {found[0]} of {found[1]}, expected {begin} of "
                f"{begins[-1]}; {shard.remedy}"
            )
