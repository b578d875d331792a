"""The front door is light: help, completion and listings import nothing heavy, and an answer torch alone."""

import json
import time
from pathlib import Path

import pytest

from metavqa_cli.engine.verify import describe_files
from metavqa_cli.tasks.taskset import Task, TaskSet, dump_tasks
from tests import miniature
from tests.cli.pipeline import photos
from tests.cli.terminal import python

TASK = Task("What is it?", "it is {}", ("a", "b"), (("1", 0),), (("2", 1),), "train")
HEAVY = ("torch", "numpy", "open_clip", "textual", "scipy", "PIL")
LISTING = f"""
import json, sys
from metavqa_cli.cli.app import run
code = run(sys.argv[1:])
print(json.dumps({{"code": code, "heavy": [name for name in {HEAVY!r} if name in sys.modules]}}), file=sys.stderr)
"""
SLOW = (
    "open_clip", "timm", "torchvision", "transformers", "huggingface_hub", "ftfy", "regex", "scipy", "sympy",
    "diffusers", "matplotlib", "rich", "textual", "torch._dynamo", "torch._inductor", "torch.distributed.tensor",
    "torch.onnx",
)  # fmt: skip
ANSWERING = f"""
import json, sys
from metavqa_cli.cli.app import run
code = run(sys.argv[1:])
print(json.dumps({{"code": code, "slow": [name for name in {SLOW!r} if name in sys.modules]}}), file=sys.stderr)
"""
COMPLETING = f"""
import json, sys
from metavqa_cli.cli.app import run
try:
    run([])
finally:
    print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "command",
    ["--help", "--version", "runs --help", "runs ls", "runs ls --json",
     "runs ls --filter state:failed", "config show", "config show --json",
     "config validate", "config schema", "env", "locate", "dataset ls", "dataset download vqa2 --dry-run"],
)  # fmt: skip
def test_listing_commands_import_nothing_heavy(tmp_path: Path, command: str) -> None:
    args = ["-w", str(tmp_path / "workspace"), *command.split()]
    done = python("-c", LISTING, *args, cwd=tmp_path)
    report = json.loads(done.err.splitlines()[-1])
    assert report == {"code": 0, "heavy": []}
    assert done.out or command == "config validate"


def test_an_answer_takes_torch_and_nothing_else_that_is_slow_to_import(tmp_path: Path) -> None:
    workspace, photo = miniature.copy(tmp_path / "workspace"), photos(1)[0]
    asked = ["ask", "What color is the car?", photo, "--answers", "red,blue"]
    done = python("-c", ANSWERING, "-w", str(workspace.root), *asked, cwd=tmp_path)
    assert json.loads(done.err.splitlines()[-1]) == {"code": 0, "slow": []}
    assert photo in done.out


@pytest.mark.parametrize("command", ["info", "show", "verify", "ls"])
def test_looking_into_a_dataset_imports_nothing_heavy(tmp_path: Path, command: str) -> None:
    folder = tmp_path / "workspace" / "datasets" / "scenes"
    dump_tasks(folder / "tasks.jsonl", TaskSet((TASK,)))
    summary = {"tasks": 1, "train": 1, "validation": 0, "test": 0, "images": 0}
    manifest = {
        "schema_version": 1,
        "fingerprint": "0",
        "encoder": None,
        "recipe": {"dataset": {}, "clip": {}},
        "summary": summary,
    }
    (folder / "dataset.json").write_text(json.dumps({**manifest, "files": describe_files(folder)}))
    done = python("-c", LISTING, "-w", str(tmp_path / "workspace"), "dataset", command, cwd=tmp_path)
    assert json.loads(done.err.splitlines()[-1]) == {"code": 0, "heavy": []}, done.err


@pytest.mark.parametrize("words", ["metavqa ", "metavqa runs ", "metavqa runs show ", "metavqa config show --preset "])
def test_completion_imports_nothing_heavy(tmp_path: Path, words: str) -> None:
    asked = {"_METAVQA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = python("-c", COMPLETING, cwd=tmp_path, METAVQA_WORKSPACE=str(tmp_path), **asked)
    assert json.loads(done.err.splitlines()[-1]) == []


def test_help_answers_soon(tmp_path: Path) -> None:
    """A generous bound for a busy machine; tests/bench measures the real one."""
    python("-m", "metavqa_cli", "--help", cwd=tmp_path)
    begun = time.perf_counter()
    done = python("-m", "metavqa_cli", "--help", cwd=tmp_path)
    assert time.perf_counter() - begun < 5
    assert done.code == 0 and "Usage: metavqa" in done.out


def test_the_package_root_imports_nothing_at_all(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import metavqa_cli; print(sorted(set(sys.modules) - before))"
    assert python("-c", code, cwd=tmp_path).out == "['metavqa_cli']\n"
