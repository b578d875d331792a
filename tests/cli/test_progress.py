"""What a person sees of a running job: bars on a terminal, a line now and then in a log, nothing when quiet."""

from collections.abc import Iterator

import pytest

from metavqa_cli.cli import console, progress
from metavqa_cli.schema.events import (
    CheckpointSaved,
    DatasetBuilt,
    Event,
    Narrated,
    ProgressMade,
    Reused,
    RunFinished,
    RunStarted,
    StepLogged,
    ValidationMeasured,
)

Capture = pytest.CaptureFixture[str]


class Clock:
    """A clock that goes forward by ``tick`` seconds whenever it is read."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def job() -> list[Event]:
    steps = [StepLogged(step, {"loss": 1 / step, "lr": 0.1}) for step in range(1, 11)]
    return [
        Narrated("training on the CPU"), Reused("zoo", "zoo-1"), ProgressMade("drawing images", 5, 10, "images"),
        ProgressMade("drawing images", 10, 10, "images"), DatasetBuilt("scenes", "/w/scenes", {}),
        RunStarted("hvae-1", "hvae", 10), *steps[:5], ValidationMeasured(5, {"accuracy": 0.5}), CheckpointSaved(5),
        *steps[5:], RunFinished("hvae-1", {"accuracy": 0.5}),
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def plain_style() -> None:
    console.configure()


def test_the_outcomes_are_returned_in_order() -> None:
    assert console.follow(job()) == [
        Reused("zoo", "zoo-1"), DatasetBuilt("scenes", "/w/scenes", {}), RunFinished("hvae-1", {"accuracy": 0.5}),
    ]  # fmt: skip


def test_a_short_job_in_a_log_is_its_sentences_only(capsys: Capture) -> None:
    console.follow(job())
    assert capsys.readouterr() == (
        "",
        "training on the CPU\nzoo zoo-1 is already there and is used again\n"
        "dataset scenes is complete in /w/scenes\nrun hvae-1 is finished\n",
    )


def test_a_log_gets_one_line_in_thirty_seconds_with_rate_time_left_and_metrics(capsys: Capture) -> None:
    progress.watch(job()[5:], progress.Plain(clock=Clock(10.0)))
    assert capsys.readouterr().err.splitlines() == [
        "hvae-1: 2/10 steps, 0.1 steps/s, 1 min left, loss 0.5",
        "hvae-1: 5/10 steps, 0.1 steps/s, 50 s left, loss 0.2",
        "hvae-1: 7/10 steps, 0.0875 steps/s, 34 s left, loss 0.143, validation accuracy 0.5",
        "hvae-1: 10/10 steps, 0.0909 steps/s, 0 s left, loss 0.1, validation accuracy 0.5",
        "run hvae-1 is finished",
    ]


def test_a_resumed_run_is_timed_from_where_it_went_on(capsys: Capture) -> None:
    events = [RunStarted("ldm-1", "ldm", 100, resumed_at=90), *[StepLogged(step, {}) for step in (91, 92, 93)]]
    progress.watch(events, progress.Plain(clock=Clock(10.0)))
    assert capsys.readouterr().err == "ldm-1: 92/100 steps, 0.1 steps/s, 1 min left\n"


def test_quiet_shows_nothing_and_returns_the_same(capsys: Capture) -> None:
    loud = console.follow(job())
    capsys.readouterr()
    console.configure(quiet=True)
    assert console.follow(job()) == loud
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_bars_and_the_sentences_above_them(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "is_terminal", lambda stream: stream == "stderr")
    assert len(console.follow(job())) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    for words in ("drawing images", "10/10", "hvae-1", "loss 0.1, validation accuracy 0.5", "run hvae-1 is finished"):
        assert words in captured.err


def test_bars_are_ascii_on_request(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "is_terminal", lambda stream: stream == "stderr")
    console.configure(ascii=True)
    console.follow(job())
    assert capsys.readouterr().err.isascii()


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_in_the_job_passes_and_leaves_no_bar_running(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "is_terminal", lambda stream: terminal and stream == "stderr")

    def fail() -> Iterator[Event]:
        yield RunStarted("hvae-1", "hvae", 10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        console.follow(fail())
    assert console.follow(job()), "a second display would be refused while the first one runs"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations_read_easily(seconds: int, words: str) -> None:
    assert progress.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [(0, "bytes", "0 B"), (999, "bytes", "999 B"), (1000, "bytes", "1.0 kB"), (13_510_573_713, "bytes", "13.5 GB"),
     (13_510_573_713, "images", "13510573713")],
)  # fmt: skip
def test_bytes_are_counted_in_units_that_a_person_reads(count: int, unit: str, text: str) -> None:
    assert progress.amount(count, unit) == text
