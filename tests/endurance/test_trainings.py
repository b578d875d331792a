"""A training holds no more after twenty thousand steps than after five thousand; one that leaks is caught."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import miniature
from tests.endurance.meter import Sample, risen, slope
from tests.endurance.short import LEAKING, NAMES
from tests.endurance.trainings import STEPS, TRAININGS, is_flat, table

MOST_BLOCKS = 0.95  # that a step may leave behind while caches fill (0.2 to 0.6); one kept tensor is 1.4


def test_a_few_hundred_steps_leave_nothing_behind_and_a_leak_is_seen(tmp_path: Path) -> None:
    root = miniature.copy(tmp_path / "workspace").root
    command = [sys.executable, "-m", "tests.endurance.short", str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {*NAMES, LEAKING}
    assert {name: kept["blocks"] for name, kept in found.items() if kept["blocks"] > MOST_BLOCKS}.keys() == {LEAKING}
    assert all(kept["files"] == kept["threads"] == 0 for kept in found.values()), found


def test_a_slope_is_that_of_the_samples_whatever_one_jump_does() -> None:
    samples = [Sample(1000 * n, 5000 * n + (10**9 if n == 7 else 0), 0, 3, 1) for n in range(20)]
    found = slope(samples, "rss")
    assert found.per_thousand == pytest.approx(5000) and found.low <= 5000 <= found.high
    assert risen(samples, "rss") == 5000 * 16 and risen(samples, "files") == 0


def test_what_grows_is_not_called_flat() -> None:
    flat = {"rss_rise": 1000, "files": [6], "threads": [1]}
    assert is_flat(flat)
    assert not any(
        map(is_flat, ({**flat, "rss_rise": 2 << 20}, {**flat, "files": [6, 7]}, {**flat, "threads": [1, 2]}))
    )


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
def test_every_training_is_flat_over_twenty_thousand_steps(tmp_path: Path) -> None:
    rows = table(TRAININGS, miniature.copy(tmp_path / "workspace").root, STEPS)
    print(f"{len(rows)} trainings of {STEPS:,} steps, {sum(map(is_flat, rows))} flat")
    assert [row["name"] for row in rows if not is_flat(row)] == []
