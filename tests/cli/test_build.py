"""What `metavqa dataset build` makes of its environment."""

import os
from collections.abc import Iterator

import pytest

from metavqa_cli.engine import build
from metavqa_cli.engine.session import Session
from metavqa_cli.schema.events import Event
from tests.cli.terminal import Terminal


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
