"""No file makes a parser do anything but give a sound value or say in a sentence what is wrong with it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metavqa_cli.schema.errors import JobError
from tests import miniature
from tests.fuzz import harness
from tests.fuzz.harness import Parser, Tally, feed, report
from tests.fuzz.mutations import raw

ROOT = Path(__file__).parents[2]
NEVER_REFUSES = {"event log", "task index", "dashboard settings", "lock owner", "download note"}  # they go on without
SHORT, LONG = 60, 3_200  # inputs for each parser: 1,900 and 102,000 in all


def fuzzed(inputs: int, *options: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose memory is limited."""
    command = [sys.executable, "-m", "tests.fuzz", str(miniature.finished().root), "--inputs", str(inputs), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_every_parser_gives_a_sound_value_or_a_sentence() -> None:
    done = fuzzed(SHORT, "--json")
    assert done.returncode in (0, 1), done.stderr
    tallies: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(tallies) >= 30 and all(tally["inputs"] == SHORT for tally in tallies)
    assert {tally["parser"]: tally["failures"] for tally in tallies if tally["failures"]} == {}
    for tally in tallies:  # mutations that are all refused, or none, would test nothing
        assert tally["accepted"] > 0
        assert tally["refused"] > 0 or tally["parser"] in NEVER_REFUSES


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    done = fuzzed(LONG, "--first", "1000000", "--search", "300")
    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split("\nall")[1].split()[0].replace(",", "")) >= 100_000


# --- the harness itself sees what it looks for ---


def fed(tmp_path: Path, parse: Callable[[Path], object]) -> Tally:
    path = tmp_path / "a.json"
    tally = Tally("one")
    feed(Parser("one", path, [b'{"a": 1}'], raw, lambda: parse(path), path.name), range(3), tally)
    return tally


def refused(text: str) -> Callable[[Path], object]:
    def parse(path: Path) -> object:
        raise JobError(text.format(path=path))

    return parse


def sound(path: Path) -> object:
    assert path.read_bytes() == b"never"


def endless(path: Path) -> object:
    while True:
        pass


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another exception": (lambda path: {}["a"], "KeyError at no frame"),
    "an unsound value": (sound, "AssertionError at no frame"),
    "no end": (endless, "TooLong at no frame"),
    "two lines": (refused("{path} is bad\nvery bad; mend it"), "an error with control characters"),
    "no file": (refused("something is bad; mend it"), "an error that does not name its file"),
    "a novel": (refused("{path} " + "is bad " * 5000), "an error of no length, or of too much"),
}


@pytest.mark.parametrize(("parse", "what"), FAULTS.values(), ids=FAULTS)
def test_the_harness_sees_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parse: Callable[[Path], object], what: str
) -> None:
    monkeypatch.setattr(harness, "SECONDS", 0.1)
    tally = fed(tmp_path, parse)
    assert [name.partition(" (")[0] for name in tally.failures] == [what] and tally.failures.total() == 3
    assert f"3 x one: {what}" in report([tally])


def test_hypothesis_finds_what_fails_and_makes_it_simple(tmp_path: Path) -> None:
    path, tally = tmp_path / "a.json", Tally("one")

    def parse() -> object:
        data = path.read_bytes()
        return {}["a"] if b"9" in data else data

    harness.search(Parser("one", path, [b'{"a": 1}'], raw, parse, path.name), 300, tally)
    assert [*tally.failures] == ["KeyError at no frame"] and tally.accepted > 0


def test_the_harness_counts_what_is_well(tmp_path: Path) -> None:
    good, bad = fed(tmp_path, lambda path: None), fed(tmp_path, refused("{path} is bad; mend it"))
    assert (good.accepted, good.refused, bad.accepted, bad.refused) == (3, 0, 0, 3)
    assert not good.failures and not bad.failures


def test_the_harness_sees_too_much_memory() -> None:
    code = (
        "from pathlib import Path; from tests.fuzz import harness; from tests.fuzz.mutations import raw; "
        "path = Path('a.json'); tally = harness.Tally('one'); harness.limit_memory(); "
        "parser = harness.Parser('one', path, [b'1'], raw, lambda: bytearray(2 * harness.ROOM), path.name); "
        "harness.one(parser, 0, tally); print(dict(tally.failures))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "{'MemoryError at no frame': 1}\n"


def test_a_number_is_the_same_input_for_ever(tmp_path: Path) -> None:
    def inputs() -> list[bytes]:
        seen: list[bytes] = []
        path = tmp_path / "a.json"
        parser = Parser("one", path, [b'{"a": [1, 2]}'], raw, lambda: seen.append(path.read_bytes()), "")
        feed(parser, range(20), Tally("one"))
        return seen

    assert inputs() == inputs() and len(set(inputs())) > 10
