"""The README's shell script, typed in as it stands, on the miniature."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import miniature

README = Path(__file__).parents[2] / "README.md"


def script() -> str:
    """The README's block of ``sh``."""
    return README.read_text("utf-8").partition("```sh\n")[2].partition("```")[0]


def test_the_script_has_ten_lines_or_so_and_no_machine_of_its_own() -> None:
    assert 8 <= len(script().splitlines()) <= 12
    assert "metavqa --quiet eval cell" in script() and "jq -s" in script()


@pytest.mark.skipif(shutil.which("jq") is None or shutil.which("sh") is None, reason="the script needs sh and jq")
def test_the_script_joins_methods_seeds_and_gammas(tmp_path: Path) -> None:
    workspace = miniature.copy(tmp_path / "workspace")
    config = tmp_path / "metavqa.toml"
    sections = {name: values for name, values in miniature.VALUES.items() if isinstance(values, dict)}
    lines = [line for name, values in sections.items() for line in (f"[{name}]", *map(_toml, values.items()))]
    config.write_text("\n".join(lines))
    command = tmp_path / "bin" / "metavqa"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m metavqa_cli "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "METAVQA_WORKSPACE": str(workspace.root),
        "METAVQA_CONFIG": str(config), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(README.parent),
    }  # fmt: skip
    done = subprocess.run(["sh", "-c", script()], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    found = {(row["method"], row["setting"], row["gamma"]) for row in rows}
    unguided = {("multitask", "zero-shot", None), ("multitask", "few-shot", None), ("regression", "zero-shot", None)}
    assert found == unguided | {("task-ldm", "zero-shot", 1), ("task-ldm", "zero-shot", 1.5)}
    assert all(0 < row["mean"] < 100 for row in rows)


def _toml(item: tuple[str, object]) -> str:
    name, value = item
    return f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}"
