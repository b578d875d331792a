"""A terminal in an empty folder, with an empty workspace."""

from pathlib import Path

import pytest

from metavqa_cli.store.workspace import Workspace
from tests.cli.terminal import Terminal


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def metavqa(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Terminal:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Terminal(workspace.root, capsys)
