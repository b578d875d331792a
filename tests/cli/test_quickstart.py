"""`metavqa quickstart`: the whole story in one command."""

import json
import re
import shlex
import time

import pytest

from metavqa_cli.engine.configuration import resolve_config
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import data, furnished
from tests.cli.terminal import Terminal
from tests.miniature import OPTIONS

KEYS = {"rows", "seed", "sampler", "dataset", "world", "precision", "runs", "asked", "seconds"}


@pytest.fixture(autouse=True)
def full(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return furnished(workspace, monkeypatch)


def test_the_second_time_everything_is_reused_and_fast(metavqa: Terminal, full: Workspace) -> None:
    begun = time.process_time()
    done = metavqa("quickstart", *OPTIONS)
    assert time.process_time() - begun < 10
    assert done.code == 0, done.err
    assert full.run_ids() == miniature.finished().run_ids()
    reused = re.findall(r"^(\w+) \S+ is already there and is used again$", done.err, re.MULTILINE)
    assert reused == ["dataset", "baseline", "zoo", "hvae", "ldm", "hvae", "ldm", "eval"]
    table, *asked = done.out.split("\n\n")
    assert table.splitlines()[0].split("\t")[:4] == ["label", "setting", "tasks", "mean"]
    assert len(asked) == 3 and all("(held out: new " in story and story.count("[true: ") == 3 for story in asked)
    assert "built-in Scenes world" in done.err and "95 % interval" in done.err


def test_its_commands_do_the_same_step_by_step(metavqa: Terminal, full: Workspace) -> None:
    """Typed as they are printed, each finds what quickstart made."""
    printed = metavqa("quickstart", *OPTIONS).err
    commands = [shlex.split(line)[1:] for line in printed.splitlines() if line.startswith("  metavqa ")]
    steps, following = commands[:8], commands[8:]
    for command in steps:
        done = metavqa(*command)
        assert done.code == 0, done.err
        assert "is already there" in done.err, command
    assert full.run_ids() == miniature.finished().run_ids()
    assert [command[0] for command in following] == ["ask", "generate", "predict"]
    for command in following:
        done = metavqa(*command)
        assert done.code == 0, done.err


def test_json_holds_the_whole_story(metavqa: Terminal) -> None:
    told = data(metavqa("quickstart", *OPTIONS, "--json"))
    assert told.keys() == KEYS
    assert told["rows"] == (miniature.run("eval").result() or {})["rows"]
    assert told["runs"] == {name: miniature.run("ldm", name).id for name in ("weights", "task")}
    for asked in told["asked"]:
        assert asked.keys() == {"question", "novelty", "images"}
        assert all(
            {"truth", "answer", "probability", "ranked", "clip_answer"} <= image.keys() for image in asked["images"]
        )


def test_the_smoke_preset_is_a_smaller_world_of_its_own() -> None:
    smoke, tiny = (json.loads(resolve_config(name).config.model_dump_json()) for name in ("smoke", "tiny"))
    assert smoke["dataset"]["name"] != tiny["dataset"]["name"]
    assert smoke["dataset"]["images"] * 8 <= tiny["dataset"]["images"]
    assert smoke["hvae"]["objective"] == tiny["hvae"]["objective"]
