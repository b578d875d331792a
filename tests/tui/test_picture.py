"""Pictures and galleries of them: what is drawn, the keys, and the choice of how to draw."""

import asyncio
import io
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from rich.color import Color
from textual.geometry import Region
from textual.message import Message
from textual.pilot import Pilot
from textual.widget import Widget

from metavqa_cli.engine.contact import Pair
from metavqa_cli.store.images import ImageFile
from metavqa_cli.tui import graphics
from metavqa_cli.tui.app import Dashboard, make_app
from metavqa_cli.tui.frame import frame
from metavqa_cli.tui.graphics import HALF_BLOCKS, KITTY, SIXEL, Terminal
from metavqa_cli.tui.pictures import RAMP, UPPER, Tile
from metavqa_cli.tui.thumbnails import thumbnails
from metavqa_cli.tui.widgets.picture import Gallery, Picture, cycle, probe
from tests.tui.pilots import until

RED, BLUE = (255, 0, 0), (0, 0, 255)


def square(color: tuple[int, int, int] = RED, side: int = 16) -> Image.Image:
    return Image.new("RGB", (side, side), color)


class Stage:
    """A dashboard with nothing but one widget on it."""

    def __init__(self, app: Dashboard, pilot: Pilot[Any], messages: list[Message]) -> None:
        self.app, self.pilot, self.messages = app, pilot, messages

    def of(self, kind: type[Message]) -> list[Any]:
        """Messages of a kind, each once: on their way up they pass several widgets."""
        return list({id(message): message for message in self.messages if isinstance(message, kind)}.values())

    @property
    def text(self) -> str:
        return frame(self.app).text


@asynccontextmanager
async def stage(
    root: Path, widget: Widget, size: tuple[int, int] = (80, 24), width: int = 20, height: int = 11, **look: bool
) -> AsyncIterator[Stage]:
    messages: list[Message] = []
    app = make_app(root, room="runs", **look)  # type: ignore[arg-type]
    async with app.run_test(size=size, message_hook=messages.append) as pilot:
        await until(pilot, lambda: app.room is not None and app.room.is_mounted)
        widget.styles.width, widget.styles.height = width, height
        await app.screen.mount(widget, before=0)
        yield Stage(app, pilot, messages)


def play(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def rows(widget: Widget) -> list[str]:
    return [widget.render_line(y).text for y in range(widget.size.height)]


def colors(widget: Widget, y: int) -> set[tuple[Color | None, Color | None]]:
    return {
        (part.style.color, part.style.bgcolor)
        for part in widget.render_line(y)
        if part.style and set(part.text) == {UPPER}
    }


# Picture


def test_a_picture_is_half_blocks_with_its_label_in_the_line_below(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, picture := Picture()) as on:
            image = square()
            image.paste(BLUE, (0, 8, 16, 16))
            picture.show(image, "a label")
            await until(on.pilot, lambda: picture.size.width == 20)
            drawn = rows(picture)
            assert drawn[:10] == [UPPER * 20] * 10 and drawn[10].rstrip() == "a label"
            top, bottom = colors(picture, 0), colors(picture, 9)
            assert {tuple(part.triplet or ()) for pair in top for part in pair if part} == {RED}
            assert {tuple(part.triplet or ()) for pair in bottom for part in pair if part} == {BLUE}

    play(work)


@pytest.mark.parametrize("look", [{"color": False}, {"ascii": True}, {"ascii": True, "color": False}])
def test_without_colour_or_in_ascii_a_picture_is_shades(tmp_path: Path, look: dict[str, bool]) -> None:
    async def work() -> None:
        async with stage(tmp_path, picture := Picture(), **look) as on:
            image = square((0, 0, 0))
            image.paste((255, 255, 255), (8, 0, 16, 16))
            picture.show(image, "half")
            await until(on.pilot, lambda: picture.size.width == 20)
            assert picture.render_line(3).text[0] == RAMP[0] and picture.render_line(3).text[-1] == RAMP[-1]
            assert UPPER not in "".join(rows(picture))
            on.app.screen.refresh()
            assert on.text.isascii() or not look.get("ascii")

    play(work)


def test_a_flat_picture_stands_where_content_align_says(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, picture := Picture()) as on:
            picture.show(Image.new("RGB", (40, 10), RED), "flat")
            await until(on.pilot, lambda: picture.size.width == 20)
            filled = [UPPER in row for row in rows(picture)]
            assert filled.index(True) == 0 and rows(picture)[sum(filled)].rstrip() == "flat"
            picture.styles.content_align = ("left", "bottom")
            picture.show(Image.new("RGB", (40, 10), RED), "flat")
            assert UPPER in rows(picture)[-2] and UPPER not in rows(picture)[0] and rows(picture)[-1].strip() == "flat"
            picture.styles.content_align = ("center", "top")
            picture.show(Image.new("RGB", (10, 40), RED), "tall")
            row = rows(picture)[0]
            assert abs((len(row) - len(row.lstrip())) - (len(row) - len(row.rstrip()))) <= 1

    play(work)


def test_a_missing_image_is_a_frame_that_says_why_and_foreign_text_is_harmless(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, picture := Picture(), width=30) as on:
            picture.show(None, "[bold]x[/bold]\x1b[31m", "it is\x07 really damaged; copy it again")
            await until(on.pilot, lambda: picture.size.width == 30)
            text = "\n".join(rows(picture))
            assert text.startswith(f"+{'-' * 28}+") and "damaged;" in text and "copy it again" in text
            assert "[bold]x[/bold]" in text and "\x1b" not in text and "\x07" not in text

    play(work)


def test_a_picture_survives_a_tiny_screen(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, picture := Picture()) as on:
            picture.show(square(), "label")
            picture.styles.width = picture.styles.height = "100%"
            for size in ((20, 5), (1, 1), (200, 60), (80, 24)):
                await on.pilot.resize_terminal(*size)
                await until(on.pilot, lambda size=size: on.app.size == size)  # type: ignore[misc]
            await until(on.pilot, lambda: UPPER in "".join(rows(picture)))

    play(work)


# Gallery


def gallery_tiles(number: int) -> list[Tile]:
    return [Tile(square((number, 0, 0)), f"tile {number}") for number in range(number)]


def test_the_arrow_keys_move_the_cursor_and_enter_and_space_choose(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, gallery := Gallery(), width=80, height=20) as on:
            gallery.show(gallery_tiles(8), columns=3)
            gallery.focus()
            for key, at in (
                ("right", 1), ("down", 4), ("left", 3), ("up", 0), ("up", 0), ("left", 0), ("end", 7), ("right", 7),
                ("home", 0), ("down", 3), ("right", 4), ("right", 5), ("down", 7), ("down", 7),
            ):  # fmt: skip
                await on.pilot.press(key)
                assert gallery.index == at, key
            await on.pilot.press("enter", "left", "space")
            await until(on.pilot, lambda: len(on.of(Gallery.Chosen)) == 2)
            assert [(m.index, m.tile.label, m.control) for m in on.of(Gallery.Chosen)] == [
                (7, "tile 7", gallery), (6, "tile 6", gallery),
            ]  # fmt: skip
            assert on.of(Gallery.Highlighted)[-1].index == 6
            marked = [picture.label for picture in gallery.query(Picture) if picture.marked]
            assert marked == ["tile 6"] and "▶ tile 6" in on.text

    play(work)


def test_a_gallery_has_as_many_columns_as_fit_and_shows_the_cursor(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, gallery := Gallery(), width=80, height=20) as on:
            gallery.show(gallery_tiles(20))
            await until(on.pilot, lambda: gallery.columns == 3)
            gallery.focus()
            await on.pilot.press("end")
            await until(on.pilot, lambda: "▶ tile 19" in on.text)
            gallery.styles.width = 40
            await until(on.pilot, lambda: gallery.columns == 1 and "▶ tile 19" in on.text)
            gallery.styles.height, gallery.styles.width = 9, 80
            await until(on.pilot, lambda: gallery.columns > 3, "low galleries show smaller tiles whole")
            picture = next(picture for picture in gallery.query(Picture) if picture.marked)
            assert picture.size.height <= gallery.size.height

    play(work)


def test_more_tiles_leave_the_cursor_and_others_begin_anew(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, gallery := Gallery(), width=60, height=20) as on:
            first = gallery_tiles(10)
            gallery.show(first[:4])
            gallery.focus()
            await on.pilot.press("right", "right")
            gallery.show(first)
            assert gallery.index == 2 and gallery.tile is first[2]
            gallery.show(gallery_tiles(3))
            assert gallery.index == 0
            await until(on.pilot, lambda: sum(p.display for p in gallery.query(Picture)) == 3)
            gallery.show([])
            assert gallery.tile is None
            await on.pilot.press("right", "end", "home", "enter")
            assert not on.of(Gallery.Chosen)
            await until(on.pilot, lambda: "tile" not in on.text)

    play(work)


def test_the_end_is_told_when_it_comes_into_sight(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, gallery := Gallery(), width=60, height=20) as on:
            gallery.show(gallery_tiles(20))
            gallery.focus()
            await until(on.pilot, lambda: gallery.max_scroll_y > 0)
            on.messages.clear()
            await on.pilot.press("down")
            assert not on.of(Gallery.NearEnd)
            await on.pilot.press("end")
            await until(on.pilot, lambda: bool(on.of(Gallery.NearEnd)))
            assert on.of(Gallery.NearEnd)[-1].shown == 20 and on.of(Gallery.NearEnd)[-1].control is gallery

    play(work)


def test_a_click_moves_the_cursor_and_two_choose(tmp_path: Path) -> None:
    async def work() -> None:
        async with stage(tmp_path, gallery := Gallery(), width=80, height=20) as on:
            gallery.show(gallery_tiles(6))
            await until(on.pilot, lambda: len(gallery.query(Picture)) == 6 and gallery.columns == 3)
            second = gallery.query(Picture)[1]
            await until(on.pilot, lambda: second.size.width > 1)
            await on.pilot.click(second)
            assert gallery.index == 1 and not on.of(Gallery.Chosen)
            await on.pilot.click(second, times=2)
            await until(on.pilot, lambda: bool(on.of(Gallery.Chosen)))

    play(work)


# How pictures are drawn


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package textual-image as it is where no terminal answers, with cells of 10 by 20 pixels."""
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())
    pytest.importorskip("textual_image", reason="the extra `images` is not installed")
    import textual_image.widget

    return textual_image.widget


@pytest.mark.parametrize(
    ("terminal", "look", "words"),
    [
        (Terminal(), {}, "pip install 'metavqa[images]'"),
        (Terminal(installed=True), {}, "without asking a terminal"),
        (Terminal(True, True), {}, "does not answer"),
        (Terminal(True, True, SIXEL), {"color": False}, "colours are off"),
        (Terminal(True, True, SIXEL), {"ascii": True}, "--ascii"),
    ],
)
def test_k_says_why_there_is_nothing_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: Terminal, look: dict[str, bool], words: str
) -> None:
    async def work() -> None:
        monkeypatch.setattr(graphics, "terminal", terminal)
        monkeypatch.setattr(graphics, "find_spec", lambda name: object() if terminal.installed else None)
        async with stage(tmp_path, Picture(), **look) as on:
            on.app.settings.pictures = SIXEL  # remembered from another terminal
            said: list[str] = []
            monkeypatch.setattr(on.app, "say", lambda sentence, **_: said.append(sentence))
            cycle(on.app)
            assert len(said) == 1 and words in said[0] and on.app.settings.pictures == SIXEL

    play(work)


def test_sixel_is_drawn_by_the_package_and_goes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: ModuleType
) -> None:
    async def work() -> None:
        monkeypatch.setattr(graphics, "terminal", Terminal(True, True, SIXEL))
        async with stage(tmp_path, picture := Picture()) as on:
            picture.show(square(), "red")
            await until(on.pilot, lambda: UPPER * 20 in on.text)
            cycle(on.app)
            assert on.app.settings.pictures == SIXEL
            await until(on.pilot, lambda: len(picture.query(package.SixelImage)) == 1)
            image = picture.query_one(package.SixelImage)
            await until(on.pilot, lambda: image.size == (20, 10), "20 columns of 10 pixels are 10 lines of 20")
            inner = image.children[0]
            await until(on.pilot, lambda: inner.size.width == 20)
            escape = "".join(strip.text for strip in inner.render_lines(Region(0, 0, 20, 10)))
            assert "\x1bP" in escape and escape.count("\x1b\\") == 1
            assert UPPER not in "".join(rows(picture)) and rows(picture)[10].strip() == "red"
            picture.show(square(BLUE), "blue")
            await until(on.pilot, lambda: [i.image for i in picture.query(package.SixelImage)] == [picture.image])
            cycle(on.app)
            assert on.app.settings.pictures == HALF_BLOCKS
            await until(on.pilot, lambda: not picture.children and UPPER * 20 in on.text)

    play(work)


def test_kitty_is_sent_to_the_terminal_and_takes_no_more_room_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: ModuleType
) -> None:
    async def work() -> None:
        monkeypatch.setattr(graphics, "terminal", Terminal(True, True, KITTY))
        terminal = io.StringIO()
        async with stage(tmp_path, picture := Picture()) as on:
            monkeypatch.setattr(sys, "__stdout__", terminal)
            cycle(on.app)
            picture.show(Image.new("RGB", (10, 40), RED), "tall")
            await until(on.pilot, lambda: "\x1b_G" in terminal.getvalue() and "\U0010eeee" in on.text)
            image = picture.query_one(package.TGPImage)
            assert image.size == (5, 10), "200 pixels high and 50 wide"
            picture.show(None, "none", "gone")
            await until(on.pilot, lambda: not picture.children and "gone" in on.text)

    play(work)


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any]) -> None:
    terminal = type("Tty", (io.StringIO,), {"isatty": lambda self: True})()
    monkeypatch.setattr(sys, "__stdout__", terminal)
    monkeypatch.setattr(sys, "__stdin__", terminal)
    monkeypatch.setattr(graphics, "find_spec", lambda name: object())
    monkeypatch.setattr(graphics, "import_module", lambda name: answer())
    monkeypatch.setattr(graphics, "terminal", Terminal())


@pytest.mark.parametrize(
    ("module", "protocol"), [("sixel", SIXEL), ("tgp", KITTY), ("halfcell", None), ("unicode", None)]
)
def test_what_the_package_found_is_remembered(
    monkeypatch: pytest.MonkeyPatch, module: str, protocol: str | None
) -> None:
    renderable = type("Image", (), {"__module__": f"textual_image.renderable.{module}"})
    widget = type("AutoImage", (), {"_Renderable": renderable})
    answering(monkeypatch, lambda: type("module", (), {"AutoImage": widget}))
    probe()
    assert graphics.terminal == Terminal(True, True, protocol)


def test_the_names_that_probing_relies_on_are_the_packages(package: ModuleType) -> None:
    from textual_image.renderable import SixelImage, TGPImage

    assert (SixelImage.__module__, TGPImage.__module__) == (
        "textual_image.renderable.sixel", "textual_image.renderable.tgp",
    )  # fmt: skip
    assert package.AutoImage._Renderable.__module__.startswith("textual_image.renderable.")
    assert all(hasattr(package, name) for name in graphics.WIDGETS.values())


def test_a_terminal_that_answers_nonsense_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense() -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    answering(monkeypatch, nonsense)
    probe()
    assert graphics.terminal == Terminal(True, True)


def test_without_a_terminal_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr(sys, "__stdout__", io.StringIO())
    monkeypatch.setattr(graphics, "terminal", Terminal())
    monkeypatch.setattr(graphics, "import_module", fail)
    monkeypatch.setattr(graphics, "find_spec", lambda name: object())
    probe()
    assert graphics.terminal == Terminal(installed=True)
    monkeypatch.setattr(graphics, "find_spec", lambda name: None)
    probe()
    assert graphics.terminal == Terminal()


# Thumbnails


def test_thumbnails_are_small_and_say_what_is_wrong(tmp_path: Path) -> None:
    big, small, bad = tmp_path / "big.png", tmp_path / "small.png", tmp_path / "bad.png"
    Image.new("RGB", (400, 100), RED).save(big)
    square(side=10).save(small)
    bad.write_bytes(b"\x89PNG no more")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(big, "in/big.png")
    packed = ImageFile(tmp_path / "images.zip", "in/big.png", packed=True)
    pairs = [Pair("a", "red", "query", packed), Pair("b", "blue", "support", None)]
    tiles = list(thumbnails([big, small, bad, tmp_path / "none.png", *pairs], 1000))
    assert [tile.label for tile in tiles] == [
        "big.png", "small.png", "bad.png", "none.png", "red (query)", "blue (support)",
    ]  # fmt: skip
    sizes = [None if tile.image is None else tile.image.size for tile in tiles]
    assert sizes[1] == (10, 10) and sizes[2:4] == [None, None] and sizes[5] is None
    for size in (sizes[0], sizes[4]):
        assert size and 900 <= size[0] * size[1] <= 1000 and size[0] / size[1] == pytest.approx(4, rel=0.05)
    assert "not an image" in tiles[2].missing and "cannot be read" in tiles[3].missing and "b" in tiles[5].missing


def test_thumbnails_are_made_one_by_one(tmp_path: Path) -> None:
    square().save(tmp_path / "a.png")
    asked: list[Path] = []

    def sources() -> Any:
        for _ in range(3):
            asked.append(tmp_path / "a.png")
            yield asked[-1]

    tiles = thumbnails(sources())
    next(tiles)
    assert len(asked) == 1
