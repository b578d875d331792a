"""How long the front door takes: ``python -m tests.bench.test_startup`` prints JSON; ``pytest -m bench`` judges it."""

import json
import statistics
import subprocess
import sys
import time

import pytest

LIMIT_SECONDS = 0.3
COMMANDS = (["--help"], ["runs", "ls"], ["runs", "--help"], ["config", "show"], ["env"])


def measure(args: list[str], repeats: int = 9) -> dict[str, float]:
    """Wall seconds of ``metavqa ARGS`` in fresh processes, the first (cold disk) left out."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "metavqa_cli", *args], capture_output=True, check=True)
        seconds.append(time.perf_counter() - begun)
    return {"median_s": round(statistics.median(seconds[1:]), 3), "fastest_s": round(min(seconds[1:]), 3)}


@pytest.mark.bench
def test_help_and_listings_answer_in_under_three_tenths_of_a_second() -> None:
    for args in (["--help"], ["runs", "ls"]):
        assert measure(args)["fastest_s"] < LIMIT_SECONDS, args


if __name__ == "__main__":
    print(json.dumps({" ".join(args): measure(args) for args in COMMANDS}, indent=2))
