"""A workspace lists what is complete, and creates nothing by being looked at."""

from pathlib import Path

import platformdirs
import pytest

from metavqa_cli.schema.errors import MissingError
from metavqa_cli.store.workspace import Workspace


def test_only_folders_with_a_manifest_count(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for name in ("scenes", "another", "half", ".tmp-1"):
        workspace.dataset_dir(name).mkdir(parents=True)
    for name in ("scenes", "another", ".tmp-1"):
        (workspace.dataset_dir(name) / "dataset.json").write_text("{}")
    (workspace.runs_dir / "zoo-1").mkdir(parents=True)
    (workspace.runs_dir / "zoo-1" / "run.json").write_text("{}")
    (workspace.runs_dir / "note.txt").write_text("")
    assert workspace.datasets() == ["another", "scenes"]
    assert workspace.run_ids() == ["zoo-1"]


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "/etc", "a/", "a\0"])
def test_a_name_that_leads_elsewhere_is_no_dataset(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingError, match="there is no dataset"):
        Workspace(tmp_path).dataset_dir(name)


def test_looking_at_a_workspace_that_is_not_there_creates_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "none")
    assert workspace.datasets() == workspace.run_ids() == []
    assert not workspace.root.exists()


def test_the_default_root_is_the_variable_or_the_platform_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METAVQA_WORKSPACE", str(tmp_path))
    assert Workspace.default_root() == tmp_path
    monkeypatch.setenv("METAVQA_WORKSPACE", "")
    assert Workspace.default_root() == platformdirs.user_data_path("metavqa", appauthor=False)
