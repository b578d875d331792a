"""One scene as plain values, sampled as a pure function of ``(seed, index)``."""

import random
from dataclasses import dataclass

from metavqa_cli.tasks.sources.scenes.vocabulary import (
    COLORS,
    KINDS,
    MAX_COUNT,
    PATTERNS,
    PLACES,
    POSITIONS,
    ROWS,
    SIZES,
    TIMES,
    WEATHERS,
)

GROUP_COUNTS, GROUP_WEIGHTS = (1, 2, 3, 4), (20, 35, 30, 15)
COUNT_WEIGHTS = (34, 20, 15, 12, 10, 9)
PATTERN_WEIGHTS = (30, 16, 14, 14, 13, 13)
WEATHER_WEIGHTS = (28, 20, 16, 14, 12, 10)
SIZES_BY_COUNT = {1: SIZES, 2: SIZES[:3], 3: SIZES[:2], 4: SIZES[:2], 5: SIZES[:1], 6: SIZES[:1]}
DATASET = "dataset"
FAVOURITE_COLOR = 0.45  # probability that an object has one of its kind's two favourite colours
FAVOURITE = 0.4  # the same for pattern, size, row and count, in a dataset


@dataclass(frozen=True)
class Group:
    """``count`` equal objects side by side. ``cell`` indexes POSITIONS (row-major 3x3); ``jitter`` is in cell units."""

    kind: str
    color: str
    pattern: str
    size: str
    count: int
    cell: int
    jitter: tuple[float, float] = (0.0, 0.0)

    @property
    def column(self) -> int:
        return self.cell % 3

    @property
    def row(self) -> int:
        return self.cell // 3


@dataclass(frozen=True)
class Scene:
    """A place at a time in some weather, with one to four groups of distinct kinds in distinct cells."""

    place: str
    time: str
    weather: str
    groups: tuple[Group, ...]


def sample_scene(seed: int, index: int, stream: str = DATASET) -> Scene:
    """The scene number ``index`` of a world. ``stream`` keeps the encoder's training scenes apart from any dataset's.

    In a dataset, kinds have habits, as in photographs: birds are above, flowers many, castles huge. The encoder is
    trained on scenes without them, as CLIP is on a broader world than any one dataset's.
    """
    rng = random.Random(f"scenes/{stream}/{seed}/{index}")
    habit = FAVOURITE if stream == DATASET else 0.0
    number = rng.choices(GROUP_COUNTS, GROUP_WEIGHTS)[0]
    cells = rng.sample(range(len(POSITIONS)), number)
    kinds = rng.sample(tuple(KINDS), number)
    for i, kind in enumerate(kinds):
        if rng.random() < habit:
            _move_to_row(rng, cells, i, ROWS.index(KINDS[kind].row))
    groups = tuple(_sample_group(rng, kind, cell, cells, habit) for kind, cell in zip(kinds, cells, strict=True))
    return Scene(rng.choice(PLACES), rng.choice(TIMES), rng.choices(WEATHERS, WEATHER_WEIGHTS)[0], groups)


def _move_to_row(rng: random.Random, cells: list[int], i: int, row: int) -> None:
    free = [cell for cell in range(3 * row, 3 * row + 3) if cell not in cells]
    if free:
        cells[i] = rng.choice(free)


def _sample_group(rng: random.Random, kind: str, cell: int, cells: list[int], habit: float) -> Group:
    usual = KINDS[kind]
    crowded = any(other != cell and other // 3 == cell // 3 and abs(other - cell) == 1 for other in cells)
    most = 4 if crowded else MAX_COUNT  # five or six objects are wider than a cell
    count = rng.choices(range(1, most + 1), COUNT_WEIGHTS[:most])[0]
    if rng.random() < habit:
        count = min(usual.count, most)
    sizes = SIZES_BY_COUNT[count]
    size = usual.size if rng.random() < habit and usual.size in sizes else rng.choice(sizes)
    if crowded and size == "huge":
        size = "large"
    color = rng.choice(usual.colors) if rng.random() < FAVOURITE_COLOR else rng.choice(tuple(COLORS))
    pattern = usual.pattern if rng.random() < habit else rng.choices(PATTERNS, PATTERN_WEIGHTS)[0]
    jitter = (rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12))
    return Group(kind, color, pattern, size, count, cell, jitter)
