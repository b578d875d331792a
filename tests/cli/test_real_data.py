"""`metavqa dataset build` on real data, through the command line: VQA v2 as shipped, the release's form, own tables."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.taskset import load_tasks
from tests import miniature
from tests.cli.pipeline import data
from tests.cli.terminal import ROOT, Terminal, assert_refused, python
from tests.engine.test_build import contents
from tests.made_vqa import make_vqa

SMALL = ["--set", "base_network.hidden=8", "--set", "baseline.epochs=2", "--set", "runtime.workers=1"]


@pytest.fixture(autouse=True)
def one_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)


@pytest.fixture(scope="module")
def vqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vqa(tmp_path_factory.mktemp("vqa"))


def build(metavqa: Terminal, vqa: Path, *args: str) -> dict[str, object]:
    return dict(data(metavqa("dataset", "build", "--source", "vqa2", "--path", str(vqa), *args, "--json")))


def test_from_the_shipped_zips_to_a_measured_classifier(
    metavqa: Terminal, vqa: Path, workspace: Workspace, tmp_path: Path
) -> None:
    built = build(metavqa, vqa, "--validation", "0.3")
    assert (built["dataset"], built["source"], built["encoder"]) == ("vqa2", "vqa2", "tiny")
    assert (built["tasks"], built["meta_train"], built["meta_test"], built["images"]) == (20, 14, 6, 80)
    assert data(metavqa("dataset", "info", "vqa2", "--json")) == built
    assert data(metavqa("dataset", "verify", "vqa2", "--images", "--json"))["ok"] is True
    shown = data(metavqa("dataset", "show", "what color is the car", "--dataset", "vqa2", "--json"))
    assert shown["template"] == "the car is {}" and shown["family"] == "what color is the"
    trained = metavqa("train", "baseline", "--method", "multitask", "--dataset", "vqa2", *SMALL, "--json")
    run = data(trained)["run"]
    measured = metavqa("eval", run, "--predictions", str(tmp_path / "out.json"), "--json", *SMALL)
    rows = data(measured)
    (row,) = [row for row in rows if row["label"] == "Uncond. Multitask"]
    assert row["tasks"] == 6 and 0 <= row["mean"] <= 100 and row["soft"] is not None and row["pooled"] is not None
    tasks = load_tasks(workspace.dataset_dir("vqa2") / "tasks.jsonl").of("test")
    predictions = json.loads((tmp_path / "out.json").read_text())
    assert len(predictions) == sum(len(task.query) for task in tasks)
    numbers = [prediction["question_id"] for prediction in predictions]
    assert numbers == sorted(set(numbers)) and all(set(p) == {"question_id", "answer"} for p in predictions)


def test_what_is_exported_is_read_again_as_the_same_tasks(
    metavqa: Terminal, vqa: Path, workspace: Workspace, tmp_path: Path
) -> None:
    build(metavqa, vqa, "--tasks-only")
    out = tmp_path / "released"
    assert metavqa("dataset", "export", "vqa2", "--format", "hyperclip", "--out", str(out)).code == 0
    assert sorted(path.name for path in out.iterdir()) == ["meta_test.json", "meta_train.json", "prompt_meta.json"]
    again = metavqa("dataset", "build", "--source", "hyperclip", "--path", str(out), "--tasks-only", "--json")
    assert data(again)["tasks"] == 20
    first, second = (load_tasks(workspace.dataset_dir(name) / "tasks.jsonl") for name in ("vqa2", "hyperclip"))
    assert first == second
    assert_refused(metavqa("dataset", "export", "vqa2", "--out", str(out)), 5, "exists", "--force", alone=True)
    assert metavqa("dataset", "export", "vqa2", "--out", str(out), "--force").code == 0
    refused = metavqa("dataset", "export", "vqa2", "--format", "csv", "--out", str(out))
    assert_refused(refused, 2, "'csv'", "hyperclip", alone=True)
    assert_refused(metavqa("dataset", "export", "nothing", "--out", str(out)), 3, "nothing", alone=True)


@pytest.mark.parametrize(
    ("options", "tasks"),
    [((), 20), (("--protocol", "paper"), 20), (("--min-pairs", "60"), 0), (("--match", "color"), 10),
     (("--exclude", "color|cat"), 9), (("--set", "dataset.answer_types=['other']"), 10), (("--min-answers", "4"), 10)],
)  # fmt: skip
def test_the_protocols_options(metavqa: Terminal, vqa: Path, options: tuple[str, ...], tasks: int) -> None:
    done = metavqa("dataset", "build", "--source", "vqa2", "--path", str(vqa), "--tasks-only", *options, "--json")
    if tasks:
        assert data(done)["tasks"] == tasks
    else:
        assert_refused(done, 1, "no task is left after the filters", "--min-pairs")


def test_at_least_twenty_is_one_pair_less_than_more_than_twenty(metavqa: Terminal, tmp_path: Path) -> None:
    rows = [f"{i}.png,What color is the {thing}?,{('red', 'blue')[i % 2]}\n" for thing in ("car", "dog", "hat", "cup")
            for i in range(20)]  # fmt: skip
    (tmp_path / "t.csv").write_text("image,question,answer\n" + "".join(rows))
    line = ["dataset", "build", "--source", "folder", "--path", str(tmp_path / "t.csv"), "--tasks-only", "--json"]
    assert_refused(metavqa(*line), 1, "21 images or more")
    assert data(metavqa(*line, "--protocol", "paper"))["tasks"] == 4


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--source", "vqa3", "--path", "."], 2, ("vqa3",)),
        (["--source", "vqa2"], 2, ("--path",)),
        (["--source", "vqa2", "--path", "nowhere"], 3, ("nowhere",)),
        (["--source", "hyperclip", "--path", "."], 3, ("meta_train.json",)),
        (["--source", "folder", "--path", "."], 3, ("table",)),
        (["--source", "vqa2", "--path", ".", "--protocol", "ours"], 2, ("protocol",)),
        (["--source", "vqa2", "--path", ".", "--shard", "3/2"], 2, ("--shard",)),
        (["--source", "vqa2", "--path", ".", "--shard", "1/2", "--force"], 2, ("--force", "dataset rm")),
        (["--source", "vqa2", "--path", ".", "--shard", "1/2", "--tasks-only"], 2, ("--tasks-only",)),
        (["--source", "vqa2", "--path", ".", "--resize", "stretch"], 2, ("clip.resize",)),
        (["--source", "vqa2", "--path", ".", "--precision", "fp8"], 2, ("clip.precision",)),
        (["--source", "vqa2", "--path", ".", "--validation", "1.5"], 2, ("validation_fraction",)),
        (["--source", "vqa2", "--path", ".", "--name", "../up"], 2, ("dataset.name",)),
        (["--source", "vqa2", "--path", ".", "--question-file", "a.json"], 2, ("--annotation-file",)),
        (["--source", "folder", "--path", "nowhere"], 3, ("nowhere", "No such file")),
        (["--source", "vqa2", "--path", "~nobody-of-that-name/vqa"], 2, ("~nobody-of-that-name", "home folder")),
        (["--source", "vqa2", "--path", "caf\udce9"], 2, ("caf", "not UTF-8", "link")),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_the_documented_code(
    metavqa: Terminal, args: list[str], code: int, words: tuple[str, ...]
) -> None:
    assert_refused(metavqa("dataset", "build", *args), code, *words)


def test_a_bad_expression_is_named(metavqa: Terminal, vqa: Path) -> None:
    done = metavqa("dataset", "build", "--source", "vqa2", "--path", str(vqa), "--match", "(")
    assert_refused(done, 2, "dataset.match is '('", "regular expression")


def test_images_that_are_not_there_are_exit_code_3_with_the_command(
    metavqa: Terminal, vqa: Path, tmp_path: Path
) -> None:
    without = shutil.copytree(vqa, tmp_path / "without", ignore=shutil.ignore_patterns("val2014.zip"))
    (without / "val2014").mkdir()
    done = metavqa("dataset", "build", "--source", "vqa2", "--path", str(without))
    assert_refused(done, 3, "40 of 80 images are not there", "metavqa dataset download vqa2", "--skip-broken")


def test_a_cut_file_leaves_the_good_dataset_untouched(
    metavqa: Terminal, vqa: Path, workspace: Workspace, tmp_path: Path
) -> None:
    build(metavqa, vqa, "--tasks-only")
    before = contents(workspace.dataset_dir("vqa2"))
    broken = shutil.copytree(vqa, tmp_path / "broken")
    path = broken / "v2_Annotations_Val_mscoco.zip"
    path.write_bytes(path.read_bytes()[:-40])
    done = metavqa("dataset", "build", "--source", "vqa2", "--path", str(broken), "--tasks-only", "--force")
    assert done.code in (1, 3) and "v2_Annotations_Val_mscoco.zip" in done.err
    assert contents(workspace.dataset_dir("vqa2")) == before


def test_another_encoder_under_the_same_name_is_exit_code_5(metavqa: Terminal, vqa: Path) -> None:
    build(metavqa, vqa)
    done = metavqa("dataset", "build", "--source", "vqa2", "--path", str(vqa), "--resize", "pad")
    assert_refused(done, 5, "vqa2", "--name", "--force")


def command(workspace: Path, vqa: Path, *args: str) -> list[str]:
    return ["-m", "metavqa_cli", "-w", str(workspace), "dataset", "build", "--source", "vqa2", "--path", str(vqa),
            "--set", "runtime.workers=1", "--set", "runtime.device=cpu", *args]  # fmt: skip


def test_processes_of_torchrun_share_the_work(
    metavqa: Terminal, vqa: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """The processes of torchrun are told their number and how many they are by the environment."""
    build(metavqa, vqa)
    other = Workspace(tmp_path / "other")
    for rank in ("1", "0"):
        done = python(*command(other.root, vqa), cwd=tmp_path, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2")
        assert done.code == 0, done.err
    assert contents(other.dataset_dir("vqa2")) == contents(workspace.dataset_dir("vqa2"))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX systems")
def test_a_process_that_is_killed_leaves_what_the_next_one_finishes(
    metavqa: Terminal, vqa: Path, workspace: Workspace, tmp_path: Path
) -> None:
    build(metavqa, vqa)
    other = Workspace(tmp_path / "other")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    doing = subprocess.Popen([sys.executable, *command(other.root, vqa)], env=environment, stderr=subprocess.DEVNULL)
    folder = other.dataset_dir("vqa2")
    while not (folder / "tasks.jsonl").is_file() and doing.poll() is None:
        pass
    doing.send_signal(signal.SIGKILL)
    doing.wait()
    assert other.datasets() == [] and (folder / "tasks.jsonl").is_file()
    assert python(*command(other.root, vqa), cwd=tmp_path).code == 0
    assert contents(folder) == contents(workspace.dataset_dir("vqa2"))
