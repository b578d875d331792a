"""What `metavqa dataset build` makes of its environment."""

import os
from collections.abc import Iterator

import pytest

from metavqa_cli.engine import build
from metavqa_cli.engine.session import Session
from metavqa_cli.schema.events import Event
from tests.cli.terminal import Terminal, assert_refused


@pytest.mark.parametrize(
    ("processes", "options", "workers"),
    [(None, [], 0), ("1", [], 0), ("4", [], 3), ("100", [], 1), ("4", ["--workers", "5"], 5)],
)
def test_processes_of_one_machine_share_its_cores(
    metavqa: Terminal, monkeypatch: pytest.MonkeyPatch, processes: str | None, options: list[str], workers: int
) -> None:
    seen: list[int] = []

    def watch(session: Session, part: tuple[int, int]) -> Iterator[Event]:
        seen.append(session.config.runtime.workers)
        return iter(())

    monkeypatch.setattr(build, "build_dataset", watch)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert metavqa("dataset", "build", *options).code == 0
    assert seen == [workers]


@pytest.mark.parametrize(
    ("variables", "words"),
    [({"RANK": "abc", "WORLD_SIZE": "2"}, "RANK='abc'"), ({"WORLD_SIZE": "-1"}, "WORLD_SIZE='-1'"),
     ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 of WORLD_SIZE=2"), ({"LOCAL_WORLD_SIZE": ""}, "LOCAL_WORLD_SIZE=''")],
)  # fmt: skip
def test_an_environment_that_torchrun_did_not_make_is_refused(
    metavqa: Terminal, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert_refused(metavqa("dataset", "build"), 2, words, "torchrun", alone=True)


@pytest.mark.parametrize(
    "args",
    [["dataset", "build", "--path", ""], ["dataset", "build", "--image-root="], ["dataset", "export", "x", "--out", ""],
     ["dataset", "download", "vqa2", "--to", ""], ["generate", "What is it?", "-o", ""]],
)  # fmt: skip
def test_an_empty_path_is_not_the_folder_one_is_in(metavqa: Terminal, args: list[str]) -> None:
    assert_refused(metavqa(*args), 2, "is empty; give it a", alone=True)


def test_a_home_folder_of_nobody_is_refused(metavqa: Terminal) -> None:
    for args in (["--workspace", "~nobody-of-this-name/x"], ["dataset", "build", "--path", "~nobody-of-this-name/x"]):
        assert_refused(metavqa(*args, *(["dataset", "ls"] if args[0] == "--workspace" else [])), 2, "home folder")
