"""Where the images of a dataset are: files in folders, or members of zip archives that stay packed.

``images.jsonl`` has a first line ``{"roots": [PATH, …]}`` (folders or zips, absolute), then a line
``[image id, number of its root, path inside it]`` for each image, sorted by id. Images that were moved are found again
by changing the roots.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.strict import parse_line
from metavqa_cli.schema.text import json_text
from metavqa_cli.store.atomic import write_text

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
"""Of files that are taken for images where a folder is looked through."""


@dataclass(frozen=True)
class ImageFile:
    """An image in ``root``: a file below a folder, or (``packed``) a member of a zip archive."""

    root: Path
    name: str
    packed: bool = False

    @property
    def path(self) -> Path:
        """Its path; for a member, inside the archive's (no file is there)."""
        return self.root / self.name

    def __str__(self) -> str:
        return str(self.path)


def write_index(path: Path, images: Mapping[str, ImageFile]) -> None:
    """Write where ``images`` (id -> place) are, atomically; the same mapping gives the same bytes."""
    roots = sorted({(str(file.root), file.packed) for file in images.values()})
    number = {root: i for i, root in enumerate(roots)}
    lines: list[Any] = [{"roots": [root for root, _ in roots]}]
    lines += [[image, number[str(file.root), file.packed], file.name] for image, file in sorted(images.items())]
    write_text(path, "".join(json_text(line) + "\n" for line in lines))


def read_index(path: Path) -> dict[str, ImageFile]:
    """What ``write_index`` wrote. ``MissingError`` when there is none, ``JobError`` naming the line when damaged."""
    try:
        lines = path.read_bytes().splitlines() or [b""]
    except FileNotFoundError:
        raise MissingError(f"{path} is missing; build the dataset again with `metavqa dataset build`") from None
    found: dict[str, ImageFile] = {}
    roots: list[tuple[Path, bool]] | None = None
    for number, line in enumerate(lines, 1):
        try:
            if roots is None:
                roots = [(root, _is_packed(root)) for root in map(Path, parse_line(line)["roots"])]
            else:
                image, at, name = parse_line(line)
                if (type(image), type(at), type(name)) != (str, int, str) or at < 0 or "\0" in name:
                    raise ValueError("it is not an image, the number of its root, and its path inside")
                root, packed = roots[at]
                found[image] = ImageFile(root, name, packed)
        except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
            raise JobError(
                f"{path}, line {number} is damaged ({error}); build the dataset again with --force"
            ) from None
    return found


def _is_packed(root: Path) -> bool:
    """Whether a root is an archive; one that is not there tells it by its name."""
    return root.is_file() or (root.suffix.lower() == ".zip" and not root.is_dir())


def local_files(folder: Path, images: Iterable[str], suffix: str = ".png") -> dict[str, ImageFile]:
    """The places of images that a dataset keeps in a folder of its own."""
    return {image: ImageFile(folder, f"{image}{suffix}") for image in images}
