"""Pictures are pure functions of their scene, show every attribute, and cut nothing off."""

import hashlib
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image

from metavqa_cli.tasks.sources.scenes import draw as drawing
from metavqa_cli.tasks.sources.scenes.draw import draw
from metavqa_cli.tasks.sources.scenes.scene import Group, Scene, sample_scene
from metavqa_cli.tasks.sources.scenes.shapes import SHAPES
from metavqa_cli.tasks.sources.scenes.vocabulary import COLORS, KINDS, PATTERNS, PLACES, SIZES, TIMES, WEATHERS

CAR = Group("car", "red", "plain", "large", 1, 4)
SCENE = Scene("field", "noon", "cloudy", (CAR,))


def digest(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def with_car(**changes: object) -> Scene:
    return replace(SCENE, groups=(replace(CAR, **changes),))  # type: ignore[arg-type]


def test_a_picture_is_a_function_of_its_scene() -> None:
    scenes = [sample_scene(3, i) for i in range(40)]
    first = [digest(draw(scene)) for scene in scenes]
    drawing._background.cache_clear()
    drawing._texture.cache_clear()
    assert [digest(draw(scene)) for scene in reversed(scenes)] == first[::-1]
    assert len(set(first)) == len(scenes)


@pytest.mark.parametrize("size", [32, 64, 97])
def test_a_picture_has_the_size_asked_for(size: int) -> None:
    image = draw(SCENE, size)
    assert (image.size, image.mode) == ((size, size), "RGB")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("kind", list(KINDS)),
        ("color", list(COLORS)),
        ("pattern", list(PATTERNS)),
        ("size", list(SIZES)),
        ("count", [1, 2, 3, 4, 5, 6]),
        ("cell", list(range(9))),
    ],
)
def test_every_attribute_of_an_object_shows(name: str, values: list[object]) -> None:
    usual = {"size": "small"} if name == "count" else {}
    assert len({digest(draw(with_car(**usual | {name: value}))) for value in values}) == len(values)


def test_every_surrounding_shows() -> None:
    empty = [Scene(place, time, weather, ()) for place, time, weather in product(PLACES, TIMES, WEATHERS)]
    assert len({digest(draw(scene)) for scene in empty}) == len(PLACES) * len(TIMES) * len(WEATHERS)


@pytest.mark.parametrize("color", COLORS)
def test_a_plain_object_has_its_color(color: str) -> None:
    changed = np.asarray(draw(with_car(color=color, kind="ball"))) != np.asarray(draw(replace(SCENE, groups=())))
    pixels = np.asarray(draw(with_car(color=color, kind="ball")))[changed.any(axis=2)]
    right = (pixels == COLORS[color]).all(axis=1).mean()
    assert right > 0.6  # the rest is its rim


def test_more_objects_cover_more() -> None:
    empty = np.asarray(draw(replace(SCENE, groups=())))
    covered = [int((np.asarray(draw(with_car(count=n, size="small"))) != empty).any(2).sum()) for n in range(1, 7)]
    assert covered == sorted(set(covered))


def test_no_object_leaves_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[tuple[int, int, int]] = []
    monkeypatch.setattr(drawing, "_draw_object", lambda _image, _group, x, y, pixels: boxes.append((x, y, pixels)))
    scenes = [sample_scene(1, i) for i in range(400)]
    for scene in scenes:
        draw(scene)
    assert len(boxes) == sum(group.count for scene in scenes for group in scene.groups)
    assert all(min(x, y) >= 0 and max(x, y) + pixels <= 128 for x, y, pixels in boxes)


def test_objects_of_a_group_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[tuple[int, int, int]] = []
    monkeypatch.setattr(drawing, "_draw_object", lambda _image, _group, x, y, pixels: boxes.append((x, y, pixels)))
    draw(with_car(count=6, size="small"))
    for i, (x, y, pixels) in enumerate(boxes):
        assert all(abs(x - u) >= pixels or abs(y - v) >= pixels for u, v, _ in boxes[:i])


def test_every_kind_has_a_shape_within_the_unit_square() -> None:
    assert set(SHAPES) == set(KINDS)
    for parts in SHAPES.values():
        assert any(role == "body" for role, _ in parts)
        for _, geometry in parts:
            numbers = geometry if isinstance(geometry, tuple) else [c for point in geometry for c in point]
            assert all(0 <= number <= 1 for number in numbers)


def test_edges_are_smooth() -> None:
    """Anti-aliasing leaves colours between the object's and the background's."""
    ball = replace(CAR, kind="ball", pattern="plain", size="huge")
    colors = {color for _, color in draw(replace(SCENE, groups=(ball,))).getcolors(4096) or []}
    background = {color for _, color in draw(replace(SCENE, groups=())).getcolors(4096) or []}
    assert len(colors - background) > 5
