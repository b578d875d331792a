"""One task to look at: its answers counted, some of its pairs chosen, their images as one picture. Without torch."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from metavqa_cli.engine.site import IMAGES, INDEX
from metavqa_cli.schema.errors import MetaVQAError, MissingError
from metavqa_cli.store.atomic import atomic_path
from metavqa_cli.store.images import ImageFile, local_files, read_index
from metavqa_cli.tasks.taskset import Task

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

TILE, GAP, HEAD, FOOT, COLUMNS = 128, 12, 26, 17, 8  # pixels; the last is tiles in a row
LARGE, MIDDLE, SMALL = 20, 14, 11  # letters
INK, PALE, PAPER = (28, 28, 34), (120, 122, 132), (255, 255, 255)
HUES = ((46, 104, 214), (206, 98, 30))  # of neighbouring groups, in turn
# Pillow's own font is Latin. These are looked for where the system keeps its fonts, wide ones first.
FONTS = (
    "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arialuni.ttf",
    "PingFang.ttc", "msyh.ttc", "msgothic.ttc", "malgun.ttf", "segoeui.ttf", "arial.ttf",
)  # fmt: skip

Part = Literal["support", "query"]
PARTS: tuple[Part, ...] = ("support", "query")


@dataclass(frozen=True)
class Tally:
    """An answer of a task: how many images have it, and the statement it makes."""

    answer: str
    support: int
    query: int
    statement: str

    @property
    def total(self) -> int:
        return self.support + self.query


@dataclass(frozen=True)
class Pair:
    """An image of a task with its answer; ``place`` is None when the dataset does not say where the image is."""

    image: str
    answer: str
    part: Part
    place: ImageFile | None


def image_places(folder: Path, images: Iterable[str]) -> dict[str, ImageFile]:
    """Where those of ``images`` are that the dataset in ``folder`` has; empty for one of tasks only.

    ``JobError`` when its index of images is damaged.
    """
    if (folder / INDEX).is_file():
        index = read_index(folder / INDEX)
        return {image: index[image] for image in images if image in index}
    return local_files(folder / IMAGES, images) if (folder / IMAGES).is_dir() else {}


def tally(task: Task) -> list[Tally]:
    """The answers of ``task``, the most frequent first."""
    support, query = (Counter(label for _, label in pairs) for pairs in (task.support, task.query))
    rows = [
        Tally(answer, support[label], query[label], statement)
        for label, (answer, statement) in enumerate(zip(task.answers, task.statements, strict=True))
    ]
    return sorted(rows, key=lambda row: -row.total)


def pairs_of(task: Task, places: Mapping[str, ImageFile], parts: Sequence[Part] = PARTS) -> list[Pair]:
    """The pairs of ``task`` answer by answer, the most frequent first; in each the support set's before the query's."""
    rank = {row.answer: number for number, row in enumerate(tally(task))}
    pairs = [
        Pair(image, task.answers[label], part, places.get(image))
        for part in parts
        for image, label in getattr(task, part)
    ]
    return sorted(pairs, key=lambda pair: rank[pair.answer])


def choose(pairs: Sequence[Pair], number: int) -> list[Pair]:
    """At most ``number`` of ``pairs``, in their order: as evenly over the answers as there are images."""
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: pair.answer)]
    turns = sorted((turn, place) for place, group in enumerate(groups) for turn in range(len(group)))[:number]
    taken = Counter(place for _, place in turns)
    return [pair for place, group in enumerate(groups) for pair in group[: taken[place]]]


def open_pair(pair: Pair) -> "Image.Image":
    """The image of ``pair`` as RGB. ``MissingError`` or ``JobError`` when it is not there or cannot be read."""
    from metavqa_cli.clip.images import open_image

    if pair.place is None:
        raise MissingError(f"image {pair.image} is not listed in {INDEX}; `metavqa dataset verify` lists all that lack")
    return open_image(pair.place)


def write_contact(path: Path, task: Task, pairs: Sequence[Pair]) -> list[str]:
    """Draw ``pairs`` of ``task``, grouped by answer, and write them as PNG to ``path``, atomically.

    Returns a sentence for each image that could not be read (its tile is empty) and one for letters without a font.
    """
    from PIL import Image, ImageDraw

    counts = {row.answer: row for row in tally(task)}
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: pair.answer)]
    spots = layout([len(group) for group in groups], COLUMNS)
    rows = 1 + max((row for spot in spots for row, _ in spot), default=-1)
    top = LARGE + 2 * MIDDLE + 4 * GAP
    size = (GAP + COLUMNS * (TILE + GAP), top + rows * (HEAD + TILE + FOOT + GAP))
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    texts = _title(pen, task, len(pairs), size[0])
    problems: list[str] = []
    for number, (group, spot) in enumerate(zip(groups, spots, strict=True)):
        texts.append(_head(pen, counts[group[0].answer], len(group), spot, HUES[number % 2], top))
        for pair, place in zip(group, spot, strict=True):
            problems += _tile(sheet, pen, pair, _corner(place, top))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
    lost = "".join(
        sorted(
            {
                letter
                for text in texts
                for letter, drawn in zip(text, _lettering(text, SMALL)[1], strict=True)
                if letter != drawn
            }
        )
    )
    return [*problems, *([f"no font here has {lost!r}; the sheet shows ? instead"] if lost else [])]


def layout(sizes: Sequence[int], columns: int) -> list[list[tuple[int, int]]]:
    """(row, column) of every tile of groups of ``sizes``.

    A group begins where the last one ended if all of it fits in that row, else in a row of its own.
    """
    spots: list[list[tuple[int, int]]] = []
    free = 0
    for size in sizes:
        if free % columns + size > columns:
            free = -(-free // columns) * columns
        spots.append([divmod(number, columns) for number in range(free, free + size)])
        free += size
    return spots


def _corner(place: tuple[int, int], top: int) -> tuple[int, int]:
    """The upper left pixel of a tile."""
    row, column = place
    return GAP + column * (TILE + GAP), top + row * (HEAD + TILE + FOOT + GAP) + HEAD


def _title(pen: "ImageDraw.ImageDraw", task: Task, shown: int, width: int) -> list[str]:
    pairs = len(task.support) + len(task.query)
    novelty = f" ({task.novelty})" if task.novelty else ""
    kind = f" - {task.family}" if task.family else ""
    counts = f"{len(task.answers)} answers, {pairs} images: {len(task.support)} support + {len(task.query)} query"
    lines = [
        (task.question, LARGE, INK),
        (f"{task.template} - {task.split}{novelty}{kind}", MIDDLE, INK),
        (counts if shown == pairs else f"{counts}; {shown} shown", MIDDLE, PALE),
    ]
    y = GAP
    for text, size, color in lines:
        _write(pen, (GAP, y), text, size, color, width - 2 * GAP)
        y += size + GAP // 2
    return [text for text, _, _ in lines]


def _head(
    pen: "ImageDraw.ImageDraw", counts: Tally, shown: int, spot: Sequence[tuple[int, int]], hue: tuple[int, int, int],
    top: int,
) -> str:  # fmt: skip
    """A line over each row of a group; on the first the answer and how often it is in the support and query sets."""
    text = f"{counts.answer}  {counts.support} + {counts.query}" + (f", {shown} shown" if shown < counts.total else "")
    for row, tiles in groupby(spot, key=lambda place: place[0]):
        columns = [column for _, column in tiles]
        x, y = _corner((row, columns[0]), top)
        right = _corner((row, columns[-1]), top)[0] + TILE
        pen.rectangle((x, y - 5, right, y - 4), hue)
        if row == spot[0][0]:
            _write(pen, (x, y - HEAD + 3), text, MIDDLE, hue, right - x)
    return text


def _tile(sheet: "Image.Image", pen: "ImageDraw.ImageDraw", pair: Pair, corner: tuple[int, int]) -> Iterator[str]:
    """Paste an image, or an empty frame; yields why it is empty."""
    from PIL import Image, ImageOps

    x, y = corner
    try:
        image = open_pair(pair)
    except MetaVQAError as error:
        pen.rectangle((x, y, x + TILE - 1, y + TILE - 1), outline=PALE)
        pen.line((x, y, x + TILE - 1, y + TILE - 1), PALE)
        yield str(error)
    else:
        enlarging = max(image.size) < TILE
        method = Image.Resampling.NEAREST if enlarging else Image.Resampling.LANCZOS
        image = ImageOps.contain(image, (TILE, TILE), method)
        sheet.paste(image, (x + (TILE - image.width) // 2, y + (TILE - image.height) // 2))
    _write(pen, (x, y + TILE + 3), f"{pair.part} {pair.image}", SMALL, PALE, TILE)


def _write(
    pen: "ImageDraw.ImageDraw", corner: tuple[int, int], text: str, size: int, color: tuple[int, int, int], width: int
) -> None:
    """Write ``text``, cut with "..." where it is wider than ``width`` pixels."""
    font, text = _lettering(text[:300], size)
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text += "..."
    pen.text(corner, text, color, font)


@lru_cache(maxsize=1024)
def _lettering(text: str, size: int) -> "tuple[Font, str]":
    """The font that has the most letters of ``text``, and ``text`` with a question mark for each that it lacks."""
    from PIL import ImageFont

    own = ImageFont.load_default(size)
    plain = text.encode("latin-1", "replace").decode("latin-1")
    candidates: list[tuple[Font, str]] = [(own, "".join(c if c.isprintable() else "?" for c in plain))]
    for name in FONTS if candidates[0][1] != text else ():
        font = _system_font(name, size)
        if font is not None:
            candidates.append((font, "".join(c if _has(font, c) else "?" for c in text)))
    return max(candidates, key=lambda found: sum(a == b for a, b in zip(text, found[1], strict=True)))


@lru_cache(maxsize=64)
def _system_font(name: str, size: int) -> "ImageFont.FreeTypeFont | None":
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, size)
    except (OSError, ImportError):
        return None


def _has(font: "ImageFont.FreeTypeFont", letter: str) -> bool:
    """Whether ``font`` draws ``letter``: not as it draws what no font has."""
    if not letter.isprintable():
        return False
    (drawn, at), (nothing, beside) = (font.getmask2(text, "1") for text in (letter, "\U0010ffff"))
    return letter == " " or (bytes(drawn), at) != (bytes(nothing), beside)
