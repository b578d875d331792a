"""A picture with its label, and a gallery of them: half blocks or shades of characters, sixel or kitty after ``k``.

Hand over images that a thread has decoded and made small (``thumbnails``): they are drawn in the event loop.
"""

from collections.abc import Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakSet

from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from metavqa_cli.tui.graphics import (
    HALF_BLOCKS,
    ask_terminal,
    fit,
    graphics_widget,
    probe,
    renderer,
    renderers,
    why_no_more,
)
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.pictures import BETWEEN, Tile, cut, drawn, frame
from metavqa_cli.tui.thumbnails import thumbnails

if TYPE_CHECKING:
    from PIL.Image import Image

    from metavqa_cli.tui.app import Dashboard
    from metavqa_cli.tui.pictures import Line

__all__ = ["Gallery", "Picture", "cycle", "probe", "thumbnails"]

LABEL_LINES = 1
NARROW, SMALLEST = 22, 14  # least columns of a tile in a gallery, and in one that is too low for those
GUTTER = 1  # lines between rows


class Picture(Widget):
    """An image, as large as its place allows, and its label in the line below; without an image, why there is none.

    ``content-align`` says where it stands. Label and reason come from files: control characters are made harmless here.
    """

    DEFAULT_CSS = "Picture { width: 1fr; height: 1fr; }"
    _all: ClassVar["WeakSet[Picture]"] = WeakSet()

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.image: Image | None = None
        self.label = self.missing = ""
        self.marked = False
        self._graphics: Widget | None = None
        self._lines: tuple[object, list[Strip]] = (None, [])
        self._base = Style.null()
        self.most: tuple[int, int] | None = None
        """Columns and lines that the image may take; None: all that its place has."""

    def show(self, image: "Image | None", label: str, missing: str = "") -> None:
        """Show ``image`` (RGB), or ``missing`` in an empty frame; with neither, nothing but the label."""
        if image is self.image and (label, missing) == (self.label, self.missing):
            return
        same = image is self.image
        self.image, self.label, self.missing = image, label, missing
        self._redraw(same)

    def mark(self, marked: bool) -> None:
        """Whether the cursor of a gallery is here: said by a sign before the label and by reversed colours."""
        if marked != self.marked:
            self.marked = marked
            self._redraw(same=True)

    def _redraw(self, same: bool = False) -> None:
        self._lines = (None, [])
        if self.is_mounted:
            self._draw_graphics(same)
            self.refresh()

    def on_mount(self) -> None:
        self._all.add(self)
        self._draw_graphics()

    def on_resize(self, event: Resize) -> None:
        self._draw_graphics(same=True)

    @property
    def _look(self) -> Look:
        return cast("Dashboard", self.app).look

    # Characters

    def render_lines(self, crop: Region) -> list[Strip]:
        self._base = self.rich_style  # once a paint: it takes longer than to draw a line
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        key = (self.size, self.marked, self.most, self._base)
        if self._lines[0] != key:
            self._lines = (key, self._strips(self._base))
        strips = self._lines[1]
        return strips[y] if y < len(strips) else Strip.blank(self.size.width, self._base)

    def _strips(self, base: Style) -> list[Strip]:
        width, height = self.size
        most = self.most or self.size
        room = min(width, most[0]), max(1, min(height - LABEL_LINES, most[1]))
        lines = self._picture(*room) if width and height > LABEL_LINES else []
        sign = self._look.pick("▶ ", "> ") if self.marked else ""
        text = cut(f"{sign}{self._look.text(self.label)}", width)
        lines = [*lines, [Segment(text, base + Style(bold=True, reverse=self.marked))]][-height:]
        above = _shift(self.styles.content_align_vertical, height - len(lines))
        left = max(
            (_shift(self.styles.content_align_horizontal, width - _width(line)) for line in lines[:-1]), default=0
        )
        styled = [[part if part.style else Segment(part.text, base) for part in line] for line in lines]
        shifted = [Strip([Segment(" " * left, base), *line]).adjust_cell_length(width, base) for line in styled]
        return [*[Strip.blank(width, base)] * above, *shifted]

    def _picture(self, width: int, height: int) -> "list[Line]":
        if self._graphics is not None and self.image is not None:
            return [[Segment(" " * fit(self.image.size, (width, height))[0])]] * fit(self.image.size, (width, height))[
                1
            ]
        if self.image is not None:
            return drawn(self.image, width, height, color=self._look.color and not self._look.ascii)
        return frame(self._look.text(self.missing), width, min(height, width // 2))[:height] if self.missing else []

    # Sixel and kitty: a widget of the package textual-image over the place where the characters would be

    def _draw_graphics(self, same: bool = False) -> None:
        protocol = renderer(cast("Dashboard", self.app).settings.pictures, self._look)
        wanted = self.image is not None and protocol != HALF_BLOCKS
        if self._graphics is not None and not (wanted and same):
            self._graphics.remove()
            self._graphics = None
        if wanted and self._graphics is None:
            self._graphics = cast(Widget, graphics_widget(protocol)(self.image))
            self.mount(self._graphics)
        if self._graphics is not None:
            self._place_graphics(self._graphics, self.size)

    def _place_graphics(self, graphics: Widget, size: Size) -> None:
        assert self.image is not None
        width, height = fit(self.image.size, (size.width, max(1, size.height - LABEL_LINES)))
        graphics.styles.width, graphics.styles.height = width, height
        graphics.styles.offset = (
            _shift(self.styles.content_align_horizontal, size.width - width),
            _shift(self.styles.content_align_vertical, size.height - LABEL_LINES - height),
        )


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


def cycle(app: App[Any]) -> None:
    """The next renderer for all pictures, remembered and said; or why there is no other."""
    dashboard = cast("Dashboard", app)
    if dashboard.look.color and not dashboard.look.ascii:
        ask_terminal(app)
    names = renderers(dashboard.look)
    if len(names) == 1:
        dashboard.say(why_no_more(dashboard.look))
        return
    name = names[(names.index(renderer(dashboard.settings.pictures, dashboard.look)) + 1) % len(names)]
    dashboard.remember(pictures=name)
    for picture in list(Picture._all):
        if picture.is_attached and picture.app is app:
            picture._redraw()
    dashboard.say(f"pictures are drawn as {name}")


def _width(line: "Line") -> int:
    return sum(segment.cell_length for segment in line)


def _shift(align: str, free: int) -> int:
    """How far in something stands that has ``free`` cells around it."""
    return max(0, {"center": free // 2, "middle": free // 2, "right": free, "bottom": free}.get(align, 0))
