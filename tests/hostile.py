"""A world made by somebody who means harm: every text in it, down to the names of its files, tries to steer a terminal.

Its dataset is built from a table like any other; what the sources refuse (control characters) comes in as it would with
a workspace copied from a stranger: with the sources' own check asleep. The runs are real ones of the miniature's size.
"""

import csv
import json
import os
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image

from metavqa_cli.engine.quickstart import quickstart
from metavqa_cli.engine.session import Session
from metavqa_cli.schema.events import Narrated, ProgressMade, RunFailed, RunInterrupted, RunStarted, StepLogged
from metavqa_cli.store import log
from metavqa_cli.store.workspace import Workspace
from tests import miniature

MARK = "PWNED"
POISON = (
    f"\x1b]0;{MARK}\x07"  # the window's title
    f"\x1b]52;c;{MARK}\x07"  # the clipboard
    f"\x1b]8;;http://{MARK}\x1b\\"  # a link
    f"\x1b[6n\x1b[2J\x1bc\x9b6n\x9d0;{MARK}\x9c"  # questions, erasure, a reset; the same in C1
    "\x08\x7f\x0e"
    "\u202e\u2066\u200b\u2060\ufeff"  # order and hiding
    "[red]M[/red][link=http://x]"  # markup
)
IN_A_NAME = POISON.replace("/", ":").replace("\\", "")  # what a file may be called
NAME, N, THINGS = "mini", 30, ("car", "dog", "hat", "cup", "bus", "cat", "box", "pen", "key", "jar")
COLORS = tuple(f"{color}{POISON}" for color in ("red", "green", "blue"))
QUESTIONS = tuple(f"What color is the {thing}{POISON}?" for thing in THINGS)
RUN = f"ldm-0bad0bad{IN_A_NAME[:40]}"


def config(folder: Path, **changes: Any) -> Any:
    """The miniature's configuration, of the table in ``folder``."""
    return miniature.config(dataset=given(folder), **changes)


def given(folder: Path) -> dict[str, Any]:
    """What the configuration says of the table in ``folder``."""
    return {"source": "folder", "path": str(folder), "min_pairs": 12, "validation_fraction": 0.25}


def make_table(folder: Path) -> Path:
    """Pictures whose names are hostile and a table that asks hostile questions of them."""
    folder.mkdir(parents=True)
    names = [f"{i:02d}{IN_A_NAME}.png" for i in range(N)]
    for i, name in enumerate(names):
        Image.new("RGB", (32, 32), (8 * i, 255 - 8 * i, 40)).save(folder / name)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(name, question, COLORS[(i + k) % 3]) for k, question in enumerate(QUESTIONS)
                for i, name in enumerate(names)]  # fmt: skip
        csv.writer(file).writerows([("image", "question", "answer"), *rows])
    return folder


@cache
def finished() -> Workspace:
    """The hostile workspace with a run of each usual kind, and a made-up one whose log and manifest are hostile too."""
    root = miniature.folder() / "hostile"
    folder, made = make_table(root / f"photos{IN_A_NAME}"), Workspace(root / f"workspace{IN_A_NAME}")
    awake = "metavqa_cli.tasks.sources.folder.oddity"
    with patch(miniature.ENCODER, miniature.loaded_encoder), patch(awake, lambda _: None):
        miniature.exhaust(quickstart(Session(made, config(folder))))
    _made_up(made)
    return made


def _made_up(workspace: Workspace) -> None:
    from tests.tui.made_runs import made

    folder = made(workspace, RUN, variant=POISON, parents={"generator": POISON}, dataset=POISON, host=POISON,
                  result={"validation": {"accuracy": 50.0}, POISON: POISON, "sampler": POISON},
                  config=f'seed = 0\n\n[dataset]\nname = "mini"\npath = {quoted(POISON)}\n')  # fmt: skip
    for event in (RunStarted(RUN, POISON, 10), StepLogged(1, {POISON: 1.0, "loss": 1.0}), Narrated(POISON),
                  StepLogged(2, {POISON: 2.0, "loss": 0.5}), ProgressMade(POISON, 1, 2, POISON),
                  RunInterrupted(RUN, 2), RunFailed(RUN, POISON)):  # fmt: skip
        log.append(folder / "events.jsonl", event)
    os.utime(folder / "events.jsonl")


def quoted(text: str) -> str:
    """A string of TOML."""
    return '"' + "".join(f"\\U{ord(letter):08x}" for letter in text) + '"'


def photo() -> Path:
    """A picture with a hostile name, in a folder with one."""
    return next(path for path in sorted(finished().root.parent.glob("photos*/*.png")))


def toml() -> str:
    """``config`` as a file."""
    sections: dict[str, dict[str, Any]] = {
        **miniature.VALUES,
        "dataset": {**miniature.VALUES["dataset"], **given(photo().parent)},
    }
    lines = [line for name, values in sections.items() for line in (f"[{name}]", *map(_line, values.items()))]
    return "\n".join([*lines, ""])


def _line(value: tuple[str, Any]) -> str:
    return f"{value[0]} = {quoted(value[1]) if isinstance(value[1], str) else json.dumps(value[1])}"
