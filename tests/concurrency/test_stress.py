"""Six, or twenty, processes at once on one workspace: what each may meet is documented, and nothing is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import miniature

ROOT = Path(miniature.__file__).parents[1]


def stressed(root: Path, processes: int, seconds: float, seed: int) -> dict[str, Any]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METAVQA_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.concurrency.stress", str(root), "--processes", str(processes),
         "--seconds", str(seconds), "--seed", str(seed)],
        cwd=ROOT, env={**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    wrong = report.pop("wrong")
    print(json.dumps(report))
    assert not wrong, "\n\n".join(wrong)
    return report


def test_six_processes_for_a_moment(tmp_path: Path) -> None:
    report = stressed(tmp_path, processes=6, seconds=8, seed=1)
    assert report["deeds"] >= 10 and report["signals"]  # on busy cores; idle ones do some hundred


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [11, 12])
def test_twenty_processes_for_two_minutes(tmp_path: Path, seed: int) -> None:
    report = stressed(tmp_path, processes=20, seconds=120, seed=seed)
    assert report["signals"]["SIGKILL"] > 3 and report["results"] > report["distinct results"] > 3  # more on idle cores
