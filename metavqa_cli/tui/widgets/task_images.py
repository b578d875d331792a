"""The pane with the images of one task: the highlighted one's only, read in a thread, more when scrolled to."""

import time
from collections.abc import Mapping, Sequence
from itertools import islice

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from metavqa_cli.engine.contact import PARTS, Pair, choose, pairs_of
from metavqa_cli.store.images import ImageFile
from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.beside import beside, post
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.pictures import Tile, drawn
from metavqa_cli.tui.thumbnails import label_of, thumbnails
from metavqa_cli.tui.widgets.picture import Gallery

PAGE = 24  # images that are read before someone scrolls on
BATCH = 2  # handed over at once: painting more takes longer than a key press may wait
PACE = 0.03  # seconds between two batches: each is painted before the next comes
PATIENCE = 0.08  # seconds on a task before its images are read: who scrolls by needs none


def next_page(pairs: Sequence[Pair], number: int) -> tuple[list[Pair], list[Pair]]:
    """About ``number`` of ``pairs``, support and query alike, as evenly over the answers as there are; and the rest."""
    parts = [[pair for pair in pairs if pair.part == part] for part in PARTS]
    room = max(number // 2, number - min(map(len, parts)))
    taken = {id(pair) for part in parts for pair in choose(part, room)}
    return [pair for pair in pairs if id(pair) in taken], [pair for pair in pairs if id(pair) not in taken]


class TilesRead(Message):
    """Some more tiles of the task that was asked for with ``request``; ``last`` of the page."""

    def __init__(self, request: int, tiles: Sequence[Tile], last: bool) -> None:
        super().__init__()
        self.request, self.tiles, self.last = request, tuple(tiles), last


class TaskImages(Vertical):
    """A contact sheet in pages: as evenly over the answers as there are images, each page answer by answer."""

    DEFAULT_CSS = """
    TaskImages > Static { height: auto; padding: 0 1; color: $text-muted; }
    TaskImages > Gallery { height: 1fr; padding: 0 1; }
    """

    def __init__(self, look: Look, id: str) -> None:
        super().__init__(id=id)
        self.look = look
        self.pairs: list[Pair] = []
        """Those whose pictures are shown or being read, in the gallery's order."""
        self.reading = False
        self._said = ""
        self._rest: list[Pair] = []
        self._shown: tuple[Task, Mapping[str, ImageFile]] | None = None
        self._request = 0
        self._timer: Timer | None = None
        self._read_number = self._lost = 0

    def compose(self) -> ComposeResult:
        yield Static("", classes="hidden")
        yield Gallery()

    @property
    def pair(self) -> Pair | None:
        """The one under the gallery's cursor."""
        index = self.query_one(Gallery).index
        return self.pairs[index] if index < len(self.pairs) else None

    def show(self, task: Task | None, places: Mapping[str, ImageFile], no_images: str | None) -> None:
        """Show the images of ``task``; ``no_images`` says why the dataset has none."""
        self._say(self.look.text(no_images or ""))
        if no_images or task is None:
            self._begin(None, [])
        elif self._shown is None or self._shown[0] is not task or self._shown[1] is not places:
            self._begin((task, places), pairs_of(task, places))

    def _say(self, why: str) -> None:
        """Say why there are no images, in place of the gallery."""
        if why != self._said:  # else nothing is laid out anew
            self._said = why
            words = self.query_one(Static)
            words.update(Text(why))
            words.set_class(not why, "hidden")
            self.query_one(Gallery).display = not why

    def _begin(self, shown: tuple[Task, Mapping[str, ImageFile]] | None, pairs: list[Pair]) -> None:
        """What is still being read for another task is void from now on."""
        self._request += 1
        self._shown, self._rest, self.pairs, self._read_number, self._lost = shown, pairs, [], 0, 0
        if self._timer is not None:
            self._timer.stop()
        self.reading = bool(pairs)
        gallery = self.query_one(Gallery)
        if pairs:
            gallery.put(0, [Tile(None, "")] * len(gallery.tiles))
            self._timer = self.set_timer(PATIENCE, self._next_page)
        else:
            gallery.show([])
        self._tell()

    def _next_page(self) -> None:
        """Labels at once, images as they come: then nothing moves."""
        page, self._rest = next_page(self._rest, PAGE)
        gallery, first = self.query_one(Gallery), len(self.pairs)
        self.pairs += page
        gallery.show([*(gallery.tiles if first else []), *(Tile(None, label_of(pair)) for pair in page)])
        self.reading, request = True, self._request
        color, room = self.look.color and not self.look.ascii, gallery.room
        beside(lambda: self._read(request, page, room, color), "images of a task")

    def _read(self, request: int, page: Sequence[Pair], room: tuple[int, int], color: bool) -> None:
        tiles, left = thumbnails(page), len(page)
        while left > 0 and request == self._request:
            batch = list(islice(tiles, BATCH))
            left -= len(batch)
            for tile in batch:
                if tile.image is not None:
                    drawn(tile.image, *room, color=color)  # remembered: when it is painted nothing is left to do
            post(self, TilesRead(request, batch, left == 0))
            time.sleep(PACE if left else 0)

    @on(TilesRead)
    def add_tiles(self, message: TilesRead) -> None:
        """Show them in their places."""
        if message.request == self._request:
            self.query_one(Gallery).put(self._read_number, message.tiles)
            self._read_number += len(message.tiles)
            self._lost += sum(tile.image is None for tile in message.tiles)
            self.reading = not message.last
            self._tell()

    @on(Gallery.NearEnd)
    def read_on(self, message: Gallery.NearEnd) -> None:
        """Whoever sees the last pictures is given more."""
        if not self.reading and self._rest and message.shown == len(self.pairs):
            self._next_page()

    def _tell(self) -> None:
        """How many of how many are there."""
        every = len(self.pairs) + len(self._rest)
        wrong = f", {self._lost} cannot be shown" if self._lost else ""
        self.border_subtitle = f"{self._read_number} of {every}{wrong}" if every else ""
