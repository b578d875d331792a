"""What the installation is made of is told without importing it."""

import json
import os
from pathlib import Path

import pytest

from metavqa_cli.cli import env
from tests.cli.terminal import Terminal


def test_env_names_versions_and_places(metavqa: Terminal) -> None:
    record = json.loads(metavqa("env", "--json").out)
    assert record["torch"] == env.installed("torch") and record["torch"]
    assert record["cpus"] == len(os.sched_getaffinity(0))
    assert record["workspace"] == str(metavqa.workspace)
    assert record["free_gib"] > 0 and record["memory_gib"] > 0
    assert record["offline"] is False
    assert json.loads(metavqa("env", "--json", "--offline").out)["offline"] is True


def test_a_package_that_is_not_there_is_null_and_shown_as_a_dash(
    metavqa: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, "PACKAGES", ("surely-not-installed",))
    assert json.loads(metavqa("env", "--json").out)["surely-not-installed"] is None
    assert "surely-not-installed\t-\n" in metavqa("env").out


def test_locate_says_what_exists(metavqa: Terminal) -> None:
    rows = {row["what"]: row for row in json.loads(metavqa("locate", "--json").out)}
    assert rows["workspace"] == {"what": "workspace", "path": str(metavqa.workspace), "exists": False}
    assert rows["presets"]["exists"] is True
    assert rows["project configuration"]["path"] == str(Path.cwd() / "metavqa.toml")
    Path("metavqa.toml").write_text("")
    assert "project configuration\t" + str(Path.cwd() / "metavqa.toml") + "\ttrue" in metavqa("locate").out


def test_the_model_cache_follows_the_hub_s_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert env.hub_cache() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("HF_HOME", "/h")
    assert env.hub_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert env.hub_cache() == Path("/c")
