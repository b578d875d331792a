"""One task at one γ: its question and what was answered to each of its query images, in lines and in pictures."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from metavqa_cli.store.images import ImageFile
from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.pictures import Tile
from metavqa_cli.tui.sweep_tasks import CHANGES, JudgedImage, image_lines
from metavqa_cli.tui.thumbnails import thumbnails
from metavqa_cli.tui.widgets.picture import Gallery, Picture

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 60  # pictures of a task that are shown
SMALL = 19  # columns of a picture with what is around it: many at a glance
BATCH = 6  # handed over at once: drawing more takes longer than a key press may wait
PATIENCE = 0.08  # seconds on a task before its images are read: who scrolls by needs none
NO_PICTURES = "the dataset does not say where its images are; `metavqa dataset verify` tells more"


class SweepAnswers(VerticalScroll):
    """The lines scroll below the question and the numbers, which stay."""

    DEFAULT_CSS = """
    SweepAnswers > .head { dock: top; height: auto; padding: 0 1; background: $background; }
    SweepAnswers > .lines { height: auto; padding: 0 1; }
    """

    def __init__(self, look: Look, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.images: Sequence[JudgedImage] = ()
        self.head: Sequence[str] = ()
        self.since: float | None = None

    def compose(self) -> ComposeResult:
        yield Static("", classes="head")
        yield Static("", classes="lines")

    def show(self, head: Sequence[str], images: Sequence[JudgedImage], since: float | None) -> None:
        """The first line of ``head`` is the question; ``since`` is the γ that changes are told from."""
        self.head, self.images, self.since = head, images, since
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        head = Text("\n").join(Text(self.look.text(line), "" if at else "bold") for at, line in enumerate(self.head))
        self.query_one(".head", Static).update(head)
        width = max(20, self.size.width - 4)
        lines = image_lines(self.images, self.since, width, self.look) if self.images else []
        self.query_one(".lines", Static).update(Text("\n").join(map(self._styled, lines)))

    def _styled(self, line: str) -> Text:
        """Bold where something changed; the words in the line say it too."""
        changed = any(words in line for words in CHANGES)
        return Text(line, "bold" if changed else "", no_wrap=True, overflow="ellipsis")


class PicturesRead(Message):
    """Some more pictures of the task that was asked for with ``request``."""

    def __init__(self, request: int, tiles: Sequence[Tile], last: bool) -> None:
        super().__init__()
        self.request, self.tiles, self.last = request, tuple(tiles), last


class SweepPictures(Vertical):
    """The task's query images with what was answered to them. Read in a thread, and only while they are in sight."""

    DEFAULT_CSS = """
    SweepPictures > Static { height: auto; padding: 0 1; color: $text-muted; }
    SweepPictures > Gallery { height: 1fr; padding: 0 1; }
    """

    def __init__(self, look: Look, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.reading = False
        self._images: Sequence[JudgedImage] = ()
        self._places: Mapping[str, ImageFile] = {}
        self._pictures: dict[str, tuple[Image | None, str]] = {}
        self._request = 0
        self._of: object = None
        self._wanted: object = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Static("", classes="hidden")
        yield Gallery()

    def show(self, task: object, images: Sequence[JudgedImage], places: Mapping[str, ImageFile]) -> None:
        """The pictures of ``task``, which are read anew only if it is another one; else their labels change."""
        self._wanted, self._images, self._places = task, images[:MOST], places
        if task == self._of:
            self._draw()
        else:
            self._catch_up()

    def on_show(self) -> None:
        self._catch_up()

    def on_resize(self) -> None:
        self._catch_up()

    def _catch_up(self) -> None:
        """Begin with the pictures of another task, if anybody can see them."""
        if self._wanted == self._of or not self.display or not self.size:
            return
        self._of, self._pictures, self._request = self._wanted, {}, self._request + 1
        self.reading = any(one.image in self._places for one in self._images)
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(PATIENCE, self._read) if self.reading else None
        self._draw()

    def _read(self) -> None:
        request, found = self._request, [self._places[one.image] for one in self._images if one.image in self._places]
        names = [one.image for one in self._images if one.image in self._places]

        def work() -> None:
            tiles = thumbnails(found)
            at = 0
            while batch := list(islice(tiles, BATCH)):
                if request != self._request:
                    return
                named = [Tile(tile.image, name, tile.missing) for tile, name in zip(batch, names[at:], strict=False)]
                at += len(batch)
                post(self, PicturesRead(request, named, last=False))
            post(self, PicturesRead(request, (), last=True))

        beside(work, "pictures of a task")

    def on_pictures_read(self, message: PicturesRead) -> None:
        message.stop()
        if message.request == self._request:
            self._pictures.update({tile.label: (tile.image, tile.missing) for tile in message.tiles})
            self.reading = not message.last
            self._draw()

    def _draw(self) -> None:
        tiles = [self._tile(one) for one in self._images if one.image in self._pictures]
        gallery = self.query_one(Gallery)
        if [tile.image for tile in tiles] == [
            tile.image for tile in gallery.tiles
        ]:  # only what is said of them differs
            gallery.tiles = tiles
            for picture, tile in zip(gallery.query(Picture), tiles, strict=False):
                picture.show(tile.image, tile.label, tile.missing)
        else:
            gallery.show(tiles, columns=max(1, self.size.width // SMALL))
        nothing = self.query_one(Static)
        nothing.update(Text(NO_PICTURES if self._images and not self._places else ""))
        nothing.set_class(not (self._images and not self._places), "hidden")

    def _tile(self, one: JudgedImage) -> Tile:
        image, missing = self._pictures[one.image]
        said = {"right": f"{one.answer} {100 * one.share:.0f} %", "tie": f"tie: {one.answer}",
                "wrong": f"{one.answer}, not {one.right}"}  # fmt: skip
        return Tile(image, f"{one.mark(self.look)} {said[one.verdict]}", missing)
