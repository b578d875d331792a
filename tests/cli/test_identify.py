"""`metavqa identify`, `metavqa eval identify` and `metavqa eval novelty`: tables, idempotence, and every bad input."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.classifier import Classifier, load_classifier, save_classifier
from metavqa_cli.engine.ensure import made_hyperclip
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.models import load_model
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data
from tests.cli.terminal import Terminal, assert_refused
from tests.engine.test_identify import KEYS
from tests.engine.test_lineage import returned
from tests.miniature import CPU, OPTIONS, session


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One workspace for all of these tests, with HyperCLIP on the task-loss generator; they only add to it."""
    with patch(miniature.ENCODER, miniature.loaded_encoder):
        made = miniature.copy(tmp_path_factory.mktemp("identify") / "workspace")
        returned(made_hyperclip(session(made), "task"))
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What `metavqa generate` writes for a held-out question."""
    decoder = Decoder(load_model(miniature.run("hvae", "task"), CPU))
    made = Classifier(
        weights=decoder.decode(decoder.latents[:1])[0], layout=decoder.layout,
        question=miniature.dataset().tasks.of("train")[0].question, answers=("red", "blue"), template="it is {}",
        logit_scale=30.0, encoder=miniature.encoder().identity, gamma=1.0, seed=0, runs={"generator": decoder.run.id},
    )  # fmt: skip
    save_classifier(made, tmp_path / "car.safetensors")
    return tmp_path / "car.safetensors"


def changed(file: Path, **changes: object) -> Path:
    made = load_classifier(file)
    save_classifier(replace(made, **changes), file)  # type: ignore[arg-type]
    return file


def test_all_questions_of_the_dataset_are_candidates(metavqa: Terminal, file: Path, workspace: Workspace) -> None:
    run = miniature.run("hyperclip", workspace=workspace)
    done = metavqa("identify", str(file), "--json")
    rows = data(done)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(row.keys() == {"rank", "question", "probability", "cosine"} for row in rows)
    count = miniature.dataset().manifest["summary"]["tasks"]
    assert f"{count} candidate questions, by {run.id} (HyperCLIP for {miniature.run('hvae', 'task').id}" in done.err
    assert f"the file itself says: {load_classifier(file).question} (rank " in done.err
    assert sum(row["probability"] for row in rows) < 1
    whole = data(metavqa("identify", str(file), "--top", "1000", "--json", "--hyperclip", run.id))
    assert whole[:5] == rows and len(whole) == count
    assert sum(row["probability"] for row in whole) == pytest.approx(1, abs=1e-3)
    cosines = [row["cosine"] for row in whole]
    assert cosines == sorted(cosines, reverse=True)


def test_named_candidates_are_merged(
    metavqa: Terminal, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "questions.txt"
    listed.write_bytes("\ufeffWhat color is it?\r\n\r\n  How  many cars? \n".encode())
    options = ["--question", "How many cars?", "--question", "Where is it?", "--questions", str(listed)]
    done = metavqa("identify", str(file), *options, "--json")
    rows = data(done)
    assert {row["question"] for row in rows} == {"How many cars?", "Where is it?", "What color is it?"}
    assert sum(row["probability"] for row in rows) == pytest.approx(1, abs=1e-5)
    assert "(not among the candidates)" in done.err and "3 candidate questions" in done.err
    monkeypatch.setattr("sys.stdin", io.StringIO("Where is it?\n\nWhat color is it?\nHow many cars?\n"))
    piped = data(metavqa("identify", str(file), "--questions", "-", "--json"))
    assert [row["question"] for row in piped] == [row["question"] for row in rows]
    assert [row["cosine"] for row in piped] == pytest.approx([row["cosine"] for row in rows], abs=1e-5)


def test_csv_and_plain_output(metavqa: Terminal, file: Path) -> None:
    done = metavqa("identify", str(file), "--top", "2", "--format", "csv", "-q")
    assert done.err == ""
    assert [row["rank"] for row in csv.DictReader(io.StringIO(done.out))] == ["1", "2"]
    plain = metavqa("identify", str(file), "--top", "2").out.splitlines()
    assert plain[0].split("\t") == ["rank", "question", "probability", "cosine"] and len(plain) == 3


def test_a_hyperclip_of_another_generator_is_only_warned_of(
    metavqa: Terminal, file: Path, workspace: Workspace
) -> None:
    changed(file, runs={"generator": "hvae-other"})
    run = miniature.run("hyperclip", workspace=workspace)
    done = metavqa("identify", str(file), "--hyperclip", run.id, "--json")
    assert len(data(done)) == 5 and "the classifier comes from hvae-other" in done.err


def test_another_base_network_or_clip_model_is_refused(metavqa: Terminal, file: Path, workspace: Workspace) -> None:
    run = miniature.run("hyperclip", workspace=workspace)
    made = load_classifier(file)
    layout = WeightLayout(made.layout.embed, 9)
    changed(file, layout=layout, weights=torch.zeros(layout.size))
    assert_refused(
        metavqa("identify", str(file)), 2, f"the classifier {file} has a base network", run.id, "--hyperclip"
    )
    save_classifier(replace(made, encoder={**made.encoder, "model": "ViT-B-32/openai", "image_size": 224}), file)
    assert_refused(
        metavqa("identify", str(file)), 2,
        f"the classifier {file} was made with the CLIP model 'ViT-B-32/openai', the HyperCLIP {run.id} with 'tiny'",
    )  # fmt: skip


def test_a_missing_hyperclip_names_the_command_that_trains_it(
    metavqa: Terminal, file: Path, workspace: Workspace
) -> None:
    other = miniature.run("hvae", "weights", workspace)
    changed(file, runs={"generator": other.id})
    assert_refused(
        metavqa("identify", str(file)), 3, f"no finished HyperCLIP for the generator {other.id!r}",
        f"`metavqa train hyperclip --on hvae --generator {other.id}`",
    )  # fmt: skip
    changed(file, runs={})
    assert_refused(metavqa("identify", str(file)), 3, "`metavqa train hyperclip --on task --with-parents`")


def test_a_run_that_is_no_finished_hyperclip_is_refused(
    metavqa: Terminal, file: Path, tmp_path: Path, workspace: Workspace
) -> None:
    zoo = miniature.run("zoo", workspace=workspace)
    assert_refused(
        metavqa("identify", str(file), "--hyperclip", zoo.id), 2, f"run {zoo.id} is of kind zoo, not hyperclip"
    )
    assert_refused(metavqa("identify", str(file), "--hyperclip", "nothing"), 3, "there is no run 'nothing'")
    run = miniature.run("hyperclip", workspace=workspace)
    result = run.path / "result.json"
    kept = result.read_bytes()
    result.unlink()
    try:
        assert_refused(metavqa("identify", str(file), "--hyperclip", run.id), 3, f"run {run.id} is stale, not finished")
    finally:
        result.write_bytes(kept)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [(["--top", "0"], 2, "--top is 0, but at least one"), (["--question", " "], 2, "the question is empty"),
     (["--questions", "empty.txt"], 2, "there is no question in empty.txt; write one a line"),
     (["--questions", "none.txt"], 3, "none.txt does not exist"),
     (["--questions", "latin.txt"], 2, "latin.txt is not UTF-8 text"),
     (["--questions", "."], 2, "cannot read .: "), (["--json", "--format", "csv"], 2, "contradict each other")],
)  # fmt: skip
def test_options_that_make_no_sense(
    options: list[str], code: int, sentence: str, metavqa: Terminal, file: Path
) -> None:
    Path("empty.txt").write_text(" \n\n")
    Path("latin.txt").write_bytes("où?".encode("latin-1"))
    assert_refused(metavqa("identify", str(file), *options), code, sentence)


def test_no_question_on_stdin(metavqa: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (io.StringIO("\n \n"), None):
        monkeypatch.setattr("sys.stdin", stdin)
        assert_refused(metavqa("identify", str(file), "--questions", "-"), 2, "there is no question on stdin")


def test_what_is_no_classifier(metavqa: Terminal, file: Path, workspace: Workspace) -> None:
    model = miniature.run("ldm", workspace=workspace).model_path
    assert_refused(metavqa("identify", str(model)), 1, "not a classifier; generate it again with `metavqa generate`")
    file.write_bytes(b"not tensors")
    assert_refused(metavqa("identify", str(file)), 1, "is not a safetensors file")
    file.unlink()
    assert_refused(metavqa("identify", str(file)), 3, "does not exist")


# eval identify and eval novelty


def test_eval_identify_is_measured_once(metavqa: Terminal, workspace: Workspace) -> None:
    rows = data(metavqa("eval", "identify", "--dataset", "mini", *OPTIONS, "--json"))
    tasks = miniature.dataset().manifest["summary"]["test"]
    assert [row["candidates"] for row in rows] == [*([10] if tasks > 10 else []), tasks]
    assert all(row.keys() == KEYS and row["top5"] >= row["top1"] for row in rows)
    before = workspace.run_ids()
    done = metavqa("eval", "identify", "--on", "task", *OPTIONS)
    assert workspace.run_ids() == before
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert lines[0][:5] == ["on", "questions", "candidates", "top-1", "interval 1"] and len(lines) == len(rows) + 1
    assert lines[-1][3] == f"{rows[-1]['top1']:.2f}"
    assert f"mean over {tasks} tasks and all sets of candidates ± s.d. over 1 seed" in done.err
    assert "identify-" in done.err and "is already there" in done.err


def test_eval_novelty_is_measured_once_and_said_in_words(metavqa: Terminal, workspace: Workspace) -> None:
    done = metavqa("eval", "novelty", *OPTIONS, "--json")
    rows = data(done)
    assert [row["row"] for row in rows] == [
        "generated", "member with noise 0.1", "member with noise 0.3", "member with noise 1", "mean of two members",
        "leave-one-out",
    ]  # fmt: skip
    assert "What task + HyperLDM generates is " in done.err and "memorised" in done.err
    assert "ddim, 4 steps, validated γ = " in done.err
    before = workspace.run_ids()
    again = metavqa("eval", "novelty", *OPTIONS, "--format", "csv")
    assert workspace.run_ids() == before and "is already there" in again.err
    found = list(csv.DictReader(io.StringIO(again.out)))
    assert [float(row["distance"]) for row in found] == [row["distance"] for row in rows]
    plain = metavqa("eval", "novelty", *OPTIONS).out.splitlines()
    assert plain[0].split("\t")[:3] == ["on", "questions", "weights"] and len(plain) == 7


@pytest.mark.parametrize("command", ["identify", "novelty"])
@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [(["--on", "zoo"], 2, "there is no generator 'zoo'; --on takes hnet, hvae, task"),
     (["--seeds", "0"], 2, "--seeds takes 1 to"), (["--descriptors", "0"], 2, "--descriptors takes shares above 0"),
     (["--format", "csv", "--json"], 2, "contradict each other")],
)  # fmt: skip
def test_what_cannot_be_measured(command: str, options: list[str], code: int, sentence: str, metavqa: Terminal) -> None:
    assert_refused(metavqa("eval", command, "--dataset", "mini", *options), code, sentence)
