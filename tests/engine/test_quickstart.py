"""The whole story: made once, found the second time, and told in commands that do the same."""

import shlex
from dataclasses import replace

import pytest

from metavqa_cli.engine.quickstart import (
    ASKED_FAMILIES,
    Story,
    equivalent_commands,
    held_out_tasks,
    next_commands,
    quickstart,
)
from metavqa_cli.schema.events import Reused, StepLogged
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.miniature import session


@pytest.fixture(scope="module")
def told() -> tuple[list[object], Story]:
    """A second quickstart in the finished workspace."""
    here = session(miniature.finished())
    here.__dict__["encoder"] = miniature.encoder()
    events, seen = quickstart(here), []
    try:
        while True:
            seen.append(next(events))
    except StopIteration as end:
        return seen, end.value


def test_the_second_time_everything_is_found(told: tuple[list[object], Story]) -> None:
    events, story = told
    reused = [event.kind for event in events if isinstance(event, Reused)]
    assert reused == ["dataset", "baseline", "zoo", "hvae", "ldm", "hvae", "ldm", "eval"]
    assert not any(isinstance(event, StepLogged) for event in events)
    assert {objective: run.manifest()["variant"] for objective, run in story.models.items()} == {
        "weights": "weights", "task": "task"
    }  # fmt: skip
    assert story.result == miniature.run("eval").result()


def test_it_asks_three_held_out_questions_about_images_of_their_own(told: tuple[list[object], Story]) -> None:
    _, story = told
    folder = miniature.dataset()
    assert len(story.asked) == 3
    assert len({task.question for task, _, _ in story.asked}) == 3
    for task, truths, answer in story.asked:
        assert task.split == "test"
        truth = {str(folder.image_path(image)): task.answers[label] for image, label in task.query}
        assert [truth[judgement.image] for judgement in answer.judgements] == truths
        assert answer.classifier.answers == task.answers and answer.classifier.template == task.template


def test_held_out_tasks_are_of_the_asked_families_where_there_are_some() -> None:
    task = miniature.dataset().tasks.of("test")[0]
    world = [replace(task, question=f"{family}?", family=family) for family in ("place", *reversed(ASKED_FAMILIES))]
    assert [chosen.family for chosen in held_out_tasks(world)] == list(ASKED_FAMILIES)
    assert [chosen.family for chosen in held_out_tasks(world[:2])] == [world[1].family, "place"]


def test_held_out_tasks_are_different_ones() -> None:
    assert len({task.question for task in held_out_tasks(miniature.dataset().tasks.of("test"))}) == 3


def test_the_commands_it_prints_can_be_typed(told: tuple[list[object], Story]) -> None:
    options = ["--preset", "smoke", "--workspace", "/a folder/with 'quotes'"]
    commands = equivalent_commands(session(miniature.finished()), options)
    assert [shlex.split(command)[1:-4] for command in commands] == [
        ["dataset", "build"], ["train", "baseline", "--method", "multitask"], ["train", "zoo"],
        ["train", "hvae", "--objective", "weights"], ["train", "ldm", "--on", "hvae"],
        ["train", "hvae", "--objective", "task"], ["train", "ldm", "--on", "task"], ["eval"],
    ]  # fmt: skip
    assert all(shlex.split(command)[-4:] == options for command in commands)
    _, story = told
    folder = miniature.dataset().path
    ask, generate, predict = (shlex.split(command) for command in next_commands(story, folder, []))
    assert ask[:2] == ["metavqa", "ask"] and ask[3].startswith(str(folder))
    assert generate[2] == story.asked[0][0].question
    assert predict[3] == story.asked[0][2].judgements[0].image


def test_it_needs_no_dataset_of_its_own_name(without_runs: Workspace) -> None:
    """Only what is missing is made: here the dataset is there and no run is."""
    events = list(quickstart(session(without_runs)))
    assert [event.kind for event in events if isinstance(event, Reused)] == ["dataset"]
    assert sorted(without_runs.run_ids()) == sorted(miniature.finished().run_ids())
