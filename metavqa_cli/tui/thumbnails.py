"""Image files to small pictures, for threads: a file that is missing or damaged becomes a tile that says so."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from metavqa_cli.engine.contact import Pair, open_pair
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.images import ImageFile
from metavqa_cli.tui.pictures import Tile

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 128 * 128  # twice as many each way as half blocks of a usual tile show; sixel and kitty look well too


def thumbnails(sources: Iterable[Pair | ImageFile | Path], most_pixels: int = MOST_PIXELS) -> Iterator[Tile]:
    """A tile for each of ``sources``, one after the other, so that a caller can stop between two.

    Labels are a pair's answer with its part, or a file's name. Decodes: not for the event loop.
    """
    for source in sources:
        label = label_of(source)
        try:
            yield Tile(_thumbnail(_opened(source), most_pixels), label)
        except MetaVQAError as error:
            yield Tile(None, label, str(error))
        except Exception as error:  # no memory, or an archive that is damaged in a way of its own: the others are shown
            yield Tile(None, label, f"cannot be shown ({str(error) or type(error).__name__})")


def label_of(source: Pair | ImageFile | Path) -> str:
    """What stands below its picture."""
    return f"{source.answer} ({source.part})" if isinstance(source, Pair) else Path(str(source)).name


def _opened(source: Pair | ImageFile | Path) -> "Image.Image":
    from metavqa_cli.clip.images import open_image

    return open_pair(source) if isinstance(source, Pair) else open_image(source)


def _thumbnail(image: "Image.Image", most_pixels: int) -> "Image.Image":
    """``image`` with at most ``most_pixels``, its shape kept. Small ones stay as they are."""
    shrink = (most_pixels / (image.width * image.height)) ** 0.5
    if shrink < 1:
        image.thumbnail((max(1, int(image.width * shrink)), max(1, int(image.height * shrink))))
    return image
