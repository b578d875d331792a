"""The commands that are made to fail, each with the state in which it starts."""

import csv
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tomlkit
from PIL import Image

from metavqa_cli.store import runs
from tests import miniature
from tests.faults.client import ended
from tests.faults.mirror import address

SEED = ["--seed", "5"]  # not the miniature's: parents are there, the run is not
TASK_LDM, MULTITASK = ("ldm", "task"), ("baseline", "multitask")
PICTURES = 40
THINGS = ("car", "dog", "hat", "cup", "bus", "cat", "box", "pen")
COLORS = ("red", "green", "blue")


@dataclass(frozen=True)
class Case:
    """A command and where it starts. ``again``: exit codes of the same command after it was broken off."""

    name: str
    command: list[str]
    start: Callable[[Path], None]
    again: tuple[int, ...] = (0,)
    trains: bool = False
    """Whether it keeps a checkpoint at the first Ctrl-C."""
    sweeper: tuple[str, ...] = ()
    """More words for the command that removes the drafts which a killed one left."""


def finished(root: Path) -> None:
    """The whole miniature, and its configuration in the current folder."""
    miniature.copy(root / "workspace")
    configured(root)


def bare(root: Path) -> None:
    """The miniature's dataset and configuration, and no run."""
    miniature.copy(root / "workspace", with_runs=False)
    configured(root)


def empty(root: Path) -> None:
    (root / "here").mkdir(parents=True)


def untouched(root: Path) -> None:
    """The configuration of a smaller miniature, and nothing else."""
    configured(root, images=1040, questions=40)


def configured(root: Path, **dataset: int) -> None:
    """The miniature's configuration with a checkpoint after every step, which a command reads by itself."""
    values = {**miniature.VALUES, "dataset": {**miniature.VALUES["dataset"], **dataset}}
    values["runtime"] = {**values["runtime"], "checkpoint_seconds": 1e-6}
    empty(root)
    (root / "here" / "metavqa.toml").write_text(tomlkit.dumps(values))


def pictured(root: Path) -> None:
    """No dataset, but a person's own table with pictures."""
    empty(root)
    for i in range(PICTURES):
        Image.new("RGB", (16, 16), (i, 2 * i, 3 * i)).save(root / "here" / f"{i:02d}.png")
    with (root / "here" / "table.csv").open("w", newline="") as file:
        rows = [(f"{i:02d}.png", f"What color is the {thing}?", COLORS[(i + k) % 3])
                for k, thing in enumerate(THINGS) for i in range(PICTURES)]  # fmt: skip
        csv.writer(file).writerows([("image", "question", "answer"), *rows])


def removable(root: Path) -> None:
    """The miniature with an image folder of its own, which a removal may delete."""
    finished(root)
    images = root / "workspace" / "datasets" / miniature.NAME / "images"
    images.unlink()
    (images / "000").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (8, 8)).save(images / "000" / f"{i}.png")


def replaceable(root: Path) -> None:
    """A small dataset of the same name as the one that is to be built."""
    shutil.copytree(_small(), root, symlinks=True)


@cache
def _small() -> Path:
    """A folder in which the small world has been built once."""
    root = Path(tempfile.mkdtemp(dir=miniature.folder())) / "small"
    empty(root)
    done = ended(root, [*BUILD, "--world-seed", "3"], watched=False)
    assert done.codes == [0], done.err
    return root


SMALL_WORLD = [
    "--set", "dataset.images=1040", "--set", "dataset.image_size=32", "--set", "dataset.questions=40",
    "--set", "dataset.min_pairs=8", "--set", "dataset.pairs_per_task=20", "--set", "dataset.validation_fraction=0.25",
    "--set", "runtime.workers=1", "--set", "runtime.device=cpu",
]  # fmt: skip
BUILD = ["dataset", "build", "--name", "small", *SMALL_WORLD]
OWN = ["dataset", "build", "--source", "folder", "--path", "table.csv", "--name", "own", "--set", "runtime.workers=1"]
DOWNLOAD = ["dataset", "download", "vqa2", "--what", "questions", "--jobs", "1", "--unpack", "--retries", "1"]
ASK = ["What color is the car?", "--answers", "red,blue,green"]


def _id(kind: str, variant: str | None) -> str:
    return miniature.run(kind, variant).id


@cache
def cases() -> dict[str, Case]:
    """By name."""
    train = {
        "multitask": ["baseline", "--method", "multitask"],
        "film": ["baseline", "--method", "film"],
        "cond-multitask": ["baseline", "--method", "cond-multitask"],
        "mnet-maml": ["baseline", "--method", "mnet-maml"],
        "mnet-fomaml": ["baseline", "--method", "mnet-fomaml"],
        "hnet-maml": ["baseline", "--method", "hnet-maml"],
        "cond-hnet-maml": ["baseline", "--method", "cond-hnet-maml"],
        "hvae": ["hvae", "--objective", "weights"],
        "task": ["hvae", "--objective", "task"],
        "hyperclip": ["hyperclip", "--on", "task"],
        "ldm": ["ldm", "--on", "task"],
        "regression": ["regression", "--on", "task"],
    }
    found = [Case(f"train {name}", ["train", *words, *SEED], finished, trains=True)
             for name, words in train.items()]  # fmt: skip
    found += [
        Case("train zoo", ["train", "zoo", *SEED], finished),
        Case("train ldm --with-parents", ["train", "ldm", "--with-parents"], bare, trains=True),
        Case("dataset build", BUILD, empty),
        Case("dataset build --force", [*BUILD, "--force"], replaceable),
        Case("dataset build --source folder", OWN, pictured),
        Case("dataset rm", ["dataset", "rm", miniature.NAME, "--yes"], removable, again=(0, 3)),
        Case("runs rm", ["runs", "rm", _id(*TASK_LDM), "--force"], finished, again=(0, 3)),
        Case("eval", ["eval", *SEED], finished),
        Case("eval cells", ["eval", "table", "-m", "multitask,task-ldm", "--out", "report"], finished),
        Case(
            "generate",
            ["generate", *ASK, "-o", "car.safetensors"],
            finished,
            again=(0, 5),
            sweeper=("--force",),
        ),
        Case("config init", ["config", "init", "mine.toml"], empty, again=(0, 5), sweeper=("--force",)),
        Case("dataset download", [*DOWNLOAD, "--base-url", address()], empty),
        Case("quickstart", ["quickstart"], untouched),
    ]
    return {case.name: case for case in found}


def newest(root: Path) -> list[str]:
    """The ids of the runs, oldest first."""
    from metavqa_cli.store.workspace import Workspace

    return [run.id for run in runs.list_runs(Workspace(root / "workspace"))]
