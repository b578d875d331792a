"""The words of the Scenes world: what can be in a picture, and how English names it.

Everything here is data. Probabilities live in ``scene.py``, pictures in ``shapes.py`` and ``draw.py``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of object: its noun, plural and category, and how a dataset most often shows it (see ``scene.py``)."""

    name: str
    plural: str
    category: str
    colors: tuple[str, str]
    pattern: str
    size: str
    row: str
    count: int


COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (250, 140, 20),
    "yellow": (248, 220, 50),
    "green": (40, 160, 60),
    "blue": (40, 90, 220),
    "purple": (130, 50, 170),
    "pink": (250, 140, 190),
    "brown": (125, 75, 35),
    "white": (250, 250, 250),
    "black": (20, 20, 22),
}

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("dog", "dogs", "animal", ("brown", "black"), "spotted", "medium", "bottom", 1),
        Kind("cat", "cats", "animal", ("black", "orange"), "striped", "small", "bottom", 2),
        Kind("bird", "birds", "animal", ("blue", "white"), "split", "small", "top", 4),
        Kind("fish", "fish", "animal", ("orange", "blue"), "striped", "small", "bottom", 5),
        Kind("rabbit", "rabbits", "animal", ("white", "brown"), "plain", "small", "bottom", 3),
        Kind("turtle", "turtles", "animal", ("green", "brown"), "checkered", "medium", "bottom", 1),
        Kind("car", "cars", "vehicle", ("red", "black"), "plain", "medium", "bottom", 2),
        Kind("bus", "buses", "vehicle", ("yellow", "red"), "striped", "large", "middle", 1),
        Kind("boat", "boats", "vehicle", ("white", "blue"), "split", "large", "middle", 1),
        Kind("plane", "planes", "vehicle", ("white", "orange"), "outlined", "large", "top", 1),
        Kind("rocket", "rockets", "vehicle", ("red", "purple"), "checkered", "huge", "top", 1),
        Kind("house", "houses", "building", ("brown", "yellow"), "plain", "huge", "middle", 1),
        Kind("tower", "towers", "building", ("purple", "pink"), "outlined", "huge", "middle", 1),
        Kind("castle", "castles", "building", ("black", "purple"), "plain", "huge", "middle", 1),
        Kind("tent", "tents", "building", ("orange", "green"), "striped", "medium", "bottom", 2),
        Kind("tree", "trees", "plant", ("green", "orange"), "plain", "large", "middle", 3),
        Kind("flower", "flowers", "plant", ("pink", "yellow"), "outlined", "small", "bottom", 6),
        Kind("cactus", "cacti", "plant", ("green", "pink"), "spotted", "medium", "middle", 2),
        Kind("mushroom", "mushrooms", "plant", ("red", "brown"), "spotted", "small", "bottom", 4),
        Kind("apple", "apples", "food", ("red", "green"), "plain", "small", "middle", 5),
        Kind("banana", "bananas", "food", ("yellow", "green"), "plain", "medium", "bottom", 3),
        Kind("cake", "cakes", "food", ("pink", "white"), "split", "large", "middle", 1),
        Kind("pear", "pears", "food", ("green", "yellow"), "outlined", "small", "middle", 4),
        Kind("ball", "balls", "toy", ("blue", "red"), "checkered", "small", "bottom", 3),
        Kind("kite", "kites", "toy", ("purple", "blue"), "split", "medium", "top", 2),
        Kind("balloon", "balloons", "toy", ("pink", "purple"), "spotted", "medium", "top", 2),
        Kind("drum", "drums", "toy", ("orange", "black"), "striped", "medium", "middle", 1),
    )
}

CATEGORIES: dict[str, str] = {
    "animal": "animals",
    "vehicle": "vehicles",
    "building": "buildings",
    "plant": "plants",
    "food": "foods",
    "toy": "toys",
}

PATTERNS = ("plain", "striped", "spotted", "checkered", "outlined", "split")
SIZES = ("small", "medium", "large", "huge")
SIZE_FRACTIONS = {"small": 0.155, "medium": 0.20, "large": 0.28, "huge": 0.38}  # side of one object / image side
PLACES = ("beach", "forest", "desert", "city", "field", "mountains", "lake", "village")
TIMES = ("dawn", "noon", "dusk", "night")
WEATHERS = ("sunny", "cloudy", "rainy", "snowy", "foggy", "stormy")
COLUMNS = ("left", "middle", "right")
ROWS = ("top", "middle", "bottom")
POSITIONS = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
MAX_COUNT = 6
