"""VQA v2 and its COCO images as they are shipped: which files, from where, how large, and what a download comes to."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.strict import parse_json
from metavqa_cli.store import fetch
from metavqa_cli.store.atomic import write_json
from metavqa_cli.store.fetch import Remote
from metavqa_cli.store.unpack import bytes_to_write

What = Literal["questions", "annotations", "images"]
Split = Literal["train", "val"]
State = Literal["there", "part", "absent"]
VQA_URL = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/"
IMAGES_URL = "http://images.cocodataset.org/zips/"
CHECKSUMS = "checksums.json"
JSON_GROWTH, IMAGES_GROWTH = 20, 1  # estimates for archives that are not there yet; JPEGs do not pack


@dataclass(frozen=True)
class Archive:
    """A file of VQA v2 as it is shipped: its name, its part of the data and its exact size in bytes."""

    name: str
    what: What
    split: Split
    size: int


ARCHIVES: tuple[Archive, ...] = (
    Archive("v2_Questions_Train_mscoco.zip", "questions", "train", 7_239_401),
    Archive("v2_Questions_Val_mscoco.zip", "questions", "val", 3_494_929),
    Archive("v2_Annotations_Train_mscoco.zip", "annotations", "train", 21_708_861),
    Archive("v2_Annotations_Val_mscoco.zip", "annotations", "val", 10_518_930),
    Archive("train2014.zip", "images", "train", 13_510_573_713),
    Archive("val2014.zip", "images", "val", 6_645_013_297),
)


@dataclass(frozen=True)
class Checksum:
    """What a file was when it first came: ``bytes`` and ``sha256``."""

    bytes: int
    sha256: str


Record = Mapping[str, Checksum]  # by file name


@dataclass(frozen=True)
class Order:
    """What to download and how.

    ``base_url`` has questions and annotations, ``images_url`` the images; both end in a slash. ``pins`` are expected
    sha256 by file name, which beat what was recorded. ``sleep`` (for tests) waits between attempts.
    """

    folder: Path
    archives: Sequence[Archive] = ARCHIVES
    base_url: str = VQA_URL
    images_url: str = IMAGES_URL
    pins: Mapping[str, str] = field(default_factory=dict)
    unpack: bool = False
    jobs: int = 2
    retries: int = 8
    offline: bool = False
    sleep: Callable[[float], None] | None = None

    def path(self, archive: Archive) -> Path:
        return self.folder / archive.name

    def url(self, archive: Archive) -> str:
        return (self.images_url if archive.what == "images" else self.base_url) + archive.name


@dataclass(frozen=True)
class Planned:
    """One file: where from, where to, how much of it is there (``have``) and what unpacking it still writes."""

    archive: Archive
    url: str
    path: Path
    have: int
    state: State
    to_unpack: int

    @property
    def remaining(self) -> int:
        return self.archive.size - self.have


@dataclass(frozen=True)
class Plan:
    """What an order comes to, before anything is asked of the network. All numbers are bytes."""

    files: tuple[Planned, ...]
    free: int

    @property
    def remaining(self) -> int:
        return sum(file.remaining for file in self.files)

    @property
    def needed(self) -> int:
        """Free disk that the downloads and the unpacking need."""
        return self.remaining + sum(file.to_unpack for file in self.files)

    @property
    def fits(self) -> bool:
        return self.needed <= self.free


def make_plan(order: Order) -> Plan:
    """What the order comes to. ``JobError`` for a finished file of the wrong size; touches nothing."""
    recorded = read_checksums(order.folder)
    files = tuple(_planned(order, archive, recorded) for archive in order.archives)
    existing = next(place for place in (order.folder, *order.folder.parents) if place.exists())
    return Plan(files, shutil.disk_usage(existing).free)


def _planned(order: Order, archive: Archive, recorded: Record) -> Planned:
    path, wanted = order.path(archive), remote(order, archive, recorded)
    growth = IMAGES_GROWTH if archive.what == "images" else JSON_GROWTH
    if not path.exists():
        have = fetch.part_length(wanted, path)
        later = growth * archive.size if order.unpack else 0
        return Planned(archive, wanted.url, path, have, "part" if have else "absent", later)
    if not path.is_file() or path.stat().st_size != archive.size:
        other = "a folder" if path.is_dir() else "a pipe or a device"
        found = f"{path.stat().st_size} bytes" if path.is_file() else other
        raise JobError(f"{path} is {found}, but {archive.size} bytes were expected; remove it or move it elsewhere")
    later = bytes_to_write(path, order.folder) if order.unpack else 0
    return Planned(archive, wanted.url, path, archive.size, "there", later)


def remote(order: Order, archive: Archive, recorded: Record) -> Remote:
    """Where to get ``archive`` and what must come: a pinned sha256 beats a recorded one."""
    known = recorded.get(archive.name)
    return Remote(order.url(archive), archive.size, order.pins.get(archive.name, known.sha256 if known else None))


def read_checksums(folder: Path) -> dict[str, Checksum]:
    """What was recorded in the folder when its files first came. ``JobError`` for a damaged record."""
    path = folder / CHECKSUMS
    try:
        entries = parse_json(path.read_bytes()).items()
        return {name: Checksum(int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JobError(f"{path} is damaged ({error}); remove it, and the checksums are recorded anew") from None


def write_checksums(folder: Path, record: Record) -> None:
    """Write ``checksums.json``, sorted by file name."""
    write_json(folder / CHECKSUMS, {name: asdict(record[name]) for name in sorted(record)})
