"""SIGKILL and power cuts between file operations, inside writes, and at random: nothing that was finished is lost.

The long form takes every such moment of the small commands and many of the others, and prints its count.
"""

import random
import zlib
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.cases import Case, cases
from tests.faults.disk import Fault
from tests.faults.trials import KILLED, broken_off, kill, moments_of, undisturbed

IN_CI = {  # how many kills, and how many power cuts, of which the last one comes when the command has ended
    "config init": (3, 1), "generate": (3, 1), "runs rm": (4, 1), "dataset rm": (4, 2),
    "dataset build --source folder": (6, 3), "train multitask": (5, 2), "train ldm": (3, 1), "train zoo": (3, 1),
    "dataset download": (3, 1),
}  # fmt: skip
MANY = 1000  # more than any command has moments
IN_THE_NIGHT = {
    "config init": 9, "generate": 10, "runs rm": 10, "dataset rm": 30, "dataset build --source folder": 40,
    "dataset build": 8, "dataset build --force": 8, "train ldm --with-parents": 10, "eval cells": 8, "quickstart": 4,
    "train multitask": 25, "train ldm": 25, "train zoo": 20, "eval": 16, "dataset download": 40,
}  # fmt: skip
OTHERWISE = 8


def moments(case: Case, count: int, seed: int = 0, how: str = "kill") -> list[int]:
    """``count`` of the moments at which this makes a difference, others for other commands and seeds."""
    alone = undisturbed(case.name)
    changes, worth = alone.changes(), alone.moments()
    if how == "torn":
        worth = [moment for moment in worth if changes[moment].startswith("write")]
    return moments_of(worth, count, zlib.crc32(f"{case.name}/{seed}".encode()))


@pytest.mark.parametrize("name", IN_CI)
def test_what_is_killed_goes_on_and_ends_as_if_nothing_had_happened(name: str) -> None:
    case = cases()[name]
    for i, moment in enumerate(moments(case, IN_CI[name][0])):
        done, losses = broken_off(case, fault=kill(moment, "torn" if i % 2 else "kill"))
        assert done.codes == [KILLED], (moment, done)
        assert not losses, (moment, done.operations[-2:], losses)


@pytest.mark.parametrize("name", IN_CI)
def test_a_power_cut_takes_nothing_that_was_finished(name: str) -> None:
    case = cases()[name]
    before_the_end = moments(case, IN_CI[name][1] - 1, seed=1)
    for moment in [*before_the_end, MANY * MANY]:
        done, losses = broken_off(case, fault=kill(moment, "power"))
        assert done.codes[-1] == KILLED, (moment, done)
        assert not losses, (moment, done.operations[-2:], losses)


def test_a_kill_at_any_time_is_survived() -> None:
    case = cases()["train ldm"]
    for share in (0.5, 0.9):
        done, losses = broken_off(case, delay=share * undisturbed(case.name).seconds, watched=False)
        assert done.codes in ([KILLED], [0]) and not losses, (share, losses)


def _faults(case: Case) -> Iterator[tuple[str, dict[str, object]]]:
    """What the long form does to a command: the name of the fault, and how it is made."""
    count = IN_THE_NIGHT.get(case.name, OTHERWISE)
    for how, part in (("kill", count), ("torn", count // 3), ("power", count // 2)):
        for moment in moments(case, part, seed=2, how=how):
            yield how, {"fault": kill(moment, how)}
    yield "power at the end", {"fault": Fault("power", MANY * MANY)}
    rng = random.Random(case.name)
    for _ in range(1 + count // 6):
        yield "kill at random", {"delay": rng.uniform(0, undisturbed(case.name).seconds), "watched": False}


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", cases())
def test_hundreds_of_kills_and_not_one_loss(name: str, tally: "Counter[tuple[str, str, str]]") -> None:
    case, found = cases()[name], []
    for how, request in _faults(case):
        done, losses = broken_off(case, **request)
        hit = done.codes[-1:] == [KILLED]
        tally[name, how, "lost" if losses else "survived" if hit else "ended before"] += 1
        if losses:
            found.append((how, request, done.codes, done.operations[-2:], losses))
    assert not found, found
