"""The thread that owns torch: its states, the newest of a kind wins, and what is no longer wanted really stops."""

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from metavqa_cli.engine import judging
from metavqa_cli.engine.ask import Asker
from metavqa_cli.engine.request import Request
from metavqa_cli.schema.errors import JobError
from metavqa_cli.store import removal, runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui import results
from metavqa_cli.tui.asking import Asking, Cancelled, Checkpoint, Status, sentence
from tests import miniature
from tests.cli.terminal import python
from tests.miniature import session

PATIENCE = 60.0
QUESTION = "What color is the umbrella?"
ANSWERS = ("red", "blue", "green")


@pytest.fixture(autouse=True)
def quick_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)


@pytest.fixture(scope="module")
def opened() -> Asker:
    here = session(miniature.finished())
    here.__dict__["encoder"] = miniature.encoder()
    return Asker(here, miniature.run("ldm", "task"))


@pytest.fixture
def asking(opened: Asker) -> Asking:
    """One whose HyperLDM is there at once."""
    return Asking(miniature.finished(), open_asker=lambda *_: opened)


class Outcome:
    """What came of one submitted work."""

    def __init__(self) -> None:
        self.value: Any = None
        self._came = threading.Event()

    def __call__(self, value: Any) -> None:
        assert not self._came.is_set(), "an outcome comes once"
        self.value = value
        self._came.set()

    def wait(self) -> Any:
        assert self._came.wait(PATIENCE), "no outcome came"
        return self.value


def submit(asking: Asking, work: Callable[[Asker, Checkpoint], Any], kind: str = "ask", **how: Any) -> Outcome:
    outcome = Outcome()
    asking.submit(work, outcome, kind, **how)
    return outcome


class Gate:
    """A work that says when it has begun, and goes on when it may."""

    def __init__(self) -> None:
        self.begun, self.may = threading.Event(), threading.Event()

    def __call__(self, asker: Asker, checkpoint: Checkpoint) -> str:
        self.begun.set()
        assert self.may.wait(PATIENCE)
        checkpoint()
        return "through"


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.may.set()


# States


def test_the_newest_finished_ldm_is_loaded_in_its_own_configuration() -> None:
    asking, seen = Asking(miniature.finished()), []
    asking.listen(lambda status: seen.append(status.state))
    assert asking.status == Status("cold") and not asking.busy
    asking.load()
    sampling = submit(asking, lambda asker, _: asker.ldm.sampler.sampling).wait()
    assert sampling.steps == miniature.VALUES["sampling"]["steps"]
    newest = runs.newest(miniature.finished(), "ldm")
    assert newest is not None and asking.status.state == "ready"
    assert seen == ["loading", "ready"]


def test_a_named_run_is_loaded_and_another_one_in_its_place() -> None:
    asking = Asking(miniature.finished())
    for variant in ("weights", "task"):
        run = miniature.run("ldm", variant)
        asking.load(run.id)
        assert submit(asking, lambda asker, _: asker.ldm.run.id).wait() == run.id
        assert asking.status == Status("ready", run.id)


def test_what_is_already_loaded_is_not_loaded_again(opened: Asker) -> None:
    loads: list[str | None] = []
    asking = Asking(miniature.finished(), open_asker=lambda _, run, __: loads.append(run) or opened)  # type: ignore[func-returns-value]
    for run in (None, None, opened.ldm.run.id):
        asking.load(run)
        submit(asking, lambda *_: None).wait()
    assert loads == [None]


def test_torch_that_cannot_be_imported_is_said_and_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(miniature.finished())
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "metavqa_cli.engine.ask", None)  # an import of it raises ImportError
        asking.load()
        error = submit(asking, lambda *_: "never").wait()
    assert isinstance(error, JobError) and "torch cannot be imported" in str(error)
    assert asking.status.state == "failed" and asking.status.reason == str(error)
    asking.load()
    assert submit(asking, lambda *_: "now").wait() == "now"
    assert asking.status.state == "ready"


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError("libtorch.so: cannot open shared object file"), "libtorch.so"), (MemoryError("12 GB"), "out of memory"),
     (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
     (ZeroDivisionError("division by zero"), "unexpected ZeroDivisionError (division by zero)")],
)  # fmt: skip
def test_whatever_loading_raises_is_a_sentence(error: Exception, words: str) -> None:
    def fail(*_: Any) -> Asker:
        raise error

    asking = Asking(miniature.finished(), open_asker=fail)
    asking.load()
    came = submit(asking, lambda *_: "never").wait()
    assert isinstance(came, JobError) and words in asking.status.reason


def test_a_workspace_without_an_ldm_says_how_to_get_one(tmp_path: Path) -> None:
    asking = Asking(Workspace(tmp_path))
    asking.load()
    error = submit(asking, lambda *_: "never").wait()
    assert "there is no finished HyperLDM" in str(error) and "metavqa train ldm" in asking.status.reason


def test_a_deleted_run_or_parent_is_named(tmp_path: Path) -> None:
    workspace = miniature.copy(tmp_path / "workspace")
    run = miniature.run("ldm", "task")
    generator = run.manifest()["parents"]["generator"]
    removal.remove(runs.get(workspace, generator), force=True)
    asking = Asking(workspace)
    asking.load(run.id)
    assert generator in str(submit(asking, lambda *_: "never").wait())
    removal.remove(runs.get(workspace, run.id), force=True)
    asking.load(run.id)
    assert f"there is no run {run.id!r}" in str(submit(asking, lambda *_: "never").wait())


def test_a_dataset_that_is_deleted_after_loading_is_still_known(tmp_path: Path) -> None:
    workspace = miniature.copy(tmp_path / "workspace")
    asking = Asking(workspace)
    asking.load()
    submit(asking, lambda *_: None).wait()
    shutil.rmtree(workspace.dataset_dir(miniature.NAME))
    answer = submit(asking, lambda asker, _: asker.ask(Request(QUESTION))).wait()
    assert answer.nearest and len(answer.classifier.answers) > 1


# The queue


def test_a_newer_work_of_a_kind_takes_the_place_of_one_that_waits(asking: Asking, gate: Gate) -> None:
    first = submit(asking, gate, "gate")
    assert gate.begun.wait(PATIENCE)
    one, two, other = (submit(asking, lambda *_, n=n: n, kind) for n, kind in ((1, "a"), (2, "a"), (3, "b")))
    assert isinstance(one.wait(), Cancelled)
    gate.may.set()
    assert (first.wait(), two.wait(), other.wait()) == ("through", 2, 3)


def test_a_newer_work_cancels_the_running_one_of_its_kind(asking: Asking, gate: Gate) -> None:
    old = submit(asking, gate)
    assert gate.begun.wait(PATIENCE)
    new = submit(asking, lambda *_: "new")
    gate.may.set()
    assert isinstance(old.wait(), Cancelled) and new.wait() == "new"


def test_a_scrub_lets_the_running_one_finish(asking: Asking, gate: Gate) -> None:
    old = submit(asking, gate, "scrub", let_finish=True)
    assert gate.begun.wait(PATIENCE)
    new = submit(asking, lambda *_: "new", "scrub", let_finish=True)
    gate.may.set()
    assert (old.wait(), new.wait()) == ("through", "new")


def test_cancelling_ends_what_runs_and_drops_what_waits_of_that_kind_alone(asking: Asking, gate: Gate) -> None:
    running = submit(asking, gate, "gate")
    assert gate.begun.wait(PATIENCE)
    waiting, kept = submit(asking, lambda *_: 1, "waiting"), submit(asking, lambda *_: 2, "kept")
    asking.cancel("waiting")
    assert isinstance(waiting.wait(), Cancelled)
    asking.cancel("gate")
    gate.may.set()
    assert isinstance(running.wait(), Cancelled) and kept.wait() == 2


def test_a_work_that_fails_costs_only_itself(asking: Asking) -> None:
    broken = submit(asking, lambda *_: 1 // 0)
    assert "unexpected ZeroDivisionError" in str(broken.wait())
    refused = submit(asking, lambda asker, _: asker.ask(Request(QUESTION, ("red",))))
    assert "at least two different answers" in str(refused.wait())
    assert submit(asking, lambda *_: "fine").wait() == "fine"


def test_an_error_without_words_is_named_by_its_kind() -> None:
    assert "(RuntimeError)" in sentence(RuntimeError())


# Sampling


def test_cancelling_in_the_middle_of_ddpm_stops_the_denoiser_and_leaves_the_asker_as_it_was(
    asking: Asking, opened: Asker
) -> None:
    request = Request(QUESTION, ANSWERS, gamma=1.5, sampler="ddpm")
    before = opened.ask(request).classifier.weights
    steps, tenth, cancelled = 0, threading.Event(), threading.Event()

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 10:
            tenth.set()
            assert cancelled.wait(PATIENCE)

    hook = opened.ldm.sampler.denoiser.register_forward_hook(count)
    try:
        outcome = submit(asking, lambda asker, checkpoint: asker.ask(request, before_step=checkpoint))
        assert tenth.wait(PATIENCE)
        asking.cancel()
        cancelled.set()
        assert isinstance(outcome.wait(), Cancelled)
    finally:
        hook.remove()
    assert steps == 10 < opened.ldm.sampler.schedule.T
    after = submit(asking, lambda asker, checkpoint: asker.ask(request, before_step=checkpoint)).wait()
    assert torch.equal(after.classifier.weights, before)


def test_cancelling_between_two_images_opens_no_more_of_them(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = miniature.dataset()
    files = [folder.image_path(image) for image in folder.tasks.image_ids()[-4:]]
    opened, second, cancelled = list[Path](), threading.Event(), threading.Event()
    usual = judging.open_image

    def opening(path: Path) -> Any:
        opened.append(path)
        if len(opened) == 2:
            second.set()
            assert cancelled.wait(PATIENCE)
        return usual(path)

    monkeypatch.setattr(judging, "open_image", opening)
    monkeypatch.setattr(results, "image_cache", judging.ImageCache)
    outcome = submit(asking, partial(results.generate, request=Request(QUESTION, ANSWERS), files=files))
    assert second.wait(PATIENCE)
    asking.cancel()
    cancelled.set()
    assert isinstance(outcome.wait(), Cancelled) and opened == files[:2]
    result = submit(asking, partial(results.generate, request=Request(QUESTION, ANSWERS), files=files)).wait()
    assert len(result.answer.judgements) == 4


def test_nobody_waits_for_the_thread_when_the_dashboard_is_left(tmp_path: Path) -> None:
    script = """
import asyncio, threading
from pathlib import Path
from metavqa_cli.tui.app import make_app
from metavqa_cli.tui.asking import Asking

begun = threading.Event()

def forever(*_):
    begun.set()
    threading.Event().wait()

async def main():
    app = make_app(Path("nothing"), room="ask", asking=lambda workspace, dataset: Asking(workspace, dataset, forever))
    async with app.run_test() as pilot:
        while not begun.is_set():
            await asyncio.sleep(0.01)
        await pilot.press("escape", "q")
    print("left with", app.return_code)

asyncio.run(main())
"""
    done = python("-c", script, cwd=tmp_path)  # which gives up after a minute
    assert done.out == "left with 0\n", done.err


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_the_thread_survives_whatever_a_work_or_a_receiver_raises(asking: Asking, error: BaseException) -> None:
    def fail(*_: Any) -> None:
        raise error

    assert isinstance(submit(asking, fail, "a").wait(), JobError)
    asking.submit(lambda *_: 1, lambda _: 1 // 0, "b")
    assert submit(asking, lambda *_: "fine", "c").wait() == "fine"
