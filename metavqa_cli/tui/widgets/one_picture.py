"""A picture with its label: half blocks or shades of characters, sixel or kitty after ``k``.

Hand over images that a thread has decoded and made small (``thumbnails``): they are drawn in the event loop, unless
that thread has had them ``drawn`` before.
"""

from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakSet

from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.events import Resize
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from metavqa_cli.tui.graphics import (
    HALF_BLOCKS,
    ask_terminal,
    fit,
    graphics_widget,
    renderer,
    renderers,
    why_no_more,
)
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.pictures import cut, drawn, frame

if TYPE_CHECKING:
    from PIL.Image import Image

    from metavqa_cli.tui.app import Dashboard
    from metavqa_cli.tui.pictures import Line

LABEL_LINES = 1


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
