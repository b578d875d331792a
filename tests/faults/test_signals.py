"""Ctrl-C once and twice, and SIGTERM, between file operations and at random: exit code 130, and it goes on."""

import random
import signal
from collections import Counter

import pytest

from tests.faults.cases import Case, cases
from tests.faults.disk import Fault
from tests.faults.server import Ended
from tests.faults.trials import broken_off, moments_of, undisturbed

IN_CI = ("train multitask", "train zoo", "dataset build --source folder", "eval")


def interrupted(case: Case, how: str, nth: int, again: int = 0) -> tuple[Ended, list[str]]:
    """The case with a signal at the ``nth`` change, and once more ``again`` changes later; what was wrong then."""
    done, losses = broken_off(case, fault=Fault(how, nth, again=again))
    return done, losses + _rudeness(done)


def _rudeness(done: Ended) -> list[str]:
    if done.codes not in ([130], [0]) or "Traceback" in done.err:
        return [f"exit codes {done.codes} with {done.err[-400:]}"]
    return [] if done.codes == [0] or "interrupted" in done.err else [f"130 with {done.err[-300:]}"]


@pytest.mark.parametrize("name", IN_CI)
def test_an_interruption_is_exit_code_130_and_the_same_command_goes_on(name: str) -> None:
    case = cases()[name]
    for how, nth in zip(("sigint", "sigterm"), moments_of(undisturbed(name).moments(), 4)[1:3], strict=True):
        done, losses = interrupted(case, how, nth)
        assert not losses, (how, nth, losses)
        assert done.codes == [130], (how, nth, done.err)


def test_the_second_ctrl_c_ends_a_training_at_once() -> None:
    case = cases()["train multitask"]
    nth = undisturbed(case.name).moments()[len(undisturbed(case.name).moments()) // 3]
    done, losses = interrupted(case, "sigint", nth, again=2)
    assert not losses, losses
    assert done.codes == [130] and done.err.endswith("interrupted\n") and "at step" not in done.err, done.err


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", cases())
def test_signals_at_many_moments(name: str, tally: "Counter[tuple[str, str, str]]") -> None:
    case, found = cases()[name], []
    rng = random.Random(name)
    trials: list[tuple[str, Ended, list[str]]] = []
    for how, again in (("sigint", 0), ("sigint", 1), ("sigint", 4), ("sigterm", 0)):
        for nth in moments_of(undisturbed(name).moments(), 3):
            trials.append((f"{how}{' twice' if again else ''}", *interrupted(case, how, nth, again)))
    for number in (signal.SIGINT, signal.SIGTERM):
        delay = rng.uniform(0.05, undisturbed(name).seconds)
        done, losses = broken_off(case, delay=delay, signal=int(number), watched=False)
        trials.append((f"{number.name.lower()} at random", done, losses + _rudeness(done)))
    for how, done, losses in trials:
        tally[name, how, "lost" if losses else "survived"] += 1
        if losses:
            found.append((how, done.codes, done.operations[-3:], losses))
    assert not found, found
