"""Fixtures' contents for tests of commands that need a finished pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest

from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.terminal import Done, Terminal


def photos(n: int, *, start: int = 0) -> list[str]:
    """Paths of ``n`` image files of the miniature."""
    folder = miniature.dataset()
    return [str(folder.image_path(image)) for image in folder.tasks.image_ids()[start : start + n]]


def furnished(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The terminal's workspace with the finished miniature in it, and the encoder not loaded again."""
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)
    return miniature.copy(workspace.root)


def data(done: Done) -> Any:
    """What was printed as JSON, and nothing else."""
    assert done.code == 0, done.err
    return json.loads(done.out)


def generated(metavqa: Terminal, file: Path) -> Path:
    """A classifier file for a question about colours."""
    done = metavqa("generate", "What color is the car?", "--answers", "red,blue,green", "-o", str(file))
    assert done.code == 0, done.err
    return file
