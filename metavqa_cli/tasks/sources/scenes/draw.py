"""Scenes to pixels with Pillow: drawn at twice the size and averaged down, so edges are anti-aliased."""

from functools import lru_cache

from PIL import Image, ImageDraw

from metavqa_cli.tasks.sources.scenes.scene import Group, Scene
from metavqa_cli.tasks.sources.scenes.shapes import SHAPES
from metavqa_cli.tasks.sources.scenes.vocabulary import COLORS, SIZE_FRACTIONS

OVERSAMPLE = 2
HORIZON = 0.58
DARK, LIGHT = (58, 52, 60), (225, 238, 245)
Rgb = tuple[int, int, int]

SKIES: dict[str, Rgb] = {
    "dawn": (250, 200, 205),
    "noon": (135, 200, 245),
    "dusk": (245, 150, 90),
    "night": (22, 26, 66),
}
GROUNDS: dict[str, Rgb] = {
    "beach": (238, 218, 160),
    "forest": (70, 105, 60),
    "desert": (222, 170, 95),
    "city": (135, 135, 140),
    "field": (150, 200, 90),
    "mountains": (130, 125, 115),
    "lake": (85, 150, 190),
    "village": (175, 190, 130),
}
# Rows x columns of a group of n objects.
GRIDS = {1: (1, 1), 2: (1, 2), 3: (2, 2), 4: (2, 2), 5: (2, 3), 6: (2, 3)}


def draw(scene: Scene, size: int = 64) -> Image.Image:
    """The scene as an RGB image of ``size`` x ``size`` pixels."""
    side = size * OVERSAMPLE
    image = _background(scene.place, scene.time, scene.weather, side).copy()
    for group in scene.groups:
        _draw_group(image, group, side)
    return image.reduce(OVERSAMPLE)


def _draw_group(image: Image.Image, group: Group, side: int) -> None:
    rows, columns = GRIDS[group.count]
    pixels = round(SIZE_FRACTIONS[group.size] * side)
    width, height = columns * pixels, rows * pixels
    left = _place(group.column, group.jitter[0], width, side)
    top = _place(group.row, group.jitter[1], height, side)
    for i in range(group.count):
        _draw_object(image, group, left + (i % columns) * pixels, top + (i // columns) * pixels, round(pixels * 0.9))


def _place(cell: int, jitter: float, extent: int, side: int) -> int:
    center = (cell + 0.5 + jitter) / 3 * side
    return round(min(max(center - extent / 2, 0), side - extent))


def _draw_object(image: Image.Image, group: Group, x: int, y: int, pixels: int) -> None:
    color = COLORS[group.color]
    pen = ImageDraw.Draw(image)
    rim = _contrast(color) if group.pattern == "outlined" else _rim(color)
    texture = None if group.pattern in ("plain", "outlined") else _texture(group.pattern, group.color, pixels + 1)
    width = max(2, pixels // 7) if group.pattern == "outlined" else 1
    for role, geometry in SHAPES[group.kind]:
        if role != "body":
            _fill(pen, geometry, x, y, pixels, DARK if role == "dark" else LIGHT, None, 0)
        elif texture is None:
            _fill(pen, geometry, x, y, pixels, color, rim, width)
        else:
            mask = Image.new("1", texture.size)
            _fill(ImageDraw.Draw(mask), geometry, 0, 0, pixels, 1, None, 0)
            image.paste(texture, (x, y), mask)


def _fill(pen, geometry, x, y, pixels, fill, outline, width) -> None:  # type: ignore[no-untyped-def]
    if isinstance(geometry, tuple):
        left, top, right, bottom = geometry
        box = (x + left * pixels, y + top * pixels, x + right * pixels, y + bottom * pixels)
        pen.ellipse(box, fill=fill, outline=outline, width=width)
    else:
        points = [(x + px * pixels, y + py * pixels) for px, py in geometry]
        pen.polygon(points, fill=fill, outline=outline, width=width)


def _rim(color: Rgb) -> Rgb:
    return (95, 95, 105) if sum(color) < 150 else (color[0] * 55 // 100, color[1] * 55 // 100, color[2] * 55 // 100)


def _contrast(color: Rgb) -> Rgb:
    return (15, 15, 15) if sum(color) > 330 else (250, 250, 250)


@lru_cache(maxsize=512)
def _texture(pattern: str, color: str, pixels: int) -> Image.Image:
    base = COLORS[color]
    tile = Image.new("RGB", (pixels, pixels), base)
    pen, ink = ImageDraw.Draw(tile), _contrast(base)
    step = max(4, pixels // 4)
    if pattern == "striped":
        for y in range(0, pixels, step):
            pen.rectangle((0, y, pixels, y + step // 2 - 1), fill=ink)
    elif pattern == "spotted":
        for i, y in enumerate(range(step // 2, pixels, step)):
            for x in range(step // 2 + (i % 2) * step // 2, pixels, step):
                pen.ellipse((x - step / 4, y - step / 4, x + step / 4, y + step / 4), fill=ink)
    elif pattern == "checkered":
        for i, y in enumerate(range(0, pixels, step)):
            for x in range((i % 2) * step, pixels, 2 * step):
                pen.rectangle((x, y, x + step - 1, y + step - 1), fill=ink)
    else:  # split: one half in the contrasting ink
        pen.rectangle((pixels // 2, 0, pixels, pixels), fill=ink)
    return tile


@lru_cache(maxsize=256)
def _background(place: str, time: str, weather: str, side: int) -> Image.Image:
    sky, ground = SKIES[time], GROUNDS[place]
    if time == "night":
        ground = _mix(ground, (10, 12, 40), 0.55)
    if weather in ("cloudy", "rainy", "stormy"):
        sky = _mix(sky, (95, 98, 110), {"cloudy": 0.35, "rainy": 0.5, "stormy": 0.7}[weather])
    if weather == "snowy":
        ground = _mix(ground, (245, 248, 255), 0.6)
    image = Image.new("RGB", (side, side), sky)
    pen = ImageDraw.Draw(image)
    _draw_light(pen, time, weather, side)
    _draw_place(pen, place, ground, side)
    _draw_weather(pen, weather, side)
    if weather == "foggy":
        image = Image.blend(image, Image.new("RGB", (side, side), (215, 218, 222)), 0.55)
    return image


def _mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    return tuple(round(x * (1 - share) + y * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _draw_light(pen: ImageDraw.ImageDraw, time: str, weather: str, side: int) -> None:
    if time == "night":
        for i in range(14):  # a fixed sprinkle of stars
            x, y = (i * 37 % 61) / 61 * side, (i * 23 % 29) / 29 * HORIZON * side
            pen.rectangle((x, y, x + 1, y + 1), fill=(235, 235, 200))
    if weather in ("sunny", "snowy", "foggy") or time == "night":
        x, y = {"dawn": (0.1, 0.45), "noon": (0.5, 0.06), "dusk": (0.9, 0.45), "night": (0.85, 0.1)}[time]
        r = 0.075 * side
        fill = (235, 235, 215) if time == "night" else (255, 236, 120)
        pen.ellipse((x * side - r, y * side - r, x * side + r, y * side + r), fill=fill)


def _draw_place(pen: ImageDraw.ImageDraw, place: str, ground: Rgb, side: int) -> None:
    h = HORIZON * side
    pen.rectangle((0, h, side, side), fill=ground)

    def ridge(color: Rgb, tops: list[float]) -> None:
        points = [(i / (len(tops) - 1) * side, h - top * side) for i, top in enumerate(tops)]
        pen.polygon([(0, h), *points, (side, h)], fill=color)

    if place == "beach":
        pen.rectangle((0, h, side, h + 0.1 * side), fill=(60, 140, 200))
    elif place == "forest":
        ridge((35, 75, 40), [0.02, 0.2, 0.03, 0.22, 0.03, 0.2, 0.02, 0.22, 0.03, 0.2, 0.02])
    elif place == "desert":
        ridge(_mix(ground, (170, 110, 50), 0.4), [0.0, 0.1, 0.02, 0.0, 0.08, 0.12, 0.03])
    elif place == "city":
        for i, top in enumerate((0.2, 0.12, 0.26, 0.16, 0.22, 0.1, 0.24, 0.15)):
            pen.rectangle((i / 8 * side, h - top * side, (i + 0.85) / 8 * side, h), fill=(95, 98, 110))
    elif place == "field":
        for i in range(5):
            pen.line((side / 2, h, i / 4 * side, side), fill=_mix(ground, (90, 130, 40), 0.6), width=2)
    elif place == "mountains":
        ridge((105, 100, 120), [0.05, 0.3, 0.1, 0.36, 0.08, 0.26, 0.04])
    elif place == "lake":
        ridge((60, 110, 70), [0.06, 0.08, 0.05, 0.08, 0.06])
        for i in range(4):
            y = h + (i + 1) * 0.09 * side
            pen.line((0.1 * i * side, y, (0.3 + 0.18 * i) * side, y), fill=(150, 195, 220), width=2)
    else:  # village: low roofs along the horizon
        for i in range(5):
            x = (i + 0.2) / 5 * side
            pen.rectangle((x, h - 0.07 * side, x + 0.12 * side, h), fill=(205, 180, 150))
            roof = [
                (x - 2, h - 0.07 * side),
                (x + 0.06 * side, h - 0.14 * side),
                (x + 0.12 * side + 2, h - 0.07 * side),
            ]
            pen.polygon(roof, fill=(160, 80, 60))


def _draw_weather(pen: ImageDraw.ImageDraw, weather: str, side: int) -> None:
    if weather in ("cloudy", "rainy", "stormy"):
        fill = {"cloudy": (235, 237, 240), "rainy": (150, 155, 168), "stormy": (70, 72, 88)}[weather]
        for x, y, r in ((0.15, 0.08, 0.12), (0.3, 0.1, 0.1), (0.65, 0.06, 0.13), (0.8, 0.1, 0.1)):
            pen.ellipse(((x - r) * side, (y - r / 2) * side, (x + r) * side, (y + r / 2) * side), fill=fill)
    if weather == "rainy":
        for i in range(26):
            x, y = (i * 29 % 53) / 53 * side, (i * 17 % 41) / 41 * side
            pen.line((x, y, x - 3, y + 8), fill=(190, 210, 240))
    elif weather == "snowy":
        for i in range(30):
            x, y = (i * 31 % 59) / 59 * side, (i * 19 % 47) / 47 * side
            pen.ellipse((x, y, x + 3, y + 3), fill=(255, 255, 255))
    elif weather == "stormy":
        bolt = [(0.5, 0.08), (0.42, 0.3), (0.49, 0.3), (0.44, 0.5), (0.58, 0.24), (0.51, 0.24), (0.56, 0.08)]
        pen.polygon([(x * side, y * side) for x, y in bolt], fill=(255, 245, 120))
