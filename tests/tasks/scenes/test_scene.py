"""Scenes are pure functions of seed, index and stream, and keep the promises that questions and pictures rely on."""

from collections import Counter

from metavqa_cli.tasks.sources.scenes.scene import DATASET, Scene, sample_scene
from metavqa_cli.tasks.sources.scenes.vocabulary import (
    CATEGORIES,
    COLORS,
    KINDS,
    MAX_COUNT,
    PATTERNS,
    PLACES,
    ROWS,
    SIZES,
    TIMES,
    WEATHERS,
)

SCENES = [sample_scene(5, i) for i in range(600)]
GROUPS = [group for scene in SCENES for group in scene.groups]


def test_the_world_is_as_rich_as_promised() -> None:
    assert len(KINDS) >= 24
    assert len(COLORS) == 10
    assert len(PLACES) == 8
    assert MAX_COUNT == 6
    assert {kind.category for kind in KINDS.values()} == set(CATEGORIES)


def test_everything_that_can_be_in_a_picture_is_in_one() -> None:
    assert {group.kind for group in GROUPS} == set(KINDS)
    assert {group.color for group in GROUPS} == set(COLORS)
    assert {group.pattern for group in GROUPS} == set(PATTERNS)
    assert {group.size for group in GROUPS} == set(SIZES)
    assert {group.count for group in GROUPS} == set(range(1, 7))
    assert {group.cell for group in GROUPS} == set(range(9))
    assert {scene.place for scene in SCENES} == set(PLACES)
    assert {scene.time for scene in SCENES} == set(TIMES)
    assert {scene.weather for scene in SCENES} == set(WEATHERS)
    assert {len(scene.groups) for scene in SCENES} == {1, 2, 3, 4}


def test_kinds_and_cells_are_distinct_within_a_scene() -> None:
    for scene in SCENES:
        assert len({group.kind for group in scene.groups}) == len(scene.groups)
        assert len({group.cell for group in scene.groups}) == len(scene.groups)


def test_a_cell_is_its_row_and_column() -> None:
    assert all(3 * group.row + group.column == group.cell for group in GROUPS)


def test_a_scene_is_a_function_of_seed_index_and_stream() -> None:
    assert [sample_scene(5, i) for i in range(50)] == SCENES[:50]
    assert len(set(SCENES)) == len(SCENES)
    assert set(SCENES).isdisjoint(sample_scene(6, i) for i in range(600))
    assert set(SCENES).isdisjoint(sample_scene(5, i, "another") for i in range(600))


def share_of_usual_rows(scenes: list[Scene]) -> float:
    groups = [group for scene in scenes for group in scene.groups]
    return sum(ROWS[group.row] == KINDS[group.kind].row for group in groups) / len(groups)


def test_kinds_have_habits_in_a_dataset_and_nowhere_else() -> None:
    assert share_of_usual_rows([sample_scene(5, i, DATASET) for i in range(600)]) > 0.5
    assert share_of_usual_rows([sample_scene(5, i, "encoder-train") for i in range(600)]) < 0.4


def test_no_answer_is_nearly_always_right() -> None:
    for name, most in (("color", 0.2), ("pattern", 0.4), ("count", 0.5), ("cell", 0.3)):
        commonest = Counter(getattr(group, name) for group in GROUPS).most_common(1)[0][1]
        assert commonest / len(GROUPS) < most, name
