"""The whole dashboard as a person meets it: in tmux, from nothing, with a real training and a real answer."""

import re
import shutil
from pathlib import Path

import pytest

from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from tests.tui.tmux import Tmux, session

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.timeout(600),
]
LAST_STEP = re.compile(r"steps [\d,]+–([\d,]+)")
TO_IMAGES = 8  # fields between the question and the line for images


def last_step(shown: str) -> int:
    """The newest step that the room Curves shows; 0 when it shows none."""
    found = LAST_STEP.search(shown)
    return int(found[1].replace(",", "")) if found else 0


def test_train_watch_ask_and_quit(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    root = home / "metavqa"  # the usual workspace there
    with session(tmp_path, ["tui"], XDG_DATA_HOME=str(home)) as tmux:
        tmux.sees("no runs in")
        start_a_training(tmux)
        watch_its_curve(tmux, Workspace(root))
        tmux.until(lambda _: finished(Workspace(root), "ldm"), "the training to end", seconds=300)
        ask(tmux, root)
        tmux.press("Escape")
        tmux.sees("q Quit")  # the keyboard is not in an input any more
        tmux.press("q")
        shown = tmux.sees("left with 0")
    assert "F2 Runs" not in shown, "the dashboard is still on the screen"


def start_a_training(tmux: Tmux) -> None:
    """From the form, whose command line follows every choice."""
    tmux.press("n")
    tmux.sees("$ metavqa train ldm --preset tiny --with-parents")
    tmux.press(*["Tab"] * 6)
    tmux.type("task_latents.epochs=150", into="overrides")
    tmux.sees("task_latents.epochs=150 --with-parents")
    tmux.press(*["BTab"] * 4, "Enter")
    tmux.sees("  paper")  # the menu of presets is open
    tmux.press("Up", "Enter")
    tmux.sees("--preset smoke")
    tmux.press("C-s")
    tmux.until(lambda shown: "metavqa train ldm" in shown and "running" in shown, "the job among the jobs")


def watch_its_curve(tmux: Tmux, workspace: Workspace) -> None:
    """The generator's curve moves while it trains."""
    tmux.until(lambda shown: re.search(r"hvae-\w+\s+. running", shown), "the generator in the list")
    tmux.press("Home")
    tmux.until(lambda shown: re.search(r">\s+hvae-", shown), "the cursor on it")
    tmux.press("Enter")
    first = last_step(tmux.until(last_step, "a curve"))
    tmux.until(lambda shown: last_step(shown) > first, "the curve to move")
    assert not finished(workspace, "hvae"), "the curve that moved was that of a live run"


def ask(tmux: Tmux, root: Path) -> None:
    """Type a question, choose images by a pattern, and read the answers."""
    tmux.press("F5")
    tmux.sees("ready: ldm-")
    tmux.type("What color is the car?")
    tmux.sees("near for the model")
    tmux.press(*["Tab"] * TO_IMAGES)
    tmux.type(f"{root}/datasets/smoke/images/000/00000*.png", into="path, folder")
    tmux.press("Enter")
    tmux.sees("10 chosen")
    tmux.press(*["BTab"] * TO_IMAGES)
    tmux.press("Enter")
    tmux.until(lambda shown: "000000.png: " in shown and "zero-shot CLIP" in shown, "answers beside CLIP's")


def finished(workspace: Workspace, kind: str) -> bool:
    """Whether a run of this kind is finished."""
    return runs.newest(workspace, kind) is not None
