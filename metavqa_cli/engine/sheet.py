"""A contact sheet: judged images with the classifier's answers as bars, and plain zero-shot CLIP's, as one picture."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from metavqa_cli.clip.images import open_image
from metavqa_cli.engine.classifier import Judgement
from metavqa_cli.store.atomic import atomic_path

TILE, GAP, LINE, BARS = 144, 14, 15, 4
INK, PALE, OURS, CLIPS = (30, 30, 36), (228, 230, 236), (52, 110, 220), (150, 152, 162)
COLUMNS = 4


def write_sheet(path: Path, title: str, judgements: Sequence[Judgement]) -> None:
    """Draw ``judgements`` in rows of four under ``title`` and write them to ``path`` (a .png), atomically."""
    height = TILE + LINE * (2 * BARS + 3)
    rows = -(-len(judgements) // COLUMNS)
    columns = min(COLUMNS, len(judgements))
    sheet = Image.new("RGB", (GAP + columns * (TILE + GAP), 2 * GAP + LINE + rows * (height + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.text((GAP, GAP // 2), _printable(title), INK, ImageFont.load_default(14))
    for i, judgement in enumerate(judgements):
        x, y = GAP + i % columns * (TILE + GAP), GAP + 2 * LINE + i // columns * (height + GAP)
        image = open_image(Path(judgement.image))
        sheet.paste(image.resize((TILE, TILE), Image.Resampling.NEAREST if image.width < TILE else None), (x, y))
        y = _bars(pen, font, x, y + TILE + 4, "generated classifier", judgement.ranked, OURS)
        _bars(pen, font, x, y + 4, "zero-shot CLIP", judgement.clip, CLIPS)
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _bars(
    pen: ImageDraw.ImageDraw,
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
    x: int,
    y: int,
    name: str,
    ranked: Sequence[tuple[str, float]],
    color: tuple[int, int, int],
) -> int:
    pen.text((x, y), name, color, font)
    for k, (answer, probability) in enumerate(ranked[:BARS], 1):
        top = y + k * LINE
        pen.rectangle((x, top + 1, x + TILE, top + LINE - 2), PALE)
        pen.rectangle((x, top + 1, x + round(TILE * probability), top + LINE - 2), color)
        pen.text((x + 4, top), f"{_printable(answer)[:16]} {probability:.2f}", INK, font)
    return y + (BARS + 1) * LINE


def _printable(text: str) -> str:
    """The default font has Latin letters only; anything else becomes a question mark."""
    return text.encode("latin-1", "replace").decode("latin-1")
