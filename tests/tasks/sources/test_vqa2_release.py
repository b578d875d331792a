"""The released Meta-VQA comes out of VQA v2 files exactly: files are made from which the release must follow."""

import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from metavqa_cli.tasks.protocol import Pair
from tests.tasks.sources import vqa
from tests.tasks.sources.vqa import TRAIN, VAL, Record, annotation
from tests.tasks.test_protocol import RELEASE, needs_release, read, unshuffled

pytestmark = needs_release
SEED = 2021
ROOT = Path(__file__).parents[3]
Tasks = dict[str, dict[str, Any]]
Instance = tuple[str, str, str, str]  # image, question, answer, answer type


@pytest.fixture(scope="module")
def released() -> Tasks:
    """All released tasks in the order in which their questions first appear in VQA."""
    tasks = read("meta_train.json") | read("meta_test.json")
    return {question: tasks[question] for question in read("ques_ans_count.json")}


@pytest.fixture(scope="module")
def lists(released: Tasks) -> dict[tuple[str, str], list[str]]:
    """The images of each (question, answer) in the order that the release shuffled."""
    shuffled: dict[tuple[str, str], list[Pair]] = {}
    for question, task in released.items():
        for answer in task["answers"]:
            shuffled[question, answer] = []
        for image, answer in (*task["train"], *task["test"]):
            shuffled[question, answer].append((image, answer))
    return {key: [image for image, _ in unshuffled(pairs, SEED)] for key, pairs in shuffled.items()}


@pytest.fixture(scope="module")
def order(released: Tasks, lists: dict[tuple[str, str], list[str]]) -> dict[str, int]:
    """One order of all images from which every list, and every task's order of answers, follows."""
    before: dict[str, set[str]] = {image: set() for images in lists.values() for image in images}
    for images in lists.values():
        for earlier, later in pairwise(images):
            before[later].add(earlier)
    for question, task in released.items():
        firsts = [lists[question, answer][0] for answer in task["answers"]]
        for earlier, later in pairwise(firsts):
            before[later].add(earlier)
    return {image: place for place, image in enumerate(TopologicalSorter(before).static_order())}


def instances(released: Tasks, lists: dict[tuple[str, str], list[str]], order: dict[str, int]) -> Iterator[Instance]:
    """VQA's instances, image by image, with those that the protocol must leave out among them."""
    of_image: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for (question, answer), images in lists.items():
        for image in images:
            of_image[image].append((question, answer))
    for i, question in enumerate(released):  # a question first appears with an answer that no second image has
        yield f"COCO_{TRAIN}_{900_000_000 + i:012d}", question, "an answer of one image", "other"
        if i % 10 == 0:
            yield f"COCO_{TRAIN}_{910_000_000 + i:012d}", question, "yes", "yes/no"
    for place, image in enumerate(sorted(order, key=order.__getitem__)):
        for question, answer in of_image[image]:
            yield image, question, answer, "number" if answer.isdigit() else "other"
            if place % 50 == 0:
                yield image, question, released[question]["answers"][0], "other"  # asked again: the first counts
        if place % 50 == 1:
            yield image, "Is it red or blue?", ("red", "blue")[place // 50 % 2], "other"
            yield image, "Is it outside?", ("yes", "no")[place // 50 % 2], "yes/no"
        if place % 3000 == 0:
            yield image, "What is hardly ever asked?", "this", "other"
            yield image, "?", "nothing", "other"


def made_files(rows: list[Instance]) -> dict[tuple[str, str], Any]:
    """Question files in the order of ``rows``; annotations in another order."""
    files: dict[tuple[str, str], Any] = {}
    for split in (TRAIN, VAL):
        records: list[tuple[Record, Record]] = []
        for image, question, answer, answer_type in rows:
            if image.split("_")[1] == split:
                number, at = 10**7 * (split == VAL) + len(records), int(image.split("_")[2])
                said = annotation(number, at, answer, answer_type=answer_type)
                records.append((vqa.question(number, at, question), said))
        files |= vqa.documents(split, records)
        random.Random(0).shuffle(files["annotations", split]["annotations"])
    return files


READ = """
import json, sys
from pathlib import Path
from metavqa_cli.schema.config import Dataset
from metavqa_cli.tasks.sources import hyperclip_release, vqa2
folder = Path(sys.argv[1])
material = vqa2.read(Dataset(name="x", source="vqa2", path=sys.argv[1], tasks_only=True))
for part, tasks in zip(("train", "test"), hyperclip_release.to_release(material.tasks)):
    (folder / f"meta_{part}.json").write_text(json.dumps(tasks))
(folder / "more.json").write_text(json.dumps([material.notes, material.annotations]))
"""


@pytest.fixture(scope="module")
def made(
    released: Tasks,
    lists: dict[tuple[str, str], list[str]],
    order: dict[str, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with what was read, in the released form. Read in a process of its own: checking the types of every
    call would take ten times as long as the reading."""
    folder = vqa.write(tmp_path_factory.mktemp("vqa2"), made_files(list(instances(released, lists, order))))
    subprocess.run([sys.executable, "-c", READ, str(folder)], cwd=ROOT, check=True)
    return folder


def test_one_order_of_images_explains_every_list_of_the_release(
    lists: dict[tuple[str, str], list[str]], order: dict[str, int]
) -> None:
    assert len(order) == 64_665
    assert all(images == sorted(images, key=order.__getitem__) for images in lists.values())


@pytest.mark.parametrize("name", ["meta_train.json", "meta_test.json"])
def test_the_released_files_come_out_byte_for_byte(made: Path, name: str) -> None:
    """With them the orders of tasks and of answers, and every support and query list."""
    assert (made / name).read_bytes() == (RELEASE / name).read_bytes()


def test_every_kept_pair_has_its_annotators(made: Path, released: Tasks) -> None:
    notes, annotations = json.loads((made / "more.json").read_text("utf-8"))
    assert notes == ["left out 22 questions without a letter or digit"]
    assert set(annotations) == set(released)
    for question, task in released.items():
        pairs = [*task["train"], *task["test"]]
        assert list(annotations[question]) == [image for image, _ in pairs]
        assert [human for _, human in annotations[question].values()] == [{answer: 1, "so": 1} for _, answer in pairs]
