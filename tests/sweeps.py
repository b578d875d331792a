"""A small γ sweep over the miniature, measured once in a test session."""

import shutil
from functools import cache
from pathlib import Path

from metavqa_cli.engine.cells import Bench, measured_cell
from metavqa_cli.engine.scores import CellSpec
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors, save_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature, old_format
from tests.engine.test_lineage import returned

SPECS = (
    CellSpec("multitask", 0),
    CellSpec("multitask", 1),
    CellSpec("task", 0),
    *(CellSpec("task-ldm", 0, gamma=gamma) for gamma in (0.0, 1.0, 3.0, None)),
    *(CellSpec("task-ldm", 1, gamma=gamma) for gamma in (1.0, 3.0, None)),
    *(CellSpec("task-ldm-plain", 0, gamma=gamma) for gamma in (0.0, 3.0)),
    CellSpec("task-ldm", 0, gamma=1.0, control="shuffled"),
)


@cache
def finished() -> tuple[Workspace, tuple[Run, ...]]:
    """The workspace, for tests that only read it, and the cells of ``SPECS``."""
    workspace = miniature.copy(miniature.folder() / "sweeps")
    bench = Bench(miniature.session(workspace))
    return workspace, tuple(returned(measured_cell(bench.root, spec, bench)) for spec in SPECS)


def copy(root: Path, specs: tuple[CellSpec, ...] = SPECS) -> Workspace:
    """A workspace that a test may change, with the dataset and these cells alone."""
    source, cells = finished()
    workspace = Workspace(root)
    shutil.copytree(source.datasets_dir, workspace.datasets_dir, symlinks=True)
    for run, spec in zip(cells, SPECS, strict=True):
        if spec in specs:
            add(workspace, run)
    return workspace


def cell(spec: CellSpec) -> Run:
    """The finished cell."""
    return dict(zip(SPECS, finished()[1], strict=True))[spec]


def add(workspace: Workspace, run: Run, name: str = "") -> Run:
    """Put a copy of a run into another workspace, in one step, as a finished job appears."""
    draft = workspace.runs_dir / f".{run.id}"
    shutil.copytree(run.path, draft)
    if name:  # what is in it belongs to the run of the new name
        tensors, header = load_tensors(draft / "model.safetensors")
        save_tensors(draft / "model.safetensors", tensors, {**header, "run": name})
        old_format.rewrite(draft / "run.json", id=name)
        old_format.rewrite(draft / "result.json", record={"run": name})
    return Run(draft.rename(workspace.runs_dir / (name or run.id)))
