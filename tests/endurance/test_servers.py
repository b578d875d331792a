"""What is left running for days holds no more for it: questions of a stream, and a dashboard beside busy runs."""

from pathlib import Path

import pytest

from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import photos
from tests.endurance.servers import POLLS, QUESTIONS, asked, assert_flat, line, polled


def test_a_few_hundred_polls_of_a_dashboard_open_nothing_and_keep_little(tmp_path: Path) -> None:
    samples = polled(Workspace(tmp_path), 200)
    assert_flat(samples, 200)
    first, last = samples[len(samples) // 2], samples[-1]
    assert last.blocks - first.blocks < 3 * (last.steps - first.steps), line("blocks", samples)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_ten_thousand_polls(tmp_path: Path) -> None:
    samples = polled(Workspace(tmp_path))
    print(line(f"dashboard, {POLLS:,} polls", samples))
    assert_flat(samples, POLLS)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_five_thousand_questions() -> None:
    samples = asked(miniature.finished().root, photos(2))
    print(line(f"ask -, {QUESTIONS:,} questions", samples))
    assert_flat(samples)
