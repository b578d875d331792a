"""Captions say only what is true of their scene, and say something."""

import random
import re

from metavqa_cli.tasks.sources.scenes.captions import caption
from metavqa_cli.tasks.sources.scenes.scene import Scene, sample_scene
from metavqa_cli.tasks.sources.scenes.vocabulary import COLORS, KINDS, PLACES, SIZES, TIMES, WEATHERS

SCENES = [sample_scene(2, i, "encoder-train") for i in range(600)]
CAPTIONS = [(scene, caption(scene, random.Random(i))) for i, scene in enumerate(SCENES)]


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text))


def kinds(scene: Scene) -> set[str]:
    return {group.kind for group in scene.groups}


def test_no_caption_is_empty() -> None:
    assert all(len(words(text)) >= 1 and text == text.strip() and "  " not in text for _, text in CAPTIONS)


def test_a_caption_is_a_function_of_scene_and_seed() -> None:
    again = [caption(scene, random.Random(i)) for i, scene in enumerate(SCENES)]
    assert again == [text for _, text in CAPTIONS]
    assert caption(SCENES[0], random.Random(1)) != caption(SCENES[0], random.Random(2))


def test_captions_name_only_what_is_there() -> None:
    singular = {form: name for name, kind in KINDS.items() for form in (kind.name, kind.plural)}
    for scene, text in CAPTIONS:
        named = {singular[word] for word in words(text) & singular.keys()}
        assert named <= kinds(scene), text
        assert words(text) & set(COLORS) <= {group.color for group in scene.groups}, text
        assert words(text) & set(SIZES) <= {group.size for group in scene.groups}, text
        assert words(text) & set(PLACES) <= {scene.place}, text
        assert words(text) & set(TIMES) <= {scene.time}, text
        assert words(text) & set(WEATHERS) <= {scene.weather}, text


def test_captions_leave_much_unsaid() -> None:
    """What an adapter can learn is what captions seldom verbalise."""
    said = sum(bool(words(text) & {scene.weather}) for scene, text in CAPTIONS) / len(CAPTIONS)
    assert 0.05 < said < 0.5
    colored = sum(bool(words(text) & set(COLORS)) for _, text in CAPTIONS) / len(CAPTIONS)
    assert colored > 0.6


def test_a_plain_caption_never_lists_attributes() -> None:
    plain = [caption(scene, random.Random(i), plain=True) for i, scene in enumerate(SCENES)]
    assert not any("?" in text or " is " in text.removeprefix("there is ") for text in plain)
    assert any("?" in text for _, text in CAPTIONS)
