"""A miniature of the main job: a few hundred small images, a few dozen tasks, networks of a few units.

The whole pipeline runs once in a test session, in seconds; tests share the result, or take a copy that they may change.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from metavqa_cli.clip.encoder import TINY, ClipEncoder, load_encoder
from metavqa_cli.engine.dataset import DatasetFolder, open_dataset
from metavqa_cli.engine.quickstart import quickstart
from metavqa_cli.engine.session import Session
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.events import Event
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace

NAME = "mini"
VALUES: dict[str, dict[str, Any]] = {
    "runtime": {"device": "cpu", "workers": 1},
    "dataset": {
        "name": NAME,
        "images": 1500,
        "image_size": 32,
        "questions": 60,
        "pairs_per_task": 30,
        "min_pairs": 12,
        "validation_fraction": 0.25,
    },
    "base_network": {"hidden": 8},
    "baseline": {"epochs": 3, "batch": 8},
    "hnet": {"latent": 4, "hidden": (16,), "adapt_steps": 2},
    "zoo": {"steps": 3},
    "hvae": {"latent": 4, "hidden": (16, 16), "epochs": 3},
    "task_latents": {"epochs": 3, "scale": 1.0, "z_init": 1.0},  # far from the initialisation, so that latents matter
    "ldm": {"hidden": (16, 32, 16), "time_dim": 16, "T": 50, "epochs": 6, "anchor": False},
    "hyperclip": {"hidden": 64, "epochs": 6},
    "guidance": {"steps": 2, "candidates": 3, "keep": 2},
    "regression": {"hidden": 16, "epochs": 6},
    "sampling": {"sampler": "ddim", "steps": 4, "latents": 1, "temperature": 1.0},
    "eval": {"few_shot_steps": 2, "bootstrap": 100},
}
OPTIONS = [word for section, values in VALUES.items() for key, value in values.items()
           for word in ("--set", f"{section}.{key}={list(value) if isinstance(value, tuple) else value}")]  # fmt: skip
CPU = torch.device("cpu")
WHOLE = {"fingerprint": "0", "recipe": {"dataset": {}, "clip": {}}, "encoder": None, "summary": {}}
"""What a manifest made by hand needs besides its name and version."""
ENCODER = "metavqa_cli.engine.session.load_encoder"  # what to replace by `loaded_encoder`


def config(**changes: Any) -> Config:
    """The miniature's configuration with ``changes`` to sections (``ldm={"epochs": 3}``) or values (``seed=1``)."""
    values: dict[str, Any] = {name: dict(section) for name, section in VALUES.items()}
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
    return Config.model_validate(values)


@cache
def encoder() -> ClipEncoder:
    """The built-in CLIP model, loaded once."""
    return load_encoder(TINY, CPU)


def loaded_encoder(name: str, device: torch.device, **how: Any) -> ClipEncoder:
    """In place of ``load_encoder``: the built-in model without loading it again, any other as usual."""
    usual = name == TINY and device == CPU and how in ({}, {"resize": "model", "precision": "auto"})
    return encoder() if usual else load_encoder(name, device, **how)


@cache
def folder() -> Path:
    """Where the session's miniature lives; removed when Python exits."""
    made = Path(tempfile.mkdtemp(prefix="metavqa-miniature-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def finished() -> Workspace:
    """The workspace after `quickstart`, for tests that only read it."""
    made = Workspace(folder() / "workspace")
    with patch(ENCODER, loaded_encoder):
        exhaust(quickstart(Session(made, config())))
    return made


def exhaust(events: Any) -> list[Event]:
    """Every event of an engine verb."""
    return list(events)


def copy(root: Path, *, with_runs: bool = True) -> Workspace:
    """A copy of the finished workspace that a test may change; only the image files are shared, not copied."""
    source = finished()
    skipped = ("images", ".*.lock", ".*.lock.json", *(() if with_runs else ("runs",)))
    shutil.copytree(source.root, root, ignore=shutil.ignore_patterns(*skipped))
    (root / "datasets" / NAME / "images").symlink_to(source.dataset_dir(NAME) / "images")
    return Workspace(root)


def session(workspace: Workspace, *, force: bool = False, resume: str | None = None, **changes: Any) -> Session:
    """A session in the miniature's configuration."""
    return Session(workspace, config(**changes), force=force, resume=resume)


def dataset() -> DatasetFolder:
    return open_dataset(finished(), NAME)


def run(kind: str, variant: str | None = None, workspace: Workspace | None = None) -> Run:
    """The finished run of a kind (and of a method or objective)."""
    found = runs.newest(
        workspace or finished(), kind, match=lambda run: variant in (None, run.manifest().get("variant"))
    )
    assert found is not None, f"the miniature has no {variant or ''} {kind}"
    return found
