"""Whether images are where a dataset says, and can be decoded. Without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from metavqa_cli.engine.site import INDEX
from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError
from metavqa_cli.store.images import ImageFile

LISTED = 100  # images of one place that are named one by one; the others are counted
BATCH = 64  # images that a worker process decodes at a time

Problem = Literal["missing", "extra", "size", "content", "damaged", "gone", "unrecorded"]


@dataclass(frozen=True)
class Difference:
    """What is not as it was built: a file of the dataset, an image, or the place of images; and a sentence on it.

    missing: recorded and not there; extra: there and not recorded; size and content: not those recorded; damaged: it
    cannot be read; gone: images, or their folder or archive, are not where they were; unrecorded: the manifest has no
    list of files.
    """

    file: str
    problem: Problem
    detail: str


def look_for(places: Mapping[str, ImageFile]) -> tuple[list[Difference], dict[str, int]]:
    """Which images are not there, and the sizes of those that are. Reads no image; each archive's directory once."""
    differences: list[Difference] = []
    sizes: dict[str, int] = {}
    by_root: dict[tuple[Path, bool], dict[str, ImageFile]] = {}
    for image, file in places.items():
        by_root.setdefault((file.root, file.packed), {})[image] = file
    for (root, packed), files in sorted(by_root.items(), key=str):
        try:
            found = _sizes(root, packed, files)
        except MetaVQAError as error:
            differences.append(Difference(str(root), "damaged" if root.exists() else "gone", _in_it(str(error), files)))
            continue
        sizes |= found
        differences += _absent(root, files, found)
    return differences, sizes


def _sizes(root: Path, packed: bool, files: Mapping[str, ImageFile]) -> dict[str, int]:
    """Bytes of each image that is there. ``MissingError`` or ``JobError`` when ``root`` is not."""
    if packed:
        from metavqa_cli.tasks.sources.packed import members

        listed = {member.filename: member.file_size for member in members(root)}
        return {image: listed[file.name] for image, file in files.items() if file.name in listed}
    if not root.is_dir():
        raise MissingError(f"{root} is not a folder that can be read")
    measured = {image: file_size(file.path) for image, file in files.items()}
    return {image: size for image, size in measured.items() if size is not None}


def file_size(path: Path) -> int | None:
    """Bytes of the file, or None when there is none."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def _absent(root: Path, files: Mapping[str, ImageFile], sizes: Mapping[str, int]) -> list[Difference]:
    """The images of one root that are gone or empty: as one difference when that is all of them."""
    if len(files) > 1 and not sizes:
        return [Difference(str(root), "gone", _in_it("none of its images is there", files))]
    gone = [Difference(str(files[image]), "gone", "the image is not there") for image in sorted({*files} - {*sizes})]
    empty = [image for image in sorted(sizes) if not sizes[image]]
    return at_most([*gone, *(Difference(str(files[image]), "damaged", "0 bytes") for image in empty)])


def _in_it(sentence: str, files: Mapping[str, ImageFile]) -> str:
    many = f"{len(files):,} images" if len(files) > 1 else "one image"
    return f"{sentence}; {many} of the dataset should be in it (the first line of {INDEX} says where to look)"


def at_most(differences: list[Difference]) -> list[Difference]:
    """The first ``LISTED``, and one that counts the others."""
    if len(differences) <= LISTED:
        return differences
    more, last = len(differences) - LISTED, differences[LISTED]
    return [*differences[:LISTED], Difference(f"{more:,} more", last.problem, f"the first of them is {last.file}")]


def decode_all(images: list[tuple[str, ImageFile]], workers: int) -> Iterator[tuple[int, list[Difference]]]:
    """How many images were decoded so far, and which of the last ones cannot be."""
    rest = iter(images)
    batches = list(iter(lambda: list(islice(rest, BATCH)), []))
    done = 0
    for batch, broken in zip(batches, _mapped(batches, workers), strict=True):
        done += len(batch)
        yield done, broken


def _mapped(batches: list[list[tuple[str, ImageFile]]], workers: int) -> Iterator[list[Difference]]:
    if workers <= 1 or len(batches) <= 1:
        yield from map(find_broken, batches)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    from metavqa_cli.store.workers import follow_parent

    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(batches)), context, follow_parent) as pool:
            yield from pool.map(find_broken, batches)
    except BrokenProcessPool:
        raise JobError(
            "a process that decoded images was killed, perhaps for its memory; "
            "run the command again with fewer (--workers 1)"
        ) from None


def find_broken(images: list[tuple[str, ImageFile]]) -> list[Difference]:
    """Those of ``images`` that cannot be decoded (what a worker process runs)."""
    from metavqa_cli.clip.images import open_image

    broken = []
    for _, file in images:
        try:
            open_image(file)
        except MetaVQAError as error:
            broken.append(Difference(str(file), "damaged", str(error)))
    return broken
