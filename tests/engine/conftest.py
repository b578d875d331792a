"""A copy of the miniature workspace for each test that changes something, and its encoder without loading it again."""

from pathlib import Path

import pytest

from metavqa_cli.store.workspace import Workspace
from tests import miniature


@pytest.fixture(autouse=True)
def encoder_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A copy of the finished workspace."""
    return miniature.copy(tmp_path / "workspace")


@pytest.fixture
def without_runs(tmp_path: Path) -> Workspace:
    """A copy of the finished workspace in which nothing was trained yet."""
    return miniature.copy(tmp_path / "workspace", with_runs=False)
