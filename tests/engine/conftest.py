"""A copy of the miniature workspace for each test that changes something, and its encoder without loading it again."""

import math
from pathlib import Path

import pytest

from metavqa_cli.engine import loop
from metavqa_cli.store.workspace import Workspace
from tests import miniature


@pytest.fixture(autouse=True)
def encoder_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)


@pytest.fixture
def checkpoint_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a busy disk takes a second for one."""
    monkeypatch.setattr(loop, "CHEAP_SECONDS", math.inf)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A copy of the finished workspace."""
    return miniature.copy(tmp_path / "workspace")


@pytest.fixture
def without_runs(tmp_path: Path) -> Workspace:
    """A copy of the finished workspace in which nothing was trained yet."""
    return miniature.copy(tmp_path / "workspace", with_runs=False)
