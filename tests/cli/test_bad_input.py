"""Every bad input: one clear sentence that names the thing and the way out, its exit code, and nothing is lost."""

import errno
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metavqa_cli.engine.request import MAX_QUESTION
from metavqa_cli.store import atomic, runs
from metavqa_cli.store.tensors import load_tensors, save_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, furnished, generated, photos
from tests.cli.terminal import Terminal, assert_refused, python
from tests.miniature import OPTIONS

QUESTION = "What color is the car?"
ANSWERS = ["--answers", "red,blue,green"]


@pytest.fixture(autouse=True)
def full(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return furnished(workspace, monkeypatch)


def contents(root: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and "images" not in path.parts
    }


# Images that cannot be judged


def zero_bytes(path: Path) -> None:
    path.touch()


def cut_off(path: Path) -> None:
    whole = Path(photos(1)[0]).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def scrambled(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4000))


def text(path: Path) -> None:
    path.write_text("this is not a picture\n" * 40)


def enormous(path: Path) -> None:
    """A PNG whose header promises 40,000 × 40,000 pixels, in a hundred bytes."""
    Image.new("L", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 40_000, 40_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


BAD: list[tuple[str, Callable[[Path], None], str]] = [
    ("zero.png", zero_bytes, "is empty (0 bytes); copy it again"),
    ("half.png", cut_off, "is damaged"),
    (
        "noise.png",
        scrambled,
        "is not an image that can be read (PNG, JPEG, GIF, WebP, BMP, TIFF or PPM); convert it to PNG or JPEG",
    ),
    (
        "text.jpg",
        text,
        "is not an image that can be read (PNG, JPEG, GIF, WebP, BMP, TIFF or PPM); convert it to PNG or JPEG",
    ),
    ("enormous.png", enormous, "has too many pixels (more than 100,000,000); make it smaller"),
]


@pytest.mark.parametrize(("name", "make", "words"), BAD, ids=[case[0] for case in BAD])
def test_an_image_that_cannot_be_judged_does_not_stop_the_others(
    name: str, make: Callable[[Path], None], words: str, metavqa: Terminal, tmp_path: Path
) -> None:
    bad = tmp_path / name
    make(bad)
    assert_refused(metavqa("ask", QUESTION, str(bad), *ANSWERS), 1, str(bad), words)
    good = photos(2)
    done = metavqa("ask", QUESTION, good[0], str(bad), good[1], *ANSWERS, "--json")
    assert done.code == 1
    assert [image["image"] for image in json.loads(done.out)["images"]] == good
    assert done.err.endswith("\n") and f"error: {bad} {words}" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("command", ["ask", "predict"])
def test_a_missing_file_among_good_ones(command: str, metavqa: Terminal, tmp_path: Path) -> None:
    """The others are judged; at the end each missing one has its sentence, and the exit code is 1."""
    good, missing = photos(2), [str(tmp_path / "none.png"), str(tmp_path / "no*.png"), str(tmp_path / "empty")]
    Path(missing[2]).mkdir()
    first = [QUESTION] if command == "ask" else [str(generated(metavqa, tmp_path / "car.safetensors"))]
    answers = ANSWERS if command == "ask" else []
    done = metavqa(command, *first, missing[0], good[0], missing[1], good[1], missing[2], *answers, "--json")
    assert done.code == 1
    printed = json.loads(done.out)
    images = printed["images"] if command == "ask" else printed
    assert [image["image"] for image in images] == good
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3 and all(any(name in error for error in errors) for name in missing)


def test_nothing_but_missing_files_is_exit_code_3(metavqa: Terminal, tmp_path: Path) -> None:
    missing = tmp_path / "none.png"
    assert_refused(metavqa("ask", QUESTION, str(missing), *ANSWERS), 3, str(missing), "check the path")


# Images that look odd and can be judged


def animated(path: Path) -> None:
    """Its first frame is red."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, loop=0)


def cmyk(path: Path) -> None:
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(path)


def sixteen_bit(path: Path) -> None:
    Image.fromarray(np.full((20, 20), 65535, np.uint16)).save(path)


def palette_with_alpha(path: Path) -> None:
    """Red where it is opaque; a transparent part, which is white to the encoder."""
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (0, 0, 20, 10))
    image.save(path, transparency=0)


ODD: list[tuple[str, Callable[[Path], None], list[tuple[int, int, int]]]] = [
    ("moving.gif", animated, [(255, 0, 0)]),
    ("print.jpg", cmyk, [(254, 0, 0)]),
    ("deep.png", sixteen_bit, [(255, 255, 255)]),
    ("palette.png", palette_with_alpha, [(255, 255, 255), (255, 0, 0)]),
]


@pytest.mark.parametrize(("name", "make", "colours"), ODD, ids=[case[0] for case in ODD])
def test_an_unusual_image_is_judged_as_what_it_shows(
    name: str, make: Callable[[Path], None], colours: list[tuple[int, int, int]], metavqa: Terminal, tmp_path: Path
) -> None:
    odd, plain = tmp_path / name, tmp_path / "plain.png"
    make(odd)
    same = Image.new("RGB", (20, 20), colours[-1])
    same.paste(colours[0], (0, 0, 20, 10))
    same.save(plain)
    one, two = (data(metavqa("ask", QUESTION, str(path), *ANSWERS, "--json"))["images"][0] for path in (odd, plain))
    assert one["answer"] == two["answer"]
    for ours, theirs in zip(one["ranked"], two["ranked"], strict=True):
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=0.02)


# Questions, answers, gamma


@pytest.mark.parametrize("question", ["", "   ", "\n"])
@pytest.mark.parametrize("command", ["ask", "generate"])
def test_an_empty_question(command: str, question: str, metavqa: Terminal, tmp_path: Path) -> None:
    rest = photos(1) if command == "ask" else ["-o", str(tmp_path / "out.safetensors")]
    assert_refused(metavqa(command, question, *rest), 2, "the question is empty; type one, for example")


def test_a_question_of_2000_words(metavqa: Terminal) -> None:
    done = metavqa("ask", "word " * 2000, *photos(1), *ANSWERS)
    assert_refused(done, 2, "the question has 9,999 characters", f"more than {MAX_QUESTION:,}; ask one short question")


@pytest.mark.parametrize(
    "question", ["Welche Farbe hat das Auto?", "какого цвета машина?", "車は何色ですか", "🚗❓", "ما لون السيارة؟"]
)
def test_a_question_in_another_language_or_script(question: str, metavqa: Terminal) -> None:
    """It is answered, with the warning that its words mean nothing to the built-in encoder."""
    done = metavqa("ask", question, *photos(1), *ANSWERS, "--json")
    assert data(done)["question"] == question
    assert any("the built-in encoder does not know" in warning for warning in data(done)["warnings"])


@pytest.mark.parametrize("answers", ["red", "red,red, red", ",,", ""])
def test_fewer_than_two_different_answers(answers: str, metavqa: Terminal) -> None:
    done = metavqa("ask", QUESTION, *photos(1), "--answers", answers)
    found = "'red'" if "red" in answers else "none"
    assert_refused(done, 2, "at least two different answers", f"found {found}", "--answers red,blue")


def test_answers_that_are_given_twice_count_once(metavqa: Terminal) -> None:
    twice, once = (data(metavqa("ask", QUESTION, *photos(1), "--answers", answers, "--json")) for answers in
                   ("red,blue, red ,blue", "red,blue"))  # fmt: skip
    assert twice["answers"] == once["answers"] == ["red", "blue"]
    assert twice["images"] == once["images"]


def test_answers_with_quotes_and_braces(metavqa: Terminal, tmp_path: Path) -> None:
    answers = ['the "big" one', "it's {}", "{0} {name}", "100%"]
    made = data(metavqa("ask", QUESTION, *photos(1), "--answers", ",".join(answers), "--json"))
    assert made["answers"] == answers
    assert {ranked["answer"] for ranked in made["images"][0]["ranked"]} == set(answers)
    file = tmp_path / "odd.safetensors"
    assert metavqa("generate", QUESTION, "--answers", ",".join(answers), "-o", str(file)).code == 0
    (judged,) = data(metavqa("predict", str(file), *photos(1), "--json"))
    assert judged == made["images"][0]


@pytest.mark.parametrize("gamma", ["-1", "nan", "inf", "-inf"])
@pytest.mark.parametrize("command", ["ask", "generate", "eval", "train ldm"])
def test_a_gamma_that_is_no_guidance_scale(command: str, gamma: str, metavqa: Terminal, tmp_path: Path) -> None:
    rest = {"ask": [QUESTION, *photos(1)], "generate": [QUESTION, "-o", str(tmp_path / "out")], "eval": [],
            "train ldm": ["--dataset", "mini"]}[command]  # fmt: skip
    done = metavqa(*command.split(), *rest, "--gamma", gamma)
    assert_refused(done, 2, "gamma", gamma)
    assert not (tmp_path / "out").exists()


# Runs, datasets, files


@pytest.mark.parametrize(
    "command",
    [["ask", QUESTION, "image.png", "--model"], ["eval"], ["train", "ldm", "--dataset", "mini", "--generator"],
     ["train", "hvae", "--dataset", "mini", "--init"], ["train", "ldm", "--resume"], ["runs", "show"], ["runs", "rm"]],
)  # fmt: skip
def test_an_unknown_run(command: list[str], metavqa: Terminal) -> None:
    known = miniature.run("ldm", "task").id
    near = known[:-1] + "z"
    done = metavqa(*command, near)
    assert_refused(done, 3, f"there is no run {near!r}", "did you mean", known, "`metavqa runs ls`")


def test_a_run_whose_dataset_is_gone(metavqa: Terminal, full: Workspace) -> None:
    model = miniature.run("ldm", "task").id
    (full.dataset_dir("mini") / "dataset.json").unlink()
    ask = ["ask", QUESTION, *photos(1), "--model", model]
    assert_refused(metavqa(*ask), 3, "the dataset 'mini'", "is gone", "name them: --answers red,blue")
    assert data(metavqa(*ask, *ANSWERS, "--json"))["runs"]["ldm"] == model
    for command in (["eval", model], ["train", "ldm", "--dataset", "mini"], ["dataset", "info", "mini"]):
        assert_refused(metavqa(*command), 3, "there is no dataset 'mini'", "`metavqa dataset build`")


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_checkpoint(keep: int, metavqa: Terminal, full: Workspace) -> None:
    run = miniature.run("ldm", "task", full)
    whole = run.model_path.read_bytes()
    run.model_path.write_bytes(whole[:keep])
    for command in (["ask", QUESTION, *photos(1), *ANSWERS], ["eval", run.id, "--gamma", "0.75"]):
        done = metavqa(*command)
        assert_refused(done, 1, str(run.model_path), f"`metavqa runs rm {run.id} --force`")
        assert re.search(r"is truncated: expected (at least )?\d+ bytes, found \d+|is not a safetensors file", done.err)


def test_a_classifier_file_is_never_overwritten_by_a_failure(metavqa: Terminal, tmp_path: Path) -> None:
    file = generated(metavqa, tmp_path / "car.safetensors")
    before = file.read_bytes()
    with no_space(["car.safetensors"]):
        done = metavqa("generate", QUESTION, *ANSWERS, "-o", str(file), "--force")
    assert_refused(done, 1, f"cannot write {file}: the disk is full; free some space")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.glob(".tmp-*")] == []


# Disks


@contextmanager
def no_space(names: list[str], number: int = errno.ENOSPC) -> Iterator[None]:
    """A disk on which files whose name ends in one of ``names`` can be begun but not finished."""
    real = atomic.sync_file

    def sync(path: Path) -> None:
        if path.name.endswith(tuple(names)):
            raise OSError(number, os.strerror(number), str(path))
        real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "sync_file", sync)
        yield


JOBS: list[tuple[str, list[str], str, str]] = [
    ("result", ["train", "ldm", "--seed", "4", *OPTIONS], "result.json", "ldm"),
    ("model", ["train", "baseline", "--seed", "4", *OPTIONS], "model.safetensors", "baseline"),
    ("checkpoint", ["train", "ldm", "--seed", "4", *OPTIONS, "--set", "runtime.checkpoint_seconds=1e-9"],
     "state.safetensors", "ldm"),
    ("zoo", ["train", "zoo", *OPTIONS, "--set", "zoo.steps=2"], "model.safetensors", "zoo"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "command", "name", "kind"), JOBS, ids=[case[0] for case in JOBS])
def test_a_full_disk_costs_nothing_but_the_time(
    what: str, command: list[str], name: str, kind: str, metavqa: Terminal, full: Workspace
) -> None:
    before = contents(full.root)
    with no_space([name]):
        done = metavqa(*command)
    assert_refused(done, 1, name, "the disk is full; free some space, or choose another disk (--workspace, or the")
    after = contents(full.root)
    assert {path: after[path] for path in before} == before
    assert not any(path.name.startswith(".tmp-") for path in after)
    run = runs.newest(full, kind, finished=False)
    assert run is not None and run.state() == "failed"
    assert data(metavqa(*command, "--json"))["run"] == run.id


def test_a_full_disk_while_a_dataset_is_built(metavqa: Terminal, full: Workspace) -> None:
    command = ["dataset", "build", "--name", "small", "--images", "240", "--set", "dataset.questions=150",
               "--set", "dataset.pairs_per_task=20", "--set", "dataset.min_pairs=5"]  # fmt: skip
    for name in ("tasks.jsonl", "images-00001-of-00001.safetensors", "dataset.json"):
        with no_space([name]):
            assert_refused(metavqa(*command), 1, name, "the disk is full")
        assert full.datasets() == ["mini"]
    assert data(metavqa(*command, "--json"))["dataset"] == "small"


@pytest.fixture
def read_only(full: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace in which nothing can be written, whoever tries (permissions do not stop an administrator)."""
    real_open, real_mkdir = os.open, os.mkdir

    def inside(path: object) -> bool:
        return isinstance(path, (str, os.PathLike)) and Path(path).absolute().is_relative_to(full.root)

    def refuse(path: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open_file(path: object, flags: int, *args: object, **options: object) -> int:
        if inside(path) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse(path)
        return real_open(path, flags, *args, **options)  # type: ignore[arg-type]

    def make_folder(path: object, *args: object, **options: object) -> None:
        refuse(path) if inside(path) else real_mkdir(path, *args, **options)  # type: ignore[arg-type]

    real_builtin = open

    def open_text(path: object, mode: str = "r", *args: object, **options: object) -> object:
        if inside(path) and set(mode) & set("wax+"):
            refuse(path)
        return real_builtin(path, mode, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "mkdir", make_folder)
    monkeypatch.setattr("io.open", open_text)
    monkeypatch.setattr("builtins.open", open_text)
    return full


def test_a_read_only_workspace_can_be_used_but_not_changed(metavqa: Terminal, read_only: Workspace) -> None:
    before = contents(read_only.root)
    assert data(metavqa("ask", QUESTION, *photos(1), *ANSWERS, "--json"))["question"] == QUESTION
    assert data(metavqa("runs", "ls", "--json"))
    assert data(metavqa("dataset", "info", "mini", "--json"))["dataset"] == "mini"
    for command in (
        ["train", "ldm", "--seed", "4", *OPTIONS], ["train", "baseline", "--seed", "4", *OPTIONS],
        ["dataset", "build", "--name", "new", "--images", "80"], ["eval", "--dataset", "mini", "--seed", "4"],
    ):  # fmt: skip
        done = metavqa(*command)
        assert_refused(
            done, 1, str(read_only.root), "the file system is read-only; choose a writable folder (--workspace"
        )
    assert contents(read_only.root) == before


# The same through real processes


def test_bad_input_in_a_real_process(metavqa: Terminal, tmp_path: Path) -> None:
    """Nothing but the sentences reaches the terminal: no traceback, and no warning of a library."""
    file, bad = generated(metavqa, tmp_path / "car.safetensors"), tmp_path / "text.jpg"
    text(bad)
    here = ["-m", "metavqa_cli", "-w", str(tmp_path / "no workspace"), "-q"]
    home = {"HOME": str(tmp_path)}
    done = python(*here, "predict", str(file), str(bad), *photos(1), "--json", cwd=tmp_path, **home)
    assert done.code == 1
    assert [image["image"] for image in json.loads(done.out)] == photos(1)
    known = "PNG, JPEG, GIF, WebP, BMP, TIFF or PPM"
    assert done.err == f"error: {bad} is not an image that can be read ({known}); convert it to PNG or JPEG\n"
    assert_refused(python(*here, "ask", "", *photos(1), cwd=tmp_path, **home), 2, "the question is empty")


# What reviewers found


def test_a_sheet_never_replaces_a_file_unasked(metavqa: Terminal, tmp_path: Path) -> None:
    precious = tmp_path / "holiday.png"
    precious.write_bytes(Path(photos(1)[0]).read_bytes())
    before = precious.read_bytes()
    sheet = ["ask", QUESTION, photos(1)[0], *ANSWERS, "--sheet", str(precious)]
    assert_refused(metavqa(*sheet), 5, str(precious), "exists", "--force")
    assert precious.read_bytes() == before
    assert metavqa(*sheet, "--force").code == 0 and precious.read_bytes() != before


def test_a_gamma_too_large_for_finite_weights(metavqa: Terminal, tmp_path: Path) -> None:
    options = [*ANSWERS, "--gamma", "1e30"]
    assert_refused(metavqa("ask", QUESTION, photos(1)[0], *options), 1, "gamma 1e+30", "not finite", "lower it")
    output = tmp_path / "car.safetensors"
    assert_refused(metavqa("generate", QUESTION, *options, "-o", str(output)), 1, "not finite")
    assert not output.exists()


def test_a_classifier_that_is_a_pipe_is_not_waited_for(metavqa: Terminal, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_refused(metavqa("predict", str(tmp_path / "pipe"), photos(1)[0]), 1, "pipe", "not a regular file")


def test_a_loop_of_links_as_output(metavqa: Terminal, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").symlink_to("b.safetensors")
    (tmp_path / "b.safetensors").symlink_to("a.safetensors")
    done = metavqa("generate", QUESTION, *ANSWERS, "-o", str(tmp_path / "a.safetensors"), "--force")
    assert "bug" not in done.err and "Traceback" not in done.err


def test_a_link_as_output_is_followed(metavqa: Terminal, tmp_path: Path) -> None:
    (tmp_path / "real.safetensors").write_bytes(b"old")
    (tmp_path / "link.safetensors").symlink_to("real.safetensors")
    assert metavqa("generate", QUESTION, *ANSWERS, "-o", str(tmp_path / "link.safetensors"), "--force").code == 0
    assert (tmp_path / "link.safetensors").is_symlink()
    assert (tmp_path / "real.safetensors").stat().st_size > 1000


def test_generated_files_can_be_read_by_whom_the_umask_allows(metavqa: Terminal, tmp_path: Path) -> None:
    file = generated(metavqa, tmp_path / "car.safetensors")
    assert file.stat().st_mode & 0o777 == 0o666 & ~atomic.UMASK
    file.chmod(0o640)
    assert metavqa("generate", QUESTION, *ANSWERS, "-o", str(file), "--force").code == 0
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("args", [["-w", ""], ["--workspace="], ["--workspace", ""]])
def test_an_empty_workspace_is_not_this_folder(metavqa: Terminal, args: list[str]) -> None:
    assert_refused(metavqa("locate", *args), 2, "is empty")


def test_two_formats_at_once(metavqa: Terminal) -> None:
    assert_refused(metavqa("runs", "ls", "--json", "--format", "csv"), 2, "--format csv", "contradict")


def test_when_no_question_of_many_can_be_answered_the_code_is_theirs(
    metavqa: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a " * MAX_QUESTION + "\n"))
    assert metavqa("ask", "-", photos(1)[0], *ANSWERS).code == 2
    monkeypatch.setattr("sys.stdin", None)  # closed by the shell
    assert_refused(metavqa("ask", "-", photos(1)[0], *ANSWERS), 2, "no question on stdin")


def test_answers_that_the_encoder_cannot_read_are_named(metavqa: Terminal) -> None:
    done = metavqa("ask", QUESTION, photos(1)[0], "--answers", "azure,turquoise")
    assert done.code == 0 and "does not know 'azure', 'turquoise'" in done.err
    done = metavqa("ask", QUESTION, photos(1)[0], *ANSWERS, "--template", "red " * 100 + "{}")
    assert "a statement is longer than" in done.err


def test_a_run_of_another_version_says_so(metavqa: Terminal, workspace: Workspace) -> None:
    run = miniature.run("ldm", "task", workspace)
    tensors, header = load_tensors(run.model_path)
    changed = {**header["config"], "ldm": {**header["config"]["ldm"], "of_tomorrow": 1}}
    save_tensors(run.model_path, tensors, {**header, "config": changed})
    done = metavqa("ask", QUESTION, photos(1)[0], *ANSWERS, "--model", run.id)
    assert_refused(done, 1, "another version of metavqa", "train it again")


def test_a_failed_run_shows_why(metavqa: Terminal, workspace: Workspace) -> None:
    failed = metavqa("train", "baseline", *OPTIONS, "--set", "baseline.lr=1e300", "--force")
    assert failed.code == 1
    run = runs.newest(workspace, "baseline", finished=False)
    assert run is not None and run.state() == "failed"
    assert data(metavqa("runs", "show", run.id, "--json"))["error"] in failed.err


def test_json_is_json_on_any_stdout(tmp_path: Path) -> None:
    folder = str(tmp_path / "où🚗")
    for encoding in ("cp1252", "ascii", "utf-8"):
        command = ["-m", "metavqa_cli", "locate", "--json", "-w", folder]
        done = python(*command, cwd=tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        assert json.loads(done.out)[0]["path"] == folder, encoding


def test_closed_streams_are_no_bug(tmp_path: Path) -> None:
    for redirection, code in ((">&-", 0), ("2>&-", 0), ("<&-", 0)):
        shell = f'exec "{sys.executable}" -m metavqa_cli locate -w "{tmp_path}" {redirection}'
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code and "Traceback" not in done.stderr, redirection
