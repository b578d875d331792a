"""Reading the released form of Meta-VQA, and writing it again."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.schema.config import Dataset
from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError, UsageError
from metavqa_cli.tasks.sources.hyperclip_release import inputs, read, to_release
from metavqa_cli.tasks.sources.material import Material
from tests.tasks.sources.tables import broken
from tests.tasks.test_protocol import RELEASE, needs_release

TRAIN, TEST, PROMPTS = "meta_train.json", "meta_test.json", "prompt_meta.json"


def config(folder: Path | str, **values: Any) -> Dataset:
    return Dataset(**{"name": "x", "source": "hyperclip", "path": str(folder), "tasks_only": True, **values})


def task(*answers: str, images: int = 3) -> dict[str, Any]:
    def pairs(first: int) -> list[list[str]]:
        return [[f"COCO_train2014_{100 * k + first + i:012d}", a] for k, a in enumerate(answers) for i in range(images)]

    return {"train": pairs(0), "test": pairs(images), "answers": list(answers)}


GOOD: dict[str, Any] = {
    TRAIN: {f"What color is car {i}?": task("red", "blue", "grün") for i in range(20)},
    TEST: {"How many people are in the room?": task("1", "2")},
    PROMPTS: {"What color is car 0?": "car 0 is painted {}"},
}


def write(folder: Path, **changed: Any) -> Path:
    for name, document in {**GOOD, **{f"{name}.json": value for name, value in changed.items()}}.items():
        if document is not None:
            (folder / name).write_text(json.dumps(document), "utf-8")
    return folder


@pytest.fixture(scope="module")
def release() -> Material:
    return read(config(RELEASE))


@needs_release
@pytest.mark.parametrize(("side", "name"), [(0, TRAIN), (1, TEST)])
def test_the_release_read_and_written_again_is_the_same_bytes(release: Material, side: int, name: str) -> None:
    assert json.dumps(to_release(release.tasks)[side]).encode() == (RELEASE / name).read_bytes()


@needs_release
def test_the_summary_of_the_release_is_the_published_one(release: Material) -> None:
    summary = release.tasks.summary()
    counts = ("tasks", "train", "validation", "test", "pairs", "images", "images_shared_by_train_and_test")
    assert [summary[key] for key in counts] == [1243, 783, 87, 373, 104_112, 64_665, 11_499]
    means = {"answers": 9.14, "support": 57.86, "query": 25.90}
    assert {key: round(summary[f"{key}_per_task"], 2) for key in means} == means
    assert (round(summary["majority"], 1), round(summary["chance"], 1)) == (33.8, 16.1)


@needs_release
def test_every_released_question_has_its_statement_and_nearly_every_one_its_kind(release: Material) -> None:
    prompts = json.loads((RELEASE / PROMPTS).read_text("utf-8"))
    assert release.notes == ()
    assert all(task.template == prompts[task.question] for task in release.tasks.tasks)
    families = [task.family for task in release.tasks.tasks]
    assert families.count("how many") == 268 and families.count("none of the above") == 14


def test_validation_tasks_stay_in_their_places(tmp_path: Path) -> None:
    tasks = read(config(write(tmp_path), validation_fraction=0.25)).tasks
    assert [task.question for task in tasks.tasks] == [*GOOD[TRAIN], *GOOD[TEST]]
    assert {split: len(tasks.of(split)) for split in ("train", "validation", "test")} == {
        "train": 15, "validation": 5, "test": 1,
    }  # fmt: skip
    assert [task.split for task in tasks.tasks] != sorted(task.split for task in tasks.tasks)
    assert to_release(tasks) == (GOOD[TRAIN], GOOD[TEST])


def test_statements_come_from_the_prompts_and_else_from_the_question(tmp_path: Path) -> None:
    given, derived = read(config(write(tmp_path))).tasks.tasks[:2]
    assert given.template == "car 0 is painted {}" and derived.template == "car 1 is {}"
    assert read(config(tmp_path)).notes == (
        f"20 questions have no statement in {tmp_path / PROMPTS}; theirs were derived",
    )
    (tmp_path / PROMPTS).unlink()
    without = read(config(tmp_path))
    assert without.tasks.tasks[0].template == "car 0 is {}" and without.notes == ()


def test_the_files_that_decide_are_listed_in_a_stable_order(tmp_path: Path) -> None:
    assert [path.name for path in inputs(config(write(tmp_path)))] == [TRAIN, TEST, PROMPTS]
    (tmp_path / PROMPTS).unlink()
    assert [path.name for path in inputs(config(tmp_path))] == [TRAIN, TEST]


def test_the_layout_of_the_authors_repository_is_known(tmp_path: Path) -> None:
    for folder, name in (("Meta", TRAIN), ("Meta", TEST), ("Annotations", PROMPTS)):
        path = tmp_path / "data" / "VQA" / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(GOOD[name]))
    assert [path.name for path in inputs(config(tmp_path))] == [TRAIN, TEST, PROMPTS]
    assert len(read(config(tmp_path / "data" / "VQA")).tasks.tasks) == 21


def test_questions_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path)
    chosen = read(config(tmp_path, match="^What|^How", exclude=r"car 1\d")).tasks
    assert [task.question for task in chosen.tasks] == [*list(GOOD[TRAIN])[:10], *GOOD[TEST]]
    with pytest.raises(JobError, match=r"no task is left.* 21 tasks in the files, 0 that dataset\.match"):
        read(config(tmp_path, match="elephant"))
    with pytest.raises(UsageError, match=r"dataset\.exclude is '\(', which is no regular expression"):
        read(config(tmp_path, exclude="("))


def test_images_are_found_and_the_others_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train2014").mkdir()
    for i in (0, 2):
        (tmp_path / "train2014" / f"COCO_train2014_{i:012d}.jpg").touch()
    found = read(config(tmp_path, tasks_only=False))
    assert {image: file.path.name for image, file in found.images.items()} == {
        f"COCO_train2014_{i:012d}": f"COCO_train2014_{i:012d}.jpg" for i in (0, 2)
    }
    assert found.missing == tuple(image for image in found.tasks.image_ids() if image not in found.images) != ()
    assert read(config(tmp_path)).missing == ()


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"there is no meta_train.json and meta_test.json in .*elvisnava/hyperclip"):
        read(config(tmp_path))
    write(tmp_path)
    (tmp_path / TEST).unlink()
    with pytest.raises(MissingError, match=r"there is no meta_test.json in"):
        inputs(config(tmp_path))
    with pytest.raises(MissingError, match=r"there is no folder .*nowhere"):
        read(config(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"dataset.path is empty, expected the folder with meta_train.json"):
        read(config(""))


Q = "How many people are in the room?"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], ["line 1, column 1", "where an object"]),
        ({Q: [1, 2]}, [Q, "a number stands there"]),
        ({Q: 3}, [Q, "a number stands there"]),
        ({Q: {**task("1", "2"), "answers": None}}, [Q, '"answers" is null']),
        ({Q: {**task("1", "2"), "answers": ["1", "1"]}}, [Q, "each once"]),
        ({Q: {**task("1", "2"), "answers": ["1"]}}, [Q, "two or more"]),
        ({Q: {**task("1", "2"), "train": []}}, [Q, '"train" is []']),
        ({Q: {"train": task("1", "2")["train"], "answers": ["1", "2"]}}, [Q, '"test" is null']),
        ({Q: {**task("1", "2"), "train": [["a", "3"]]}}, [Q, '"train"[0] is ["a", "3"]', "one of the answers"]),
        ({Q: {**task("1", "2"), "test": [["a", "1"], ["a"]]}}, [Q, '"test"[1] is ["a"]']),
        ({Q: {**task("1", "2"), "test": [[7, "1"]]}}, [Q, '"test"[0] is [7, "1"]']),
        ({Q: {**task("1", "2"), "test": [["a\0", "1"]]}}, [Q, '"test"[0]']),
        ({Q: {**task("1", "2"), "test": [["a", ["1"]]]}}, [Q, '"test"[0]']),
        ({Q: task("x" * 10_000, "2")}, [Q, "10,000 characters", "at most 1,000"]),
        ({Q: task("x\0", "2")}, [Q, "control character U+0000"]),
        ({Q: task(" ", "2")}, [Q, '"answers" is']),
        ({"?!": task("1", "2")}, ["?!", "no words"]),
        ({"": task("1", "2")}, ['""', "no words"]),
        ({"q" * 10_000: task("1", "2")}, ["question has 10,000 characters"]),
        ({"What color is car 3?": task("1", "2")}, ["What color is car 3?", "is also in", TRAIN]),
    ],
)  # fmt: skip
def test_a_bad_task_is_named(tmp_path: Path, document: Any, words: list[str]) -> None:
    write(tmp_path, meta_test=document)
    message = broken(JobError, lambda: read(config(tmp_path)))
    assert str(tmp_path / TEST) in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("template", [None, "no place", "{} and {}", "a\0{}"])
def test_a_statement_without_its_place_is_named(tmp_path: Path, template: Any) -> None:
    write(tmp_path, prompt_meta={Q: template})
    message = broken(JobError, lambda: read(config(tmp_path)))
    assert f"{tmp_path / PROMPTS}" in message and Q in message and "a text with one {}" in message


def test_a_question_that_comes_twice_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    one = json.dumps({Q: task("1", "2")})
    (tmp_path / TEST).write_text(f"{one[:-1]}, {one[1:]}")
    assert f'the key "{Q}" comes a second time' in broken(JobError, lambda: read(config(tmp_path)))


@settings(max_examples=40)
@given(st.integers(0, 10**9))
def test_a_cut_file_is_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    folder = write(tmp_path_factory.mktemp("cut"))
    data = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(data[: at % len(data)])
    message = broken(MetaVQAError, lambda: read(config(folder)))
    assert str(folder / TRAIN) in message


def test_an_image_in_both_sets_of_a_task_is_refused(tmp_path: Path) -> None:
    leaking = task("red", "blue")
    leaking["test"] = [*leaking["test"], leaking["train"][0]]
    path = write(tmp_path, meta_train={"What color is it?": leaking})
    assert "is there twice" in broken(JobError, lambda: read(config(path)))
