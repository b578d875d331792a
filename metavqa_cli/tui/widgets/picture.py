"""A gallery of pictures with a cursor. Its tiles come from threads that have decoded them and made them small."""

from collections.abc import Sequence
from operator import is_
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Click, Resize
from textual.message import Message

from metavqa_cli.tui.graphics import probe
from metavqa_cli.tui.pictures import BETWEEN, Tile
from metavqa_cli.tui.thumbnails import thumbnails
from metavqa_cli.tui.widgets.one_picture import LABEL_LINES, Picture, cycle

__all__ = ["Gallery", "Picture", "cycle", "probe", "thumbnails"]

NARROW, SMALLEST = 22, 14  # least columns of a tile in a gallery, and in one that is too low for those
GUTTER = 1  # lines between rows


class Gallery(VerticalScroll):
    """Tiles side by side. The arrow keys move the cursor, enter or space choose its tile.

    Posts ``Highlighted``, ``Chosen``, and ``NearEnd`` when the last row comes into sight: time to hand over more.
    """

    DEFAULT_CSS = """
    Gallery { layout: grid; grid-gutter: 1 2; grid-size: 1; scrollbar-gutter: stable; }
    Gallery > Picture { content-align: left bottom; height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1, 0)", "Previous picture", show=False),
        Binding("right", "move(1, 0)", "Next picture", show=False),
        Binding("up", "move(0, -1)", "Picture above", show=False),
        Binding("down", "move(0, 1)", "Picture below", show=False),
        Binding("home", "jump(0)", "First picture", show=False),
        Binding("end", "jump(-1)", "Last picture", show=False),
        Binding("enter,space", "choose", "Choose picture", show=False),
    ]

    class _AboutTile(Message):
        def __init__(self, gallery: "Gallery", index: int, tile: Tile) -> None:
            super().__init__()
            self.gallery, self.index, self.tile = gallery, index, tile

        @property
        def control(self) -> "Gallery":
            return self.gallery

    class Highlighted(_AboutTile):
        """The cursor is on another tile."""

    class Chosen(_AboutTile):
        """Enter or space was pressed on a tile, or it was clicked twice."""

    class NearEnd(Message):
        """The last of ``shown`` tiles are in sight."""

        def __init__(self, gallery: "Gallery", shown: int) -> None:
            super().__init__()
            self.gallery, self.shown = gallery, shown

        @property
        def control(self) -> "Gallery":
            return self.gallery

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.tiles: list[Tile] = []
        self.index = 0
        self._columns: int | None = None
        self._pictures: list[Picture] = []

    @property
    def tile(self) -> Tile | None:
        """The one under the cursor."""
        return self.tiles[self.index] if self.tiles else None

    def show(self, tiles: Sequence[Tile], *, columns: int | None = None) -> None:
        """Show ``tiles`` in ``columns`` (None: as many as have room). If they only go on from before, cursor and place
        stay; else both go to the first."""
        before, self.tiles, self._columns = self.tiles, list(tiles), columns
        goes_on = 0 < len(before) <= len(tiles) and all(map(is_, before, tiles))
        self._show_pictures(len(before) if goes_on else 0)
        if not goes_on:
            self.scroll_home(animate=False)
            self._highlight(0)
        self._arrange()
        self.call_after_refresh(self._look_for_end)

    def put(self, first: int, tiles: Sequence[Tile]) -> None:
        """Other tiles in the places from ``first`` on: an image has come for what was shown without."""
        self.tiles[first : first + len(tiles)] = tiles
        for picture, tile in zip(self._pictures[first:], tiles, strict=False):
            picture.show(tile.image, tile.label, tile.missing)

    def _show_pictures(self, first: int) -> None:
        """Pictures are kept and used again: making widgets is what takes long."""
        new = [Picture() for _ in range(len(self.tiles) - len(self._pictures))]
        self._pictures += new
        for number, picture in enumerate(self._pictures):
            picture.display = number < len(self.tiles)
            if first <= number < len(self.tiles):
                tile = self.tiles[number]
                picture.show(tile.image, tile.label, tile.missing)
        for picture in self._pictures[len(self.tiles) :]:
            picture.show(None, "")
        if new:
            self.mount(*new)

    @property
    def columns(self) -> int:
        """How many tiles stand side by side: as many as have room, and more where else none would be seen whole."""
        tallest = max(SMALLEST, 2 * (self._height - LABEL_LINES))
        return self._columns or max(1, (self._width + BETWEEN) // (min(NARROW, tallest) + BETWEEN))

    @property
    def _width(self) -> int:
        """Without the scrollbar, whether it is shown or not: else showing it could change whether it is needed."""
        return max(1, self.size.width - self.styles.scrollbar_size_vertical)

    @property
    def _height(self) -> int:
        return max(SMALLEST // 2 + LABEL_LINES, self.size.height)

    @property
    def _row_height(self) -> int:
        side = max(1, (self._width + BETWEEN) // self.columns - BETWEEN)
        return min((side + 1) // 2 + LABEL_LINES, self._height)

    @property
    def room(self) -> tuple[int, int]:
        """Columns and lines in which the image of a tile is drawn."""
        return max(1, (self._width + BETWEEN) // self.columns - BETWEEN), max(1, self._row_height - LABEL_LINES)

    def _arrange(self) -> None:
        """Where the columns are not equally wide, all pictures are as small as the smallest: drawn once for all."""
        for picture in self._pictures:
            picture.most = self.room
        self.styles.grid_size_columns = self.columns
        self.styles.grid_rows = f"{self._row_height}"

    def on_resize(self, event: Resize) -> None:
        self._arrange()
        self.call_after_refresh(self._see)

    # The cursor

    def _highlight(self, index: int) -> None:
        self.index = max(0, min(index, len(self.tiles) - 1))
        for number, picture in enumerate(self._pictures):
            picture.mark(number == self.index and bool(self.tiles))
        if self.tiles:
            self.post_message(self.Highlighted(self, self.index, self.tiles[self.index]))

    def _see(self) -> None:
        """Scroll to the cursor."""
        if self.tiles:
            self.scroll_to_widget(self._pictures[self.index], animate=False)
            self._look_for_end()

    def action_move(self, right: int, down: int) -> None:
        index = self.index + right + down * self.columns
        if 0 <= index < len(self.tiles):
            self._highlight(index)
        elif down > 0 and self.index // self.columns < (len(self.tiles) - 1) // self.columns:
            self._highlight(len(self.tiles) - 1)  # the last row is shorter
        self._see()

    def action_jump(self, index: int) -> None:
        self._highlight(index % len(self.tiles) if self.tiles else 0)
        self._see()

    def action_choose(self) -> None:
        if self.tile is not None:
            self.post_message(self.Chosen(self, self.index, self.tile))

    def on_click(self, event: Click) -> None:
        inside = [] if event.widget is None else event.widget.ancestors_with_self
        for picture in (widget for widget in inside if isinstance(widget, Picture)):
            self._highlight(self._pictures.index(picture))
            if event.chain > 1:
                self.action_choose()

    # More

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._look_for_end()

    def _look_for_end(self) -> None:
        """Where the last row will stand is reckoned: the layout may not know new tiles yet."""
        rows = -(-len(self.tiles) // self.columns)
        top_of_last = (rows - 1) * (self._row_height + GUTTER)
        if self.tiles and self.scroll_offset.y + self.size.height > top_of_last:
            self.post_message(self.NearEnd(self, len(self.tiles)))
