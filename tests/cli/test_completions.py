"""The completion files are what typer generates today, and completing works."""

from pathlib import Path

import pytest

from metavqa_cli.cli import completions
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from tests.cli.terminal import ROOT, python


@pytest.mark.parametrize("shell", completions.FILES)
def test_the_file_in_the_repository_is_up_to_date(shell: str) -> None:
    text = (ROOT / "completions" / completions.FILES[shell]).read_text("utf-8")
    assert "metavqa" in text
    assert completions.script(shell) == text, "run `python -m metavqa_cli.cli.completions`"


def test_all_files_are_written_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions, "script", lambda shell: f"# {shell}\n")
    completions.write_all(tmp_path / "new")
    assert {file.name: file.read_text() for file in (tmp_path / "new").iterdir()} == {
        "metavqa.bash": "# bash\n", "_metavqa": "# zsh\n", "metavqa.fish": "# fish\n", "metavqa.ps1": "# powershell\n",
    }  # fmt: skip
    names = {file.name for file in (ROOT / "completions").iterdir()}
    assert names == set(completions.FILES.values())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("metavqa con", ["config"]),
        ("metavqa runs ", ["ls", "show", "rm", "diff", "curves"]),
        ("metavqa runs show ", ["zoo-aaaa1111", "zoo-bbbb2222"]),
        ("metavqa runs rm zoo-b", ["zoo-bbbb2222"]),
        ("metavqa config show --preset ti", ["tiny"]),
        ("metavqa runs ls --format js", ["json", "jsonl"]),
    ],
)
def test_commands_runs_presets_and_choices_are_offered(tmp_path: Path, words: str, offered: list[str]) -> None:
    workspace = Workspace(tmp_path / "workspace")
    for key in ("aaaa1111", "bbbb2222"):
        runs.create(workspace, "zoo", key, {}, {}, {"name": "scenes"})
    asked = {"_METAVQA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = python("-m", "metavqa_cli", cwd=tmp_path, METAVQA_WORKSPACE=str(workspace.root), **asked)
    assert done.out.split() == offered


def test_runs_of_a_workspace_named_on_the_line_are_offered(tmp_path: Path) -> None:
    runs.create(Workspace(tmp_path / "w"), "zoo", "aaaa1111", {}, {}, {"name": "scenes"})
    words = f"metavqa -w {tmp_path / 'w'} runs show "
    asked = {"_METAVQA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "5"}
    assert python("-m", "metavqa_cli", cwd=tmp_path, **asked).out.split() == ["zoo-aaaa1111"]
