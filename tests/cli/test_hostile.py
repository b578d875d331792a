"""Whatever the texts of a workspace, of a command line and of files hold, no command lets them steer the terminal."""

import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from metavqa_cli.cli import app, console
from metavqa_cli.schema.text import UNSAFE
from tests import hostile, miniature
from tests.hostile import COLORS, IN_A_NAME, MARK, POISON, QUESTIONS, RUN

# What the program itself sends to a terminal: colours, and the redrawing of bars.
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\d*[AK]|\x1b\[\?25[lh]|\r(?=\x1b\[2K)|(?<=\n)\r|^\r")
SETS = ("--config", "own.toml")
ASKED = (QUESTIONS[0], "--answers", ",".join(COLORS), *SETS)
CLASSIFIER = f"classifier{IN_A_NAME}.safetensors"
COMMANDS: dict[str, list[Sequence[str]]] = {
    "quickstart": [SETS],
    "ask": [(ASKED[0], "PHOTO", "broken.png", *ASKED[1:]), (ASKED[0], "PHOTO", *ASKED[1:], "--format", "markdown")],
    "generate": [(*ASKED, "-o", CLASSIFIER, "--force")],
    "predict": [(CLASSIFIER, "PHOTO", "broken.png")],
    "identify": [(CLASSIFIER, *SETS), ("broken.png", *SETS)],
    "env": [()],
    "locate": [()],
    "dataset download": [("vqa2", "--to", IN_A_NAME, "--dry-run")],
    "dataset build": [SETS],
    "dataset info": [("mini",)],
    "dataset export": [("mini", "--out", f"out{IN_A_NAME}", "--force")],
    "dataset show": [("--dataset", "mini"), (QUESTIONS[0], "--dataset", "mini"), ("jam", "--dataset", "mini"),
                     ("color", "--dataset", "mini"), ("--dataset", "mini", "--format", "csv")],
    "dataset ls": [()],
    "dataset verify": [("mini", "--images")],
    "dataset rm": [("gone",)],
    "train baseline": [SETS],
    "train zoo": [SETS],
    "train hvae": [SETS],
    "train hyperclip": [SETS],
    "train ldm": [SETS],
    "train regression": [SETS],
    "eval (default)": [SETS],
    "eval table": [("--seeds", "1", "--method", "multitask", "--descriptors", "1", *SETS)],
    "eval sweep": [("--gamma", "1", "--method", "task-ldm", *SETS)],
    "eval controls": [],  # rows of a table, as those above
    "eval identify": [("--on", "task", *SETS)],
    "eval novelty": [SETS],
    "eval cell": [("multitask", *SETS)],
    "eval methods": [()],
    "eval tasks": [("--dataset", "mini")],
    "runs ls": [(), ("--filter", f"kind:{POISON}"), ("--format", "markdown")],
    "runs show": [(RUN[:12],), ("ldm-9",)],
    "runs rm": [("gone",)],
    "runs diff": [(RUN, "LDM")],
    "runs curves": [(RUN,), (RUN, "--metric", POISON), ("LDM", RUN)],
    "config show": [SETS],
    "config validate": [("own.toml",)],
    "config init": [(f"config{IN_A_NAME}.toml", "--force")],
    "config schema": [()],
    "verify": [(), (CLASSIFIER, "broken.png"), ("gone",)],
    "tui": [("--once", "--size", "100x30")],  # its rooms are tested beside the dashboard's other tests
}  # fmt: skip
BROKEN = {
    "ask": (1,),
    "dataset show": (2, 3),
    "predict": (1,),
    "identify": (1,),
    "runs rm": (3,),
    "dataset rm": (3,),
    "verify": (1, 3),
}  # exit codes
SILENT = (
    "env",
    "config schema",
    "config validate",
    "dataset download",
    "dataset ls",
    "eval ",
    "runs rm",
    "train",
    "tui",
)  # of what is hostile
FAILURES: list[Sequence[str]] = [
    (POISON,), ("dataset", POISON), (f"--{POISON}",), ("ask",), ("ask", POISON),
    ("ask", QUESTIONS[0], IN_A_NAME, *SETS), ("ask", QUESTIONS[0], "PHOTO", "--model", POISON, *SETS),
    ("ask", "--gamma", POISON, "x"), ("predict", IN_A_NAME, "PHOTO"), ("predict", "broken.png", "PHOTO"),
    ("generate", POISON, "--answers", POISON, "-o", "x", *SETS), ("dataset", "info", POISON),
    ("dataset", "show", POISON, "--dataset", "mini"), ("dataset", "show", "--match", f"[{POISON}"),
    ("dataset", "show", "--dataset", "mini", "--family", POISON),
    ("dataset", "build", "--source", "folder", "--path", POISON), ("dataset", "build", "--name", POISON),
    ("dataset", "build", "--source", "folder", "--path", "bad.csv"), ("dataset", "build", "--source", POISON),
    ("dataset", "download", "vqa2", "--base-url", POISON), ("dataset", "download", "vqa2", "--sha256", POISON),
    ("dataset", "verify", POISON), ("dataset", "rm", POISON), ("runs", "show", POISON), ("runs", "rm", POISON),
    ("runs", "curves", POISON), ("train", "ldm", "--resume", POISON), ("train", "ldm", "--dataset", POISON),
    ("train", "ldm", "--set", f"{POISON}=1"), ("train", "ldm", "--set", f"seed={POISON}"),
    ("train", "ldm", "--config", POISON), ("train", "ldm", "--config", "bad.toml"),
    ("train", "ldm", "--preset", POISON), ("train", "ldm", "--device", POISON),
    ("eval", POISON, "--dataset", "mini", *SETS), ("eval", "tasks", POISON, "--dataset", "mini"),
    ("eval", "cell", POISON), ("config", "validate", "bad.toml"), ("config", "show", POISON),
    ("--color", POISON, "env"), ("tui", POISON), ("tui", "--once", "--size", POISON),
    ("ask", "x", "PHOTO", "--clip", POISON, *SETS), ("-w", f"{POISON}\0", "runs", "ls"),
    ("ask", "x", "PHOTO", "--clip", f"ViT-B-32/{POISON}", *SETS),
]  # fmt: skip


class Wire(io.TextIOWrapper):
    """What a process writes to, as ``main`` sets it up: a terminal, or a pipe."""

    def __init__(self, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an own configuration, a damaged one, a hostile table and a broken picture; 100 columns."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)
    (folder / "own.toml").write_text(hostile.toml(), "utf-8")
    (folder / "bad.toml").write_text(
        f"[dataset]\nname = {hostile.quoted(POISON)}\n{hostile.quoted(POISON)} = 1\n", "utf-8"
    )
    (folder / "bad.csv").write_text(f"image,question,answer\n{IN_A_NAME},{POISON}?,{POISON}\n", "utf-8")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + POISON.encode())
    return folder


def typed(words: Sequence[str], terminal: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """What a command line leads to: exit code, stdout and stderr."""
    workspace = hostile.finished()
    names = {"PHOTO": str(hostile.photo()), "PHOTOS": str(hostile.photo().parent),
             "LDM": next(run for run in workspace.run_ids() if run.startswith("ldm-") and run != RUN)}  # fmt: skip
    out, err = Wire(terminal), Wire(terminal)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        code = app.run(["-w", str(workspace.root), *(names.get(word, word) for word in words)])
    console.configure()
    return code, out.text(), err.text()


def assert_harmless(*texts: str) -> str:
    """Nothing but the program's own codes; returns what is left without them."""
    whole = "".join(OWN.sub("", text) for text in texts)
    found = UNSAFE.search(whole)
    assert found is None, whole[max(0, found.start() - 80) : found.start() + 40].encode("unicode_escape")
    assert "\x1b]" not in "".join(texts)
    return whole


def names(command: Any, path: str = "") -> Iterator[str]:
    """Every command of the tree."""
    if not hasattr(command, "commands"):
        yield path.strip()
    for name, below in getattr(command, "commands", {}).items():
        yield from names(below, f"{path} {name}")


def test_every_command_of_the_tree_is_here() -> None:
    assert set(names(typer.main.get_command(app.app))) == COMMANDS.keys()


@pytest.mark.parametrize("command", [name for name, lines in COMMANDS.items() if lines])
def test_a_hostile_workspace_steers_nothing(command: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command.removesuffix(" (default)").split()
    if command in ("predict", "identify", "verify"):
        typed(["generate", *COMMANDS["generate"][0]], False, monkeypatch)
    if command == "identify":
        typed(["train", "hyperclip", *SETS], False, monkeypatch)
    said = ""
    for line in COMMANDS[command]:
        for terminal in (False, True):
            code, out, err = typed([*words, *line], terminal, monkeypatch)
            said += assert_harmless(out, err)
            assert code in (0, *BROKEN.get(command, ())) and "Traceback" not in err, (line, out[-500:], err[-500:])
    assert command.startswith(SILENT) or MARK in "".join(said.split()), said[-500:]


def test_hostile_arguments_steer_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, words in enumerate(FAILURES):
        code, out, err = typed(words, number % 2 == 0, monkeypatch)
        assert_harmless(out, err)
        assert code in (1, 2, 3, 4) and "unexpected" not in err and "error: " in OWN.sub("", err), (words, code, err)
