"""The questions of the Scenes world: families, their wordings with statement templates, and the facts they ask about.

A *fact* is ``(Concept, answer)``: what is true of one scene. A *concept* is a family with its arguments ("the colour
of the car"); a family words it in several ways, some for one object and some for several ("What color are the cars?").
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from metavqa_cli.tasks.sources.scenes.captions import SIDES, position_phrase
from metavqa_cli.tasks.sources.scenes.scene import Group, Scene
from metavqa_cli.tasks.sources.scenes.vocabulary import (
    CATEGORIES,
    COLORS,
    KINDS,
    PATTERNS,
    POSITIONS,
    SIZES,
)
from metavqa_cli.tasks.sources.scenes.wordings import WORDINGS, Number

HELD_OUT_FAMILIES = frozenset({"below", "position_category", "color_biggest"})
HELD_OUT_CONCEPTS = 0.05  # share of the other concepts that only test tasks ask about
SEPARATOR = "/"


def _pair(category: str, other: str) -> str:
    return f"{category}{SEPARATOR}{other}"


ARGUMENTS: dict[str, tuple[str, ...]] = {
    "kind": tuple(KINDS),
    "color": tuple(COLORS),
    "pattern": PATTERNS,
    "category": tuple(CATEGORIES),
    "position": POSITIONS,
    "side": tuple(SIDES),
    "neighbour": tuple(_pair(c, k) for i, c in enumerate(CATEGORIES) for j, k in enumerate(KINDS) if (i + j) % 6 == 0),
    "colored": tuple(_pair(category, color) for category in CATEGORIES for color in COLORS),
    "patterned": tuple(_pair(category, pattern) for category in CATEGORIES for pattern in PATTERNS),
    "placed": tuple(_pair(category, position) for category in CATEGORIES for position in POSITIONS),
    "": ("",),
}


class Concept(NamedTuple):
    """What a question asks: a family, its argument ("" for none), and whether it fits one object, several or any."""

    family: str
    argument: str
    number: Number = "any"


@dataclass(frozen=True)
class Question:
    """A question of the world with its statement template and where it comes from."""

    text: str
    template: str
    concept: Concept
    held_out: bool


def all_questions(seed: int) -> list[Question]:
    """Every question of the world, in a fixed order. ``seed`` chooses the concepts that only test tasks ask about."""
    found: dict[str, Question] = {}
    for family in WORDINGS:
        for question in _family_questions(family, seed):
            found.setdefault(question.text, question)  # "fish" is one and many
    return list(found.values())


def _family_questions(family: str, seed: int) -> Iterator[Question]:
    slot, wordings = WORDINGS[family]
    for argument in ARGUMENTS[slot]:
        draw = random.Random(f"held-out/{seed}/{family}/{argument}").random()
        held_out = family in HELD_OUT_FAMILIES or (slot != "" and draw < HELD_OUT_CONCEPTS)
        words = _words(slot, argument)
        for number, text, template in wordings:
            filled = template.replace("{}", "\0").format(**words).replace("\0", "{}")
            yield Question(text.format(**words), filled, Concept(family, argument, number), held_out)


def _words(slot: str, argument: str) -> dict[str, str]:
    category, separator, rest = argument.partition(SEPARATOR)
    if separator:
        inner = {"neighbour": "kind", "placed": "position"}.get(slot, "color")
        return {**_words(inner, rest), "category": category}
    if slot == "kind":
        return {"one": KINDS[argument].name, "many": KINDS[argument].plural}
    if slot == "category":
        return {"one": argument, "many": CATEGORIES[argument]}
    if slot == "position":
        return {"where": position_phrase(argument)}
    return {"where": SIDES[argument]} if slot == "side" else {"word": argument}


def facts(scene: Scene) -> Iterator[tuple[Concept, str]]:
    """Everything that the world's questions can ask about ``scene``. Counts are digits, as in VQA v2."""
    groups = scene.groups
    yield Concept("place", ""), scene.place
    yield Concept("time", ""), scene.time
    yield Concept("weather", ""), scene.weather
    yield Concept("count_objects", ""), str(sum(g.count for g in groups))
    yield Concept("count_kinds", ""), str(len(groups))
    for group in groups:
        yield from _group_facts(group)
        yield from _relation_facts(group, groups)
    for name in ("color", "pattern", "category", "side"):
        yield from _attribute_facts(name, groups)
    yield from _superlative_facts(groups)


def _group_facts(group: Group) -> Iterator[tuple[Concept, str]]:
    number: Number = "one" if group.count == 1 else "many"
    position = POSITIONS[group.cell]
    yield Concept("count_kind", group.kind), str(group.count)
    yield Concept("color_kind", group.kind, number), group.color
    yield Concept("position_kind", group.kind, number), position
    yield Concept("side_kind", group.kind), ("left", "center", "right")[group.column]
    yield Concept("size_kind", group.kind, number), group.size
    yield Concept("pattern_kind", group.kind, number), group.pattern
    yield Concept("color_position", position), group.color
    yield Concept("which_position", _pair(KINDS[group.kind].category, position)), group.kind


def _relation_facts(group: Group, groups: tuple[Group, ...]) -> Iterator[tuple[Concept, str]]:
    sides = {
        "left": [g for g in groups if g.column < group.column],
        "right": [g for g in groups if g.column > group.column],
        "above": [g for g in groups if g.row < group.row],
        "below": [g for g in groups if g.row > group.row],
    }
    for side, others in sides.items():
        for category, those in _members(others, "category").items():
            if len(those) == 1:
                yield Concept(side, _pair(category, group.kind)), those[0].kind
        if len(others) == 1 and side in ("left", "right"):
            yield Concept(f"color_{side}", group.kind), others[0].color


def _attribute_facts(name: str, groups: tuple[Group, ...]) -> Iterator[tuple[Concept, str]]:
    """Facts that name an object by one attribute ("the red object"): counts, and what else is true of it if unique."""
    for value, those in _members(groups, name).items():
        yield Concept(f"count_{name}", value), str(sum(g.count for g in those))
        if len(those) == 1 and name != "side":
            group = those[0]
            if name == "category":
                yield Concept("which_category", value), group.kind
            else:
                yield Concept(f"which_{name}", _pair(KINDS[group.kind].category, value)), group.kind
            yield Concept(f"position_{name}", value), POSITIONS[group.cell]
            if name != "color":
                yield Concept(f"color_{name}", value), group.color
            else:
                yield Concept("pattern_color", value), group.pattern
                yield Concept("size_color", value), group.size


def _members(groups: Iterable[Group], name: str) -> dict[str, list[Group]]:
    """The groups by one of their attributes."""
    members: dict[str, list[Group]] = {}
    for group in groups:
        members.setdefault(_attribute(group, name), []).append(group)
    return members


def _attribute(group: Group, name: str) -> str:
    if name == "category":
        return KINDS[group.kind].category
    return ("left", "middle", "right")[group.column] if name == "side" else str(getattr(group, name))


def _superlative_facts(groups: tuple[Group, ...]) -> Iterator[tuple[Concept, str]]:
    by_size = sorted(groups, key=lambda g: SIZES.index(g.size))
    if len(groups) > 1 and by_size[-1].size != by_size[-2].size:
        yield Concept("color_biggest", ""), by_size[-1].color
