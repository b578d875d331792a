"""Captions of a scene for training the tiny CLIP: what a person would casually say, which is not everything they see.

Kinds and colours are named often; patterns, sizes, exact counts, weather and relations seldom; digits hardly ever. So
the image tower must see far more than the text tower is told, as with CLIP and photographs, and plain zero-shot
comparison leaves something for an adapter to learn.
"""

import random

from metavqa_cli.tasks.sources.scenes.scene import Group, Scene
from metavqa_cli.tasks.sources.scenes.vocabulary import CATEGORIES, KINDS, MAX_COUNT, POSITIONS, SIZES

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
SAY = {
    "group": 0.85, "color": 0.70, "position": 0.50, "size": 0.20, "pattern": 0.16, "count": 0.45, "digit": 0.12,
    "category": 0.06, "place": 0.40, "time": 0.22, "weather": 0.20, "relation": 0.08, "attribute": 0.20,
    "asked": 0.45,
}  # fmt: skip
# A caption that names a single group says more about it and its surroundings.
SAY_ALONE = SAY | {"color": 0.9, "position": 0.8, "place": 0.7, "time": 0.45, "weather": 0.45}
PLACE_WORDS = {
    "beach": "at the beach", "forest": "in the forest", "desert": "in the desert", "city": "in the city",
    "field": "in a field", "mountains": "in the mountains", "lake": "by the lake", "village": "in a village",
}  # fmt: skip
TIME_WORDS = {"dawn": "at dawn", "noon": "at noon", "dusk": "at dusk", "night": "at night"}
WEATHER_WORDS = {
    "sunny": "on a sunny day", "cloudy": "under a cloudy sky", "rainy": "on a rainy day",
    "snowy": "on a snowy day", "foggy": "in foggy weather", "stormy": "in stormy weather",
}  # fmt: skip
OPENINGS = ("", "", "", "a picture of ", "a photo of ", "an image with ", "we see ", "there is ", "this shows ")
SIDES = {"left": "on the left side", "middle": "in the middle", "right": "on the right side"}
PREPOSITIONS = {"center": "in the center", "left": "on the left", "right": "on the right"}


def caption(scene: Scene, rng: random.Random, plain: bool = False) -> str:
    """One caption, drawn from ``rng``; a ``plain`` one describes the scene and never lists attributes by name."""
    if not plain and rng.random() < SAY["attribute"]:
        return _attribute_caption(scene, rng)
    said = [group for group in scene.groups if rng.random() < SAY["group"]] or [rng.choice(scene.groups)]
    rng.shuffle(said)
    say = SAY_ALONE if len(said) == 1 else SAY
    phrases = [_group_phrase(group, say, rng) for group in said]
    if len(said) > 1 and rng.random() < SAY["relation"]:
        phrases[:2] = [_relation_phrase(said[0], said[1])]
    text = rng.choice(OPENINGS) + _join(phrases, rng)
    for key, words in (("place", PLACE_WORDS[scene.place]), ("time", TIME_WORDS[scene.time]),
                       ("weather", WEATHER_WORDS[scene.weather])):  # fmt: skip
        if rng.random() < say[key]:
            text += " " + words
    return text


def _group_phrase(group: Group, say: dict[str, float], rng: random.Random) -> str:
    kind = KINDS[group.kind]
    words = [getattr(group, key) for key in ("size", "pattern", "color") if rng.random() < say[key]]
    if rng.random() < say["category"]:
        words.append(kind.category if group.count == 1 else CATEGORIES[kind.category])
    else:
        words.append(kind.name if group.count == 1 else kind.plural)
    if rng.random() < say["position"]:
        words.append(position_phrase(POSITIONS[group.cell]))
    quantity = _quantity(group, rng)
    if quantity == "a" and words[0][0] in "aeiou":
        quantity = "an"
    return " ".join((quantity, *words) if quantity else words)


def _quantity(group: Group, rng: random.Random) -> str:
    if rng.random() < SAY["count"]:
        return _number(group.count, rng)
    return rng.choice(("a", "a", "the")) if group.count == 1 else rng.choice(("", "some", "several"))


def _number(number: int, rng: random.Random) -> str:
    return str(number) if number > MAX_COUNT or rng.random() < SAY["digit"] else NUMBER_WORDS[number]


def position_phrase(position: str) -> str:
    """ "top left" -> "at the top left"."""
    return PREPOSITIONS.get(position, f"at the {position}")


def _relation_phrase(a: Group, b: Group) -> str:
    if a.column != b.column:
        relation = "to the left of" if a.column < b.column else "to the right of"
    else:
        relation = "above" if a.row < b.row else "below"
    names = [KINDS[g.kind].name if g.count == 1 else KINDS[g.kind].plural for g in (a, b)]
    return f"the {names[0]} {relation} the {names[1]}"


def _join(phrases: list[str], rng: random.Random) -> str:
    return rng.choice((" and ", ", ")).join(phrases)


def _attribute_caption(scene: Scene, rng: random.Random) -> str:
    """Two or three attributes by name ("what color is the car? red"), so that the words of questions have a meaning."""
    facts = _scene_attributes(scene, rng)
    for group in scene.groups:
        facts += _group_attributes(group, rng)
    chosen = rng.sample(facts, min(len(facts), rng.choice((2, 2, 3))))
    if rng.random() < 0.5:
        return " ".join(f"{question}? {answer}." for question, _, answer in chosen)
    return ", ".join(f"{subject} is {answer}" for _, subject, answer in chosen)


def _scene_attributes(scene: Scene, rng: random.Random) -> list[tuple[str, str, str]]:
    """(question, subject, answer) about the scene as a whole."""
    total, biggest = sum(g.count for g in scene.groups), max(scene.groups, key=lambda g: SIZES.index(g.size))
    column, kinds = rng.randrange(3), NUMBER_WORDS[len(scene.groups)]
    beside = sum(g.count for g in scene.groups if g.column == column)
    facts = [
        ("what place is shown in the background", "the place in the background", scene.place),
        ("where was this picture taken", "the landscape", scene.place),
        ("what part of the day is it", "the time of day", scene.time),
        ("when was this taken", "the time", scene.time),
        ("what is the weather like", "the weather", scene.weather),
        ("what kind of day is it", "the day", scene.weather),
        ("which object is the biggest or the largest", "the biggest thing", biggest.kind),
        ("what is the total number of objects", "the number of things in the scene", _number(total, rng)),
        ("how many different kinds of things are shown", "the number of types of objects", kinds),
    ]
    if beside:
        where = SIDES[("left", "middle", "right")[column]]
        facts.append((f"how many objects are {where}", f"the number of things {where}", _number(beside, rng)))
    return facts


def _group_attributes(group: Group, rng: random.Random) -> list[tuple[str, str, str]]:
    """(question, subject, answer) about one group; of its pattern and size less often than of its colour."""
    kind, where = KINDS[group.kind], position_phrase(POSITIONS[group.cell])
    noun, verb, do = (kind.name, "is", "does") if group.count == 1 else (kind.plural, "are", "do")
    facts = [
        (f"what color {verb} the {noun}", f"the color of the {noun}", group.color),
        (f"which color {do} the {noun} have", f"the color of the {noun} in the picture", group.color),
        (f"where {verb} the {noun}", f"the position of the {noun}", POSITIONS[group.cell]),
        (f"on which side {verb} the {noun}", f"the side of the {noun}", ("left", "center", "right")[group.column]),
        (f"which color can be seen {where}", f"the color {where}", group.color),
        (f"what kind of {kind.category} is shown", f"the type of {kind.category}", kind.name),
        (f"which object is {group.color}", f"the {group.color} object", kind.name),
        (f"which {kind.category} is {group.color}", f"the {group.color} {kind.category}", kind.name),
        (f"what {kind.category} can be seen {where}", f"the {kind.category} {where}", kind.name),
        (f"what can you see {where}", f"the thing {where}", kind.name),
    ]
    if rng.random() < SAY["count"]:
        number = NUMBER_WORDS[group.count]
        seen = rng.choice(("are there", "are visible", "appear in the scene"))
        facts.append((f"how many {kind.plural} {seen}", f"the number of {kind.plural}", number))
        facts.append((f"how many {group.color} things can you count", f"the number of {noun}", number))
    if rng.random() < SAY["asked"]:
        facts.append((f"what pattern {do} the {noun} have", f"the pattern that the {noun} has", group.pattern))
        facts.append((f"which {kind.category} is {group.pattern}", f"the {group.pattern} {kind.category}", kind.name))
    if rng.random() < SAY["asked"]:
        facts.append((f"how big {verb} the {noun}", f"the size of the {noun}", group.size))
    return facts
