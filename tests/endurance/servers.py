"""What runs for days: ``python -m tests.endurance.servers [--questions 5000] [--polls 10000]`` prints a table.

`metavqa ask -` in a process of its own, asked one question after the other; and what the dashboard does while it is
left open: reading runs and curves of a workspace that others write to.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from metavqa_cli.schema.events import RunStarted, StepLogged, ValidationMeasured
from metavqa_cli.store import removal, runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.curve_book import CurveBook, Wish
from metavqa_cli.tui.feed import RunsFeed
from tests import miniature
from tests.endurance.meter import Meter, Sample, after, handles, resident, risen, settled, slope

QUESTIONS, POLLS, SAMPLES = 5_000, 10_000, 50
THINGS = ("car", "kite", "house", "tree", "boat", "dog", "balloon", "ball")
WORDS = 50  # numbers that are asked for: the tokenizer remembers each new word, in 460 bytes
POINT_BYTES = 3 * 24  # of the curves, which a dashboard keeps: steps, values and averages of three metrics
RISE = 4 << 20


def asked(root: Path, images: Sequence[str], questions: int = QUESTIONS) -> list[Sample]:
    """What `ask -` holds while it answers so many different questions."""
    command = [sys.executable, "-m", "metavqa_cli", "-q", "-w", str(root), "ask", "-", *images, "--answers", "red,blue",
               "--format", "jsonl"]  # fmt: skip
    samples = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for number in range(1, questions + 1):
            question = f"What color is the {THINGS[number % len(THINGS)]} number {number % WORDS}?"
            process.stdin.write(f"{question}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert question in answer, answer
            if number % max(1, questions // SAMPLES) == 0:
                samples.append(Sample(number, resident(process.pid), 0, *handles(process.pid)))
        process.stdin.close()
        assert process.wait() == 0
    return samples


def _made(workspace: Workspace, seed: int) -> Run:
    run = runs.create(workspace, "ldm", runs.run_key("ldm", {"seed": seed}, {}, "f"), {"seed": seed}, {},
                      {"name": "made", "fingerprint": "f"})  # fmt: skip
    run.append(RunStarted(run.id, "ldm", POLLS))
    return run


def polled(workspace: Workspace, polls: int = POLLS) -> list[Sample]:
    """What a process holds that reads runs and curves so many times, while logs grow and runs come and go."""
    shown = [_made(workspace, seed) for seed in range(4)]
    feed, book, meter, passing = RunsFeed(workspace), CurveBook(workspace), Meter(), _made(workspace, 4)
    book.follow(tuple(run.id for run in shown))
    with settled():
        for poll in range(1, polls + 1):
            run = shown[poll % len(shown)]
            run.append(StepLogged(poll, {"loss": 1 / poll, "lr": 1e-3}))
            if poll % 10 == 0:
                run.append(ValidationMeasured(poll, {"accuracy": 50.0}))
            if poll % 50 == 0:  # a run ends and is removed, another one begins
                passing.finish({"validation": {"accuracy": 1.0}})
                removal.remove(passing)
                passing = _made(workspace, 4 + poll)
            views = feed.read(2e9)
            book.read()
            picture = book.picture(Wish(poll, weight=0.9))
            assert len(views) == 5 and picture.lines[poll % len(shown)].step == poll, (poll, views)
            if poll % max(1, polls // SAMPLES) == 0:
                meter.take(poll)
    return meter.samples


def line(name: str, samples: Sequence[Sample]) -> str:
    """A row of the table, without the first quarter."""
    steady = after(samples, samples[-1].steps // 4)
    files, threads = (
        "–".join(map(str, sorted({getattr(one, what) for one in steady}))) for what in ("files", "threads")
    )
    return (f"{name:28} {samples[-1].steps:7,} {samples[-1].rss / 1e6:7,.0f} MB  RSS {slope(steady, 'rss')!s:32} a "
            f"thousand, rise {risen(steady, 'rss') / 1e3:+,.0f} kB, blocks {slope(steady, 'blocks')!s:24} "
            f"files {files} threads {threads}")  # fmt: skip


def assert_flat(samples: Sequence[Sample], points: int = 0) -> None:
    """No more memory than ``RISE`` and what so many points take, no more files or threads than after the warm-up."""
    steady = after(samples, samples[-1].steps // 4)
    assert risen(steady, "rss") < RISE + POINT_BYTES * points, line("grows", samples)
    assert len({(one.files, one.threads) for one in steady}) == 1, line("opens", samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--polls", type=int, default=POLLS)
    given = parser.parse_args()
    images = [str(miniature.dataset().image_path(image)) for image in miniature.dataset().tasks.image_ids()[:2]]
    print(line("metavqa ask -, questions", asked(miniature.finished().root, images, given.questions)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(line("dashboard, polls", polled(Workspace(Path(folder)), given.polls)))


if __name__ == "__main__":
    main()
