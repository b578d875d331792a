"""`metavqa dataset show`: tasks as a list, and one task with its answers and images."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from metavqa_cli.cli import console, show
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.taskset import Task, TaskSet, dump_tasks
from tests.cli.pipeline import data
from tests.cli.terminal import Terminal, assert_refused, python
from tests.miniature import WHOLE

HUES = {"red": (250, 10, 10), "blue": (10, 10, 250), "green": (10, 250, 10)}
CAR = Task(
    question="What color is the car?", template="the car is {}", answers=("red", "blue", "green"),
    support=(("00/a", 0), ("00/b", 1), ("00/c", 1)), query=(("00/d", 1), ("00/e", 2)), split="test",
    family="color", novelty="wording",
)  # fmt: skip
BOAT = replace(CAR, question="What color is the boat?", template="the boat is {}", split="train", novelty=None)
CARTS = replace(CAR, question="How many carts are there?", template="there are {} carts", family="count")
TASKS = (CAR, BOAT, CARTS)


@pytest.fixture(autouse=True)
def folder(workspace: Workspace) -> Path:
    """A dataset of three tasks, under the name that is the default."""
    made = workspace.dataset_dir("scenes")
    (made / "images" / "00").mkdir(parents=True)
    for image, label in (*CAR.support, *CAR.query):
        Image.new("RGB", (32, 32), HUES[CAR.answers[label]]).save(made / "images" / f"{image}.png")
    dump_tasks(made / "tasks.jsonl", TaskSet(TASKS))
    (made / "dataset.json").write_text(json.dumps({"schema_version": 1, **WHOLE}))
    return made


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "is_terminal", lambda stream: stream == "stdout")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")


def path_of(folder: Path, image: str) -> str:
    return str(folder / "images" / f"{image}.png")


def test_without_a_question_the_tasks_are_listed(metavqa: Terminal) -> None:
    rows = data(metavqa("dataset", "show", "--json"))
    assert [row["question"] for row in rows] == [task.question for task in TASKS]
    assert rows[0] == {
        "question": CAR.question, "split": "test", "family": "color", "novelty": "wording",
        "answers": "red, blue, green", "support": 3, "query": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--split", "train"], [BOAT]), (["--family", "color"], [CAR, BOAT]), (["--match", "^what.*car"], [CAR]),
        (["--match", "car", "--family", "count"], [CARTS]), (["--limit", "1"], [CAR]), (["--limit", "0"], TASKS),
    ],
)  # fmt: skip
def test_filters_leave_the_tasks_that_fit(metavqa: Terminal, filters: list[str], expected: list[Task]) -> None:
    rows = data(metavqa("dataset", "show", *filters, "--json"))
    assert [row["question"] for row in rows] == [task.question for task in expected]


def test_filters_that_leave_nothing_and_a_bad_pattern_are_refused(metavqa: Terminal) -> None:
    none = metavqa("dataset", "show", "--split", "train", "--match", "cart")
    assert_refused(none, 2, "none of the 3 tasks", "--split 'train' and --match 'cart'")
    assert_refused(metavqa("dataset", "show", "--match", "("), 2, "--match '('", "not a regular expression")
    assert_refused(metavqa("dataset", "show", "--dataset", "none"), 3, "there is no dataset 'none'")


def test_one_task_as_json_has_stable_keys(metavqa: Terminal, folder: Path) -> None:
    one = data(metavqa("dataset", "show", CAR.question, "--json"))
    assert list(one) == ["question", "template", "split", "family", "novelty", "answers", "support", "query"]
    assert one["answers"] == [
        {"answer": "blue", "support": 2, "query": 1, "statement": "the car is blue"},
        {"answer": "red", "support": 1, "query": 0, "statement": "the car is red"},
        {"answer": "green", "support": 0, "query": 1, "statement": "the car is green"},
    ]
    assert one["support"] == [
        [path_of(folder, "00/b"), "blue"], [path_of(folder, "00/c"), "blue"], [path_of(folder, "00/a"), "red"],
    ]  # fmt: skip
    assert one["query"] == [[path_of(folder, "00/d"), "blue"], [path_of(folder, "00/e"), "green"]]
    assert data(metavqa("dataset", "show", CAR.question, "--part", "query", "--json"))["support"] == []


@pytest.mark.parametrize("asked", [CAR.question, "what COLOR  is the car", "the car", "car?"])
def test_a_question_is_found_by_its_words_alone(asked: str) -> None:
    assert show.find(TASKS, asked, "scenes") is CAR


def test_a_part_that_several_tasks_have_is_ambiguous() -> None:
    with pytest.raises(
        UsageError, match=r"2 tasks ask 'what color' or more \('What color is the car\?', 'What color is"
    ):
        show.find(TASKS, "what color", "scenes")


@pytest.mark.parametrize("asked", ["", "?", "ar", "What colour is the car?"])
def test_a_question_that_nobody_asks_is_missing(asked: str) -> None:
    with pytest.raises(MissingError, match=re.escape(f"no task of dataset 'scenes' asks {asked!r}")) as caught:
        show.find(TASKS, asked, "scenes")
    assert ("did you mean 'What color is the car?' or" in str(caught.value)) == (len(asked) > 3)


def test_the_name_of_a_dataset_in_place_of_a_question_is_explained(metavqa: Terminal) -> None:
    done = metavqa("dataset", "show", "scenes")
    assert_refused(done, 3, "no task of dataset 'scenes' asks 'scenes'", "`metavqa dataset show --dataset scenes`")


def test_outside_a_terminal_images_are_paths(metavqa: Terminal, folder: Path) -> None:
    done = metavqa("dataset", "show", "the car")
    assert done.err == "" and "\x1b" not in done.out and "▀" not in done.out
    about, answers, images = done.out.split("\n\n")
    assert about.splitlines()[:2] == ["question\tWhat color is the car?", "template\tthe car is {}"]
    assert answers.splitlines()[:2] == ["answer\tsupport\tquery\tstatement", "blue\t2\t1\tthe car is blue"]
    assert images.splitlines()[1:3] == [
        f"support\tblue\t{path_of(folder, '00/b')}", f"support\tblue\t{path_of(folder, '00/c')}",
    ]  # fmt: skip
    assert len(images.splitlines()) == 6
    assert len(metavqa("dataset", "show", "the car", "--images", "2").out.split("\n\n")[2].splitlines()) == 3
    assert metavqa("dataset", "show", "the car", "--images", "0").out.count("\n\n") == 1


def test_csv_has_a_row_for_each_image(metavqa: Terminal, folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(metavqa("dataset", "show", "the car", "--format", "csv").out)))
    assert len(rows) == 5 and rows[0] == {"set": "support", "answer": "blue", "image": path_of(folder, "00/b")}


@pytest.mark.usefixtures("on_a_terminal")
def test_on_a_terminal_images_are_half_blocks_in_their_colours(metavqa: Terminal) -> None:
    done = metavqa("dataset", "show", "the car", "--images", "3")
    assert done.err == "3 of 5 images; --images 5 shows all\n"
    for hue in HUES.values():
        assert "38;2;{};{};{}".format(*hue) in done.out
    width = (80 + 2) // 3 - 2
    assert done.out.count("▀") == 3 * width * -(-width // 2)
    assert re.findall(r"blue|red|green", done.out.splitlines()[-1]) == ["blue", "red", "green"]


@pytest.mark.usefixtures("on_a_terminal")
def test_ascii_and_no_color_draw_with_letters(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    done = metavqa("--ascii", "dataset", "show", "the car")
    assert done.out.isascii() and "blue" in done.out.splitlines()[-1 - 14]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = metavqa("dataset", "show", "the car")
    assert "▀" not in plain.out and "38;2" not in plain.out


@pytest.mark.usefixtures("on_a_terminal")
def test_a_broken_image_is_an_empty_frame_with_a_warning_and_the_rest_is_shown(metavqa: Terminal, folder: Path) -> None:
    Path(path_of(folder, "00/b")).write_bytes(b"no image")
    done = metavqa("dataset", "show", "the car")
    assert done.code == 0 and done.err.startswith("warning: ") and "b.png is not an image" in done.err
    assert "00/b.png" in done.out and done.out.count("▀") > 4 * 25 * 12


@pytest.mark.usefixtures("on_a_terminal")
def test_an_answer_cannot_steer_the_terminal(metavqa: Terminal, folder: Path) -> None:
    dump_tasks(folder / "tasks.jsonl", TaskSet((replace(CAR, answers=("r\x1b[2J", "b\nlue", "green")),)))
    done = metavqa("dataset", "show", "the car")
    assert "\x1b[2J" not in done.out and "r\\x1b[2J" in done.out and "b\\nlue" in done.out


def test_the_contact_sheet_is_a_png(metavqa: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "sheet.png"
    done = metavqa("dataset", "show", "the car", "--png", str(file), "--json")
    assert done.err == f"5 of 5 images are in {file}\n" and json.loads(done.out)["question"] == CAR.question
    with Image.open(file) as sheet:
        assert sheet.format == "PNG"
        assert {color for _, color in sheet.getcolors(1 << 20) or ()} >= set(HUES.values())
    two = metavqa("dataset", "show", "the car", "--png", str(file), "--images", "2")
    assert two.err == f"2 of 5 images are in {file}\n"


def test_a_sheet_with_a_lost_image_is_written_with_a_warning(metavqa: Terminal, folder: Path, tmp_path: Path) -> None:
    Path(path_of(folder, "00/e")).unlink()
    done = metavqa("dataset", "show", "the car", "--png", str(tmp_path / "sheet.png"))
    assert done.code == 0 and "warning: " in done.err and "e.png cannot be read" in done.err
    assert (tmp_path / "sheet.png").is_file()


def test_what_a_sheet_cannot_be_is_refused(metavqa: Terminal, tmp_path: Path) -> None:
    assert_refused(metavqa("dataset", "show", "the car", "--png", "sheet.pdf"), 2, "'sheet.pdf' should end in .png")
    for option in (["--png", "a.png"], ["--images", "3"], ["--part", "query"]):
        assert_refused(metavqa("dataset", "show", *option), 2, "are about one task; name its question")
    (tmp_path / "file").write_text("")
    done = metavqa("dataset", "show", "the car", "--png", str(tmp_path / "file" / "sheet.png"))
    assert (done.code, done.out) == (1, "") and "cannot write" in done.err


@pytest.mark.usefixtures("on_a_terminal")
def test_a_dataset_of_tasks_only_says_so(metavqa: Terminal, folder: Path) -> None:
    for image in (folder / "images" / "00").iterdir():
        image.unlink()
    (folder / "images" / "00").rmdir()
    (folder / "images").rmdir()
    done = metavqa("dataset", "show", "the car")
    assert done.err == "dataset 'scenes' has tasks only, no images\n" and "00/b" in done.out and "▀" not in done.out
    assert data(metavqa("dataset", "show", "the car", "--json"))["query"] == [[None, "blue"], [None, "green"]]


def test_showing_tasks_imports_no_torch_and_no_pillow(workspace: Workspace, tmp_path: Path) -> None:
    code = (
        "import sys; from metavqa_cli.cli.app import run; code = run(sys.argv[1:]); "
        "print(code, {'torch', 'numpy', 'PIL', 'scipy', 'open_clip'} & {*sys.modules}, file=sys.stderr)"
    )
    for command in (["show"], ["show", "the car"], ["verify"]):
        done = python("-c", code, "-w", str(workspace.root), "dataset", *command, cwd=tmp_path)
        assert done.err.splitlines()[-1] == ("1 set()" if command == ["verify"] else "0 set()")
