"""An interruption that falls into a finalizer is not lost, and is not shown either."""

import signal
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from metavqa_cli.cli.interrupts import Insistent


class Thing:
    """Something with a finalizer."""


def dropped(then: Callable[[], Any]) -> None:
    """Call ``then`` as the garbage collector calls a finalizer."""
    thing = Thing()
    weakref.finalize(thing, then)
    del thing


def test_it_comes_again_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Insistent():
        dropped(lambda: signal.raise_signal(signal.SIGINT))
        time.sleep(20)
    assert capsys.readouterr().err == ""


def test_it_comes_to_nobody_who_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with Insistent():
        dropped(lambda: signal.raise_signal(signal.SIGINT))
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_other_errors_of_finalizers_are_told_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda met: told.append(met.exc_type))
    usual = sys.unraisablehook
    with Insistent():
        dropped(lambda: 1 / 0)
    assert told == [ZeroDivisionError] and sys.unraisablehook is usual
