"""`metavqa ask`: a question, images, ranked answers."""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from metavqa_cli.store import removal, runs
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, furnished, photos
from tests.cli.terminal import ROOT, Terminal

QUESTION = "What color is the car?"
ANSWERS = ["--answers", "red,blue,green"]
KEYS = {
    "question", "template", "gamma", "seed", "sampler", "runs", "answers", "milliseconds", "warnings", "nearest",
    "images",
}  # fmt: skip
IMAGE_KEYS = {"image", "answer", "probability", "ranked", "clip_answer", "clip"}


@pytest.fixture(autouse=True)
def full(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return furnished(workspace, monkeypatch)


def test_json_is_one_record_with_stable_keys(metavqa: Terminal) -> None:
    made = data(metavqa("ask", QUESTION, *photos(3), *ANSWERS, "--json"))
    assert made.keys() == KEYS
    assert [image["image"] for image in made["images"]] == photos(3)
    for image in made["images"]:
        assert image.keys() == IMAGE_KEYS
        assert image["answer"] == image["ranked"][0]["answer"]
        assert sum(answer["probability"] for answer in image["ranked"]) == pytest.approx(1, abs=1e-4)
    assert made["milliseconds"].keys() == {"encode", "generate", "judge"}
    assert made["runs"]["ldm"] == miniature.run("ldm", "task").id
    assert len(made["nearest"]) == 3


def test_a_person_sees_a_row_for_each_image_and_what_led_to_it(metavqa: Terminal) -> None:
    done = metavqa("ask", QUESTION, *photos(2), *ANSWERS, "--gamma", "1.5")
    assert done.code == 0
    head, *rows = [line.split("\t") for line in done.out.splitlines()]
    assert head == ["image", "answer", "probability", "ranked", "zero-shot CLIP"]
    assert [row[0] for row in rows] == photos(2)
    assert "What color is the car?  [the car is {}]  gamma 1.5; ddim, 4 steps, samples 1; encode" in done.err
    assert "nearest training questions: " in done.err
    assert "warning: the built-in encoder knows only the Scenes world" in done.err


def test_the_same_command_gives_the_same_answer(metavqa: Terminal) -> None:
    one, two = (data(metavqa("ask", QUESTION, *photos(2), *ANSWERS, "--json", "--seed", "5")) for _ in range(2))
    assert one["images"] == two["images"]
    other = data(metavqa("ask", QUESTION, *photos(2), *ANSWERS, "--json", "--seed", "6"))
    assert one["images"] != other["images"]


def test_without_answers_similar_questions_propose_some(metavqa: Terminal) -> None:
    made = data(metavqa("ask", QUESTION, *photos(1), "--json"))
    tasks = {task.question: task for task in miniature.dataset().tasks.of("train")}
    first, *others = [tasks[near["question"]].answers for near in made["nearest"]]
    alike = [answers for answers in others if set(answers) & set(first)]
    assert made["answers"] == list(dict.fromkeys(answer for answers in (first, *alike) for answer in answers))


def test_the_template_can_be_chosen(metavqa: Terminal) -> None:
    made = data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--template", "paint it {}", "--json"))
    assert made["template"] == "paint it {}"
    done = metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--template", "paint it")
    assert done.code == 2 and "'paint it' has 0 places for the answer, expected exactly one {}" in done.err


def test_a_folder_and_a_limit(metavqa: Terminal) -> None:
    folder = Path(photos(1)[0]).parent
    made = data(metavqa("ask", QUESTION, str(folder), "--limit", "4", *ANSWERS, "--json"))
    assert [image["image"] for image in made["images"]] == [str(path) for path in sorted(folder.glob("*.png"))[:4]]
    pattern = data(metavqa("ask", QUESTION, str(folder / "*.png"), "--limit", "4", *ANSWERS, "--json"))
    assert pattern["images"] == made["images"]


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))


def test_questions_from_stdin_are_answered_with_one_loading(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from metavqa_cli.engine.ask import Asker

    loaded = []
    real = Asker.__init__
    monkeypatch.setattr(Asker, "__init__", lambda self, *args: (loaded.append(1), real(self, *args))[1])
    typed(monkeypatch, QUESTION, "", "How many boats are there?  ")
    many = data(metavqa("ask", "-", *photos(2), *ANSWERS, "--json"))
    assert [made["question"] for made in many] == [QUESTION, "How many boats are there?"]
    assert loaded == [1]
    alone = data(metavqa("ask", QUESTION, *photos(2), *ANSWERS, "--json"))
    assert many[0]["images"] == alone["images"]


def test_stdin_as_json_lines_and_as_csv(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [QUESTION, "Where is the boat?"]
    typed(monkeypatch, *questions)
    lines = metavqa("ask", "-", *photos(2), *ANSWERS, "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["question"] for line in lines] == questions
    typed(monkeypatch, *questions)
    rows = list(csv.DictReader(io.StringIO(metavqa("ask", "-", *photos(2), *ANSWERS, "--format", "csv").out)))
    assert [(row["question"], row["image"]) for row in rows] == [(q, image) for q in questions for image in photos(2)]


class Asking(io.StringIO):
    """A stdin whose next question is typed when ``told`` has everything about the one before, and not earlier."""

    def __init__(self, questions: list[str], told: "Told") -> None:
        super().__init__()
        self.questions, self.told, self.seen = questions, told, [""]

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        for question in self.questions:
            yield question + "\n"
            self.seen.append(self.told.flushed)


class Told(io.StringIO):
    """A stdout that is read at the other end; ``flushed`` is what has arrived there."""

    encoding = "utf-8"  # type: ignore[assignment]
    flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


@pytest.mark.parametrize("format", ["auto", "human", "json", "jsonl", "csv", "markdown"])
def test_each_question_is_answered_before_the_next_is_read(
    metavqa: Terminal, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    told = Told()
    asking = Asking([QUESTION, "How many boats are there?", "Where is the boat?"], told)
    monkeypatch.setattr("sys.stdin", asking)
    monkeypatch.setattr("sys.stdout", told)
    photo, other = photos(2)
    assert metavqa("ask", "-", photo, other, *ANSWERS, "--format", format).code == 0
    for before, after in pairwise(asking.seen):
        new = after.removeprefix(before)
        assert after.startswith(before) and photo in new and other in new
    whole = told.getvalue()
    if format == "json":
        assert [made["question"] for made in json.loads(whole)] == asking.questions
        assert whole == json.dumps(json.loads(whole), indent=2) + "\n"
    elif format in ("auto", "csv", "markdown"):
        assert whole.count("probability") == 1  # the head
        assert whole.count("\n") == 1 + (format == "markdown") + 6


def test_a_stream_that_is_broken_off_is_still_one_document(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[str]:
        yield QUESTION
        raise KeyboardInterrupt

    monkeypatch.setattr("metavqa_cli.cli.ask._lines", broken)
    done = metavqa("ask", "-", *photos(1), *ANSWERS, "--json")
    assert done.code == 130
    assert [made["question"] for made in json.loads(done.out)] == [QUESTION]


def test_a_stream_without_an_answer_is_an_empty_document(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for format, expected in (("json", "[]\n"), ("csv", "question,image,answer,probability,ranked,zero-shot CLIP\n")):
        typed(monkeypatch, "word " * 2000)
        done = metavqa("ask", "-", *photos(1), *ANSWERS, "--format", format)
        assert (done.code, done.out) == (2, expected)


def test_a_person_at_a_pipe_is_answered_at_once_from_what_was_loaded_once(tmp_path: Path, full: Workspace) -> None:
    """The second question is asked after the first was answered, and after workspace and images are gone."""
    photo = shutil.copy(photos(1)[0], tmp_path / "photo.png")
    command = [sys.executable, "-m", "metavqa_cli", "-q", "-w", str(full.root), "ask", "-", photo, "--format", "jsonl"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, bufsize=1, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(f"{QUESTION}\n")
        assert json.loads(process.stdout.readline())["question"] == QUESTION
        shutil.rmtree(full.root)
        photo.unlink()
        process.stdin.write("word " * 2000 + "\n")
        said = "error: question 2: the question has 9,999 characters"
        assert any(said in line for line in process.stderr)
        process.stdin.write("How many cars are there?\n")
        again = json.loads(process.stdout.readline())
        assert (again["question"], again["images"][0]["image"]) == ("How many cars are there?", str(photo))
        process.stdin.close()
        assert process.wait(60) == 1
        assert "question 2" not in process.stderr.read()  # said once


def test_a_bad_question_on_stdin_does_not_stop_the_others(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "word " * 2000, QUESTION)
    done = metavqa("ask", "-", *photos(1), *ANSWERS, "--format", "jsonl")
    assert done.code == 1
    assert [json.loads(line)["question"] for line in done.out.splitlines()] == [QUESTION]
    assert "error: question 1: the question has 9,999 characters" in done.err


def test_no_question_on_stdin_is_said(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "", " ")
    done = metavqa("ask", "-", *photos(1), *ANSWERS)
    assert done.code == 2 and "there is no question on stdin" in done.err


def test_a_run_is_used_in_its_own_configuration(metavqa: Terminal, full: Workspace) -> None:
    """The preset's sampler would be another; the miniature's is DDIM with 4 steps."""
    weights = miniature.run("ldm", "weights").id
    made = data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--model", weights, "--json"))
    assert made["runs"]["ldm"] == weights
    assert made["sampler"] == {"sampler": "ddim", "steps": 4, "samples": 1}
    told = data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--set", "sampling.steps=2", "--json"))
    assert told["sampler"]["steps"] == 2


def test_the_sampler_is_chosen_with_the_question(metavqa: Terminal, full: Workspace) -> None:
    usual = data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--json"))
    steps = data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--sampler", "ddim", "--steps", "7", "--json"))
    assert steps["sampler"] == {**usual["sampler"], "sampler": "ddim", "steps": 7}
    same = data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--set", "sampling.steps=7", "--json"))
    assert steps["images"] == same["images"] != usual["images"]
    other = data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--sampler", "dpmpp_2m", "--steps", "7", "--json"))
    assert other["sampler"] == {**usual["sampler"], "sampler": "dpmpp_2m", "steps": 7}
    assert other["images"] != same["images"]
    ddpm = data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--sampler", "ddpm", "--samples", "2", "--json"))
    assert ddpm["sampler"] == {"sampler": "ddpm", "steps": 50, "samples": 2}


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [(["--model", "baseline"], 2, "is of kind baseline, not ldm"),
     (["--model", "ldm-0000"], 3, "there is no run 'ldm-0000'"),
     (["--dataset", "none"], 3, "there is no finished HyperLDM for the dataset 'none'"),
     (["--set", "sampling.steps=51"], 2, "sampling.steps is 51, but the diffusion has only 50 steps (ldm.T); lower it"),
     (["--steps", "51"], 2, "sampling.steps is 51, but the diffusion has only 50 steps (ldm.T); lower it"),
     (["--sampler", "dpmpp_2m", "--steps", "51"], 2, "the diffusion has only 50 steps"),
     (["--sampler", "ddpm", "--steps", "5"], 2, "ddpm takes all 50 steps of the diffusion, not 5; leave --steps out"),
     (["--device", "toaster"], 4, "the device 'toaster' cannot be used"),
     (["--sheet", "out.jpg"], 2, "--sheet writes a PNG file, not 'out.jpg'")],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence(args: list[str], code: int, sentence: str, metavqa: Terminal) -> None:
    done = metavqa("ask", QUESTION, *photos(1), *ANSWERS, *args)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err and len(done.err.splitlines()) == 1


def test_a_model_and_a_dataset_that_do_not_belong_together(metavqa: Terminal) -> None:
    model = miniature.run("ldm", "task").id
    done = metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--model", model, "--dataset", "other")
    assert done.code == 2 and f"run {model} was made from the dataset 'mini', not 'other'" in done.err


def test_without_any_model_the_commands_that_make_one_are_named(metavqa: Terminal, full: Workspace) -> None:
    for run in reversed(runs.list_runs(full)):
        removal.remove(run)
    done = metavqa("ask", QUESTION, *photos(1))
    assert (done.code, done.out) == (3, "")
    assert (
        f"there is no finished HyperLDM in {full.root}; train one with `metavqa train ldm --with-parents`" in done.err
    )


def test_the_sheet_shows_every_image(metavqa: Terminal, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = metavqa("ask", QUESTION, *photos(5), *ANSWERS, "--sheet", str(sheet))
    assert done.code == 0 and f"drawn to {sheet}" in done.err
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG" and drawn.width > 4 * 100 and drawn.height > 2 * 100


def test_quiet_leaves_the_data_alone(metavqa: Terminal) -> None:
    loud, quiet = (metavqa("ask", QUESTION, *photos(1), *ANSWERS, *more) for more in ([], ["-q"]))
    assert loud.out == quiet.out
    assert all(line.startswith("warning: ") for line in quiet.err.splitlines())
