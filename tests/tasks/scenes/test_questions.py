"""The world's questions are many and well formed, and every fact is true of its scene by a second, plainer reading."""

import re
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from metavqa_cli.tasks.sources.scenes.questions import (
    HELD_OUT_FAMILIES,
    Concept,
    _family_questions,
    all_questions,
    facts,
)
from metavqa_cli.tasks.sources.scenes.scene import Group, Scene, sample_scene
from metavqa_cli.tasks.sources.scenes.vocabulary import KINDS, SIZES
from metavqa_cli.tasks.sources.scenes.wordings import WORDINGS

QUESTIONS = all_questions(2021)
SCENES = [sample_scene(9, i) for i in range(250)]
FACTS = [(scene, concept, answer) for scene in SCENES for concept, answer in facts(scene)]

# --- a second reading of a scene: single objects, each knowing everything about itself ---

ROW_WORDS, COLUMN_WORDS = ("top", "", "bottom"), ("left", "", "right")


def objects(scene: Scene) -> list[Group]:
    return [group for group in scene.groups for _ in range(group.count)]


def position(thing: Group) -> str:
    return f"{ROW_WORDS[thing.cell // 3]} {COLUMN_WORDS[thing.cell % 3]}".strip() or "center"


def category(thing: Group) -> str:
    return KINDS[thing.kind].category


def side(thing: Group) -> str:
    return COLUMN_WORDS[thing.cell % 3] or "middle"


def side_answer(thing: Group) -> str:
    return COLUMN_WORDS[thing.cell % 3] or "center"


READ: dict[str, Callable[[Group], str]] = {
    "kind": lambda thing: thing.kind,
    "color": lambda thing: thing.color,
    "pattern": lambda thing: thing.pattern,
    "size": lambda thing: thing.size,
    "position": position,
    "category": category,
    "side": side,
}
BESIDE: dict[str, Callable[[Group, Group], bool]] = {
    "left": lambda other, thing: other.cell % 3 < thing.cell % 3,
    "right": lambda other, thing: other.cell % 3 > thing.cell % 3,
    "above": lambda other, thing: other.cell // 3 < thing.cell // 3,
    "below": lambda other, thing: other.cell // 3 > thing.cell // 3,
}
WHICH = {"category": "category", "color": "color", "pattern": "pattern", "position": "position"}


def answers(scene: Scene, concept: Concept) -> set[str]:
    """Every answer to the concept's question that somebody looking at the picture could defend."""
    family, argument, _ = concept
    things = objects(scene)
    if family in ("place", "time", "weather"):
        return {getattr(scene, family)}
    if family == "count_objects":
        return {str(len(things))}
    if family == "count_kinds":
        return {str(len({thing.kind for thing in things}))}
    first, _, second = family.partition("_")
    if first == "count":
        return {str(sum(READ[second](thing) == argument for thing in things))}
    if family == "color_biggest":
        largest = max(SIZES.index(thing.size) for thing in things)
        return {thing.color for thing in things if SIZES.index(thing.size) == largest}
    if family in BESIDE:
        wanted, _, kind = argument.partition("/")
        return {t.kind for t in beside(things, family, kind) if category(t) == wanted}
    if second in BESIDE:
        return {thing.color for thing in beside(things, second, argument)}
    if first == "which":
        return which(things, second, argument)
    read = side_answer if first == "side" else READ[first]
    return {read(thing) for thing in things if READ[second](thing) == argument}


def beside(things: Iterable[Group], relation: str, kind: str) -> list[Group]:
    things = list(things)
    (middle,) = {thing for thing in things if thing.kind == kind}
    return [thing for thing in things if BESIDE[relation](thing, middle)]


def which(things: Iterable[Group], attribute: str, argument: str) -> set[str]:
    wanted, separator, value = argument.partition("/")
    if not separator:
        wanted, value = argument, argument
    return {t.kind for t in things if category(t) == wanted and READ[attribute](t) == value}


@pytest.mark.parametrize("family", WORDINGS)
def test_facts_are_the_only_true_answers(family: str) -> None:
    mine = [(scene, concept, answer) for scene, concept, answer in FACTS if concept.family == family]
    assert len(mine) >= 10
    for scene, concept, answer in mine:
        assert answers(scene, concept) == {answer}, (scene, concept)


@pytest.mark.parametrize(
    "family",
    ["count_kind", "count_color", "count_pattern", "count_category", "color_kind", "position_kind", "size_kind",
     "pattern_kind", "color_position", "left", "right", "above", "below"],
)  # fmt: skip
def test_no_fact_is_forgotten(family: str) -> None:
    """Whatever has exactly one answer (and not zero objects) is a fact."""
    slot = WORDINGS[family][0]
    arguments = sorted({concept.argument for _, concept, _ in FACTS if concept.family == family})
    for scene in SCENES[:60]:
        told = {concept.argument for concept, _ in facts(scene) if concept.family == family}
        for argument in arguments:
            if slot == "neighbour" and argument.partition("/")[2] not in {group.kind for group in scene.groups}:
                continue
            found = answers(scene, Concept(family, argument))
            assert (argument in told) == (len(found) == 1 and found != {"0"}), (scene, family, argument)


def test_number_says_one_or_many() -> None:
    for scene, concept, _ in FACTS:
        if concept.number != "any":
            (group,) = (group for group in scene.groups if group.kind == concept.argument)
            assert concept.number == ("one" if group.count == 1 else "many")


def test_a_concept_is_told_once_for_a_scene() -> None:
    for scene in SCENES:
        told = [concept for concept, _ in facts(scene)]
        assert len(told) == len(set(told))


def test_every_family_that_is_told_has_wordings_and_the_other_way_round() -> None:
    assert {concept.family for _, concept, _ in FACTS} == set(WORDINGS)


# --- the questions ---


def test_there_are_a_thousand_questions_in_twenty_families_with_several_wordings() -> None:
    assert len({question.text for question in QUESTIONS}) == len(QUESTIONS) >= 1000
    wordings = {family: len({text for _, text, _ in listed}) for family, (_, listed) in WORDINGS.items()}
    assert sum(count >= 2 for count in wordings.values()) >= 20
    assert {question.concept.family for question in QUESTIONS} == set(WORDINGS)


def test_no_question_asks_two_things() -> None:
    """ "What is the color of the fish?" is one question for one and for many fish; no other text has two meanings."""
    meanings: dict[str, set[tuple[str, str]]] = {}
    for family in WORDINGS:
        for question in _family_questions(family, 2021):
            meanings.setdefault(question.text, set()).add(question.concept[:2])
    assert {text: asked for text, asked in meanings.items() if len(asked) > 1} == {}


def test_questions_and_templates_are_well_formed() -> None:
    for question in QUESTIONS:
        assert re.fullmatch(r"[A-Z][A-Za-z ]*[a-z]\?", question.text), question.text
        assert re.fullmatch(r"[a-z {}]+", question.template), question.template
        assert question.template.count("{}") == 1
        assert re.sub(r"[{}]", "", question.template).count("{") == 0
        assert question.template.count("{") == question.template.count("}") == 1
        assert "  " not in question.text + question.template


def test_a_template_speaks_of_what_its_question_asks_about() -> None:
    """The argument of a concept (its kind, colour, category, …) is in the question and in the statement."""
    plurals = {kind.name: kind.plural for kind in KINDS.values()}
    plurals |= {"animal": "animals", "vehicle": "vehicles", "building": "buildings", "plant": "plants", "toy": "toys"}
    for question in QUESTIONS:
        for part in filter(None, question.concept.argument.split("/")):
            forms = {part, plurals.get(part, part)}
            assert any(form in question.text for form in forms), question
            # "Which animal is striped?" is completed by the animal itself, so its category may be left out
            category_only = question.concept.family.startswith("which") or question.concept.family in BESIDE
            if not (category_only and part in {kind.category for kind in KINDS.values()}):
                assert any(form in question.template for form in forms), question


def test_the_mix_resembles_meta_vqa() -> None:
    """A quarter asks how many, about as many for a colour, the rest what, where and which."""
    starts = Counter(" ".join(question.text.split()[:2]) for question in QUESTIONS)
    counts = starts["How many"] / len(QUESTIONS)
    colors = sum(question.concept.family.startswith("color") for question in QUESTIONS) / len(QUESTIONS)
    assert 0.15 < counts < 0.35
    assert 0.15 < colors < 0.35
    assert {"What", "Where", "Which"} <= {start.split()[0] for start in starts}


def test_held_out_concepts_are_a_function_of_the_seed_and_few() -> None:
    held = {question.concept for question in QUESTIONS if question.held_out}
    assert all(question.held_out for question in QUESTIONS if question.concept.family in HELD_OUT_FAMILIES)
    others = [q for q in QUESTIONS if q.concept.family not in HELD_OUT_FAMILIES]
    assert 0.03 < sum(question.held_out for question in others) / len(others) < 0.15
    assert {q.concept for q in all_questions(2021) if q.held_out} == held
    assert {q.concept for q in all_questions(1) if q.held_out} != held
    assert [q.text for q in all_questions(1)] == [q.text for q in QUESTIONS]


def test_wordings_of_a_concept_are_held_out_together() -> None:
    """Otherwise a training question would ask what the test question asks."""
    sides: dict[tuple[str, str], set[bool]] = {}
    for question in QUESTIONS:
        sides.setdefault(question.concept[:2], set()).add(question.held_out)
    assert all(len(held) == 1 for held in sides.values())


def test_what_a_whole_picture_shows_is_never_held_out() -> None:
    about_all = [question for question in QUESTIONS if question.concept.family in ("place", "time", "weather")]
    assert about_all and not any(question.held_out for question in about_all)
