"""Of works that come while one is busy, only the newest is done."""

import threading
import time

import pytest

from metavqa_cli.tui.newest import Newest

PATIENCE = 60.0


def test_the_newest_is_done_and_the_others_never() -> None:
    newest, done = Newest("test"), list[int]()
    begun, may, last = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        assert may.wait(PATIENCE)
        done.append(0)

    def final() -> None:
        done.append(9)
        last.set()

    newest.do(first)
    assert begun.wait(PATIENCE) and newest.busy
    for number in range(1, 9):
        newest.do(lambda number=number: done.append(number))  # type: ignore[misc]
    newest.do(final)
    may.set()
    assert last.wait(PATIENCE) and done == [0, 9]


def test_a_work_that_fails_keeps_nobody_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[object]()
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))
    newest, begun, may, came = Newest("test"), threading.Event(), threading.Event(), threading.Event()
    error = ValueError("odd")

    def fail() -> None:
        begun.set()
        assert may.wait(PATIENCE)
        raise error

    newest.do(fail)
    assert begun.wait(PATIENCE)
    newest.do(came.set)
    may.set()
    assert came.wait(PATIENCE), "what came while it failed"
    again = threading.Event()
    newest.do(again.set)
    assert again.wait(PATIENCE), "what came later"
    end = time.monotonic() + PATIENCE
    while told != [error] and time.monotonic() < end:
        time.sleep(0.001)
    assert told == [error], "as threads tell their errors"


def test_it_can_be_used_again_when_it_is_done() -> None:
    newest = Newest("test")
    for _ in range(3):
        came = threading.Event()
        newest.do(came.set)
        assert came.wait(PATIENCE)
