"""Runs and their parents: equal jobs are done once, unfinished ones go on, and what is missing is named or made."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from metavqa_cli.engine import ensure, models
from metavqa_cli.engine.baselines import train_baseline
from metavqa_cli.engine.diffusion import HyperLdm, newest_ldm, train_ldm
from metavqa_cli.engine.generators import train_generator
from metavqa_cli.engine.lineage import parent_run
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.perform import _lock, perform, sections, started
from metavqa_cli.engine.session import Session, choose_device, torch_explained
from metavqa_cli.engine.zoo import build_zoo
from metavqa_cli.schema.errors import (
    BusyError,
    DeviceError,
    InterruptedJob,
    JobError,
    MetaVQAError,
    MissingError,
    UsageError,
)
from metavqa_cli.schema.events import Event, Narrated, Reused, RunFailed, RunFinished, RunInterrupted, RunStarted
from metavqa_cli.store import locks, removal, runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from tests import miniature, old_format
from tests.miniature import CPU, session


def finished(session: Session, events: Iterator[Event]) -> Run:
    """The run that an engine verb ends with."""
    last = list(events)[-1]
    assert isinstance(last, RunFinished)
    return runs.get(session.workspace, last.run)


def returned(events: Any) -> Any:
    """What an ``ensure_…`` returns."""
    try:
        while True:
            next(events)
    except StopIteration as end:
        return end.value


JOBS: dict[str, Callable[[Session, Workspace], Iterator[Event]]] = {
    "baseline": lambda here, at: train_baseline(here),
    "zoo": lambda here, at: build_zoo(here, miniature.run("baseline", workspace=at)),
    "hvae": lambda here, at: train_generator(here, miniature.run("baseline", workspace=at)),
    "ldm": lambda here, at: train_ldm(here, miniature.run("hvae", "task", at)),
}


@pytest.mark.parametrize("kind", JOBS)
def test_the_same_job_finds_its_finished_run(kind: str, workspace: Workspace) -> None:
    before = workspace.run_ids()
    events = list(JOBS[kind](session(workspace), workspace))
    run = miniature.run(kind, "task" if kind in ("hvae", "ldm") else None, workspace)
    assert events == [Reused(kind, run.id), RunFinished(run.id, run.result() or {})]
    assert workspace.run_ids() == before


@pytest.mark.parametrize("kind", JOBS)
def test_forced_it_makes_another_run_with_the_same_numbers(kind: str, workspace: Workspace) -> None:
    old = miniature.run(kind, "task" if kind in ("hvae", "ldm") else None, workspace)
    run = finished(session(workspace), JOBS[kind](session(workspace, force=True), workspace))
    assert run.id == f"{old.id}-2"
    assert run.result() == old.result()
    one, two = load_model(old, CPU).tensors, load_model(run, CPU).tensors
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("kind", "change"),
    [("baseline", {"baseline": {"epochs": 2}}), ("baseline", {"base_network": {"hidden": 4}}),
     ("zoo", {"zoo": {"steps": 2}}), ("hvae", {"task_latents": {"z_noise": 0.25}}), ("hvae", {"hvae": {"latent": 3}}),
     ("ldm", {"ldm": {"epochs": 5}}), ("ldm", {"seed": 1}), ("ldm", {"sampling": {"steps": 3}})],
)  # fmt: skip
def test_another_configuration_is_another_run(kind: str, change: dict[str, Any], workspace: Workspace) -> None:
    events = JOBS[kind](session(workspace, **change), workspace)
    first = next(events)
    assert isinstance(first, RunStarted)
    assert first.run not in miniature.finished().run_ids()


def test_where_it_runs_is_no_part_of_what_it_is(workspace: Workspace) -> None:
    elsewhere = session(workspace, runtime={"device": "cpu", "threads": 0, "checkpoint_seconds": 0.5, "workers": 2})
    assert isinstance(next(train_baseline(elsewhere)), Reused)


def test_a_finished_run_is_found_behind_an_unfinished_newer_one(workspace: Workspace) -> None:
    """As `--force` leaves it after Ctrl-C."""
    next(events := train_baseline(session(workspace, force=True)))
    events.close()  # type: ignore[attr-defined]
    assert len([name for name in workspace.run_ids() if name.startswith("baseline")]) == 2
    assert next(train_baseline(session(workspace))) == Reused("baseline", miniature.run("baseline").id)


MISSING: list[tuple[str, Callable[[Session], Any], str]] = [
    ("ask without anything", lambda here: ensure.newest_ldms(here), "`metavqa train ldm --with-parents`"),
    ("ldm", newest_ldm, "`metavqa train ldm --with-parents`"),
    ("generator", lambda here: returned(ensure.ensure_generator(here, "task", None, False)),
     "`metavqa train hvae --objective task`"),
    ("init", lambda here: returned(ensure.ensure_init(here, None, False)),
     "`metavqa train baseline --method multitask`"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "job", "command"), MISSING, ids=[case[0] for case in MISSING])
def test_a_missing_parent_is_named_with_its_command(
    what: str, job: Callable[[Session], Any], command: str, without_runs: Workspace
) -> None:
    with pytest.raises(MissingError, match="there is no finished") as missing:
        job(session(without_runs))
    assert command in str(missing.value) and "'mini'" in str(missing.value)
    assert missing.value.exit_code == 3


def test_a_missing_zoo_is_named_with_its_command(workspace: Workspace) -> None:
    removal.remove(miniature.run("zoo", workspace=workspace), force=True)
    here = session(workspace, hvae={"objective": "weights"})
    with pytest.raises(MissingError, match=r"there is no zoo .*`metavqa train zoo`, or add --with-parents"):
        list(JOBS["hvae"](here, workspace))


def test_a_missing_dataset_is_named_with_its_command(workspace: Workspace) -> None:
    (workspace.dataset_dir("mini") / "dataset.json").unlink()
    for job in (train_baseline, newest_ldm):
        with pytest.raises(MissingError, match=r"there is no dataset 'mini'.*`metavqa dataset build`"):
            list(job(session(workspace)))


@pytest.mark.parametrize(
    ("objective", "kinds"), [("task", ["baseline", "hvae", "ldm"]), ("weights", ["baseline", "hvae", "ldm", "zoo"])]
)
def test_with_parents_makes_what_is_missing_and_nothing_else(
    objective: str, kinds: list[str], without_runs: Workspace
) -> None:
    here = session(without_runs, hvae={"objective": objective})
    model = returned(ensure.made_ldm(here, ensure.usual_generator(here)))
    assert sorted(run.kind for run in runs.list_runs(without_runs)) == kinds
    assert model.state() == "finished" and model.manifest()["variant"] == objective
    assert {run.id for run in runs.list_runs(without_runs)} <= set(miniature.finished().run_ids())
    assert returned(ensure.made_ldm(here, ensure.usual_generator(here))).id == model.id
    assert len(runs.list_runs(without_runs)) == len(kinds)


def test_forcing_a_job_does_not_force_its_parents(workspace: Workspace) -> None:
    removal.remove(miniature.run("ldm", "task", workspace), force=True)
    before = set(workspace.run_ids())
    made = returned(ensure.made_ldm(session(workspace, force=True), "task"))
    assert set(workspace.run_ids()) - before == {made.id}


def test_a_parent_that_was_removed_is_named(workspace: Workspace) -> None:
    model = miniature.run("ldm", "task", workspace)
    parent = parent_run(model, "generator")
    removal.remove(parent, force=True)
    with pytest.raises(MissingError, match=f"run {model.id} was made from generator '{parent.id}', which is gone"):
        HyperLdm(model, CPU, miniature.config().sampling)


def test_a_run_of_another_kind_dataset_or_configuration_is_refused(workspace: Workspace) -> None:
    here, baseline = session(workspace), miniature.run("baseline", workspace=workspace)
    with pytest.raises(UsageError, match=rf"run {baseline.id} \(multitask\) is no generator"):
        returned(ensure.ensure_generator(here, "task", baseline.id, False))
    with pytest.raises(UsageError, match=f"run {baseline.id} was made with another configuration"):
        returned(ensure.ensure_init(session(workspace, base_network={"hidden": 4}), baseline.id, False))
    manifest = workspace.dataset_dir("mini") / "dataset.json"
    old_format.rewrite(manifest, fingerprint="0" * 16)
    with pytest.raises(UsageError, match=f"run {baseline.id} was made from the dataset 'mini' .* as it is now"):
        returned(ensure.ensure_init(here, baseline.id, False))
    with pytest.raises(MissingError, match="no finished multitask initialisation"):
        returned(ensure.ensure_init(here, None, False))


def unfinished(here: Session, error: BaseException | None = None) -> Run:
    """A run of the ldm job that has started and, maybe, ended with ``error``."""

    def work(run: Run) -> Iterator[Event]:
        yield started(run, 10)
        if error is not None:
            raise error

    parents = {"generator": miniature.run("hvae", "task", here.workspace)}
    events = perform(here, "ldm", parents, {"variant": "task"}, work)
    first = next(events)
    assert isinstance(first, RunStarted)
    if error is None:
        events.close()  # type: ignore[attr-defined]
    else:
        with pytest.raises(BaseException) as raised:
            list(events)
        assert raised.value is error or raised.value.__cause__ is error
    return runs.get(here.workspace, first.run)


@pytest.mark.parametrize(
    ("error", "state", "event"),
    [(JobError("the loss is odd"), "failed", RunFailed), (ZeroDivisionError("a bug"), "failed", RunFailed),
     (InterruptedJob("stopped"), "interrupted", RunInterrupted), (KeyboardInterrupt(), "interrupted", RunInterrupted),
     (None, "interrupted", RunInterrupted)],
)  # fmt: skip
def test_how_a_run_ended_is_on_record_and_it_goes_on(
    error: BaseException | None, state: str, event: type[Event], workspace: Workspace
) -> None:
    here = session(workspace, ldm={"epochs": 2})
    run = unfinished(here, error)
    assert run.state() == state
    assert isinstance(run.events()[0][-1], event)
    again = finished(here, JOBS["ldm"](here, workspace))
    assert again.id == run.id and again.state() == "finished"
    assert not again.state_path.exists()


def test_resume_goes_on_with_exactly_that_run(workspace: Workspace) -> None:
    """Two unfinished runs of one configuration: the older one is named."""
    forced = session(workspace, force=True, ldm={"epochs": 2})
    older, newer = unfinished(forced), unfinished(forced)
    assert older.id != newer.id
    here = session(workspace, resume=older.id, ldm={"epochs": 2})
    assert finished(here, JOBS["ldm"](here, workspace)).id == older.id
    assert newer.state() == "interrupted"


def test_resume_refuses_a_finished_run_and_another_configuration(workspace: Workspace) -> None:
    done = miniature.run("ldm", "task", workspace)
    with pytest.raises(UsageError, match=f"run {done.id} is finished already; `metavqa runs show {done.id}`"):
        next(JOBS["ldm"](session(workspace, resume=done.id), workspace))
    run = unfinished(session(workspace, ldm={"epochs": 2, "gamma": 1.5}))
    told_otherwise = session(workspace, resume=run.id, ldm={"epochs": 9})
    with pytest.raises(UsageError, match=r"ldm\.epochs was 2 and is now 9; ldm\.gamma was 1\.5 and is now None"):
        next(JOBS["ldm"](told_otherwise, workspace))
    assert run.state() == "interrupted"


def test_what_another_version_wrote_is_made_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    here = session(workspace)
    old = finished(here, train_baseline(here))
    assert isinstance(next(train_baseline(here)), Reused)
    monkeypatch.setattr(models, "MODEL_VERSION", models.MODEL_VERSION + 1)
    assert finished(here, train_baseline(here)).id != old.id
    with pytest.raises(JobError, match=f"train it again \\(`metavqa runs rm {old.id} --force` removes it\\)"):
        load_model(old, CPU)


@pytest.mark.parametrize(
    ("kind", "same", "other"),
    [("hvae", {"hvae": {"objective": "weights"}, "task_latents": {"weight_decay": 0.7}},
      {"hvae": {"objective": "weights", "kl_weight": 0.7}}),
     ("hvae", {"hvae": {"objective": "task", "kl_weight": 0.7}},
      {"hvae": {"objective": "task"}, "task_latents": {"weight_decay": 0.7}}),
     ("identify", {"eval": {"bootstrap": 999}}, {"eval": {"few_shot_steps": 9}})],
)  # fmt: skip
def test_a_run_depends_on_what_it_reads(kind: str, same: dict[str, Any], other: dict[str, Any]) -> None:
    def own(**changes: Any) -> Any:
        return sections(miniature.config(**changes), kind)

    base = own(hvae={"objective": same.get("hvae", {}).get("objective", "task")})
    assert own(**same) == base != own(**other)


def test_a_run_that_is_busy_is_not_touched(workspace: Workspace) -> None:
    here = session(workspace, ldm={"epochs": 2})
    run = unfinished(here)
    with run.lock(), pytest.raises(BusyError, match=f"run {run.id} is in use by process"):
        list(JOBS["ldm"](here, workspace))


def test_a_run_that_is_removed_between_its_choice_and_its_lock_is_made_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = session(workspace, ldm={"epochs": 2})
    run, taken = unfinished(here), list[str]()
    original = _lock

    def lock(chosen: Run, *how: Any) -> Any:
        if not taken:
            removal.remove(chosen)
        taken.append(chosen.id)
        return original(chosen, *how)

    monkeypatch.setattr("metavqa_cli.engine.perform._lock", lock)
    list(JOBS["ldm"](here, workspace))
    assert taken == [run.id, run.id] and run.state() == "finished"
    assert run.manifest()["id"] == run.id


def test_a_run_whose_parent_is_being_removed_is_not_begun(workspace: Workspace) -> None:
    here = session(workspace, ldm={"epochs": 2})
    run = unfinished(here)
    parent = Run(run.path.with_name(run.manifest()["parents"]["generator"]))
    with parent.lock(), pytest.raises(BusyError, match=f"run {parent.id}, which {run.id} is made from, is in use"):
        list(JOBS["ldm"](here, workspace))


def test_who_takes_a_run_over_from_a_killed_process_says_so_once(workspace: Workspace) -> None:
    here = session(workspace, ldm={"epochs": 2})
    run = unfinished(here)
    owner = {"pid": 2**30, "host": socket.gethostname(), "since": 1.0}
    locks.sidecar(run.lock_path).write_text(json.dumps(owner))
    said = [event.message for event in JOBS["ldm"](here, workspace) if isinstance(event, Narrated)]
    expected = f"took over run {run.id} from process {2**30} on {socket.gethostname()}, which was killed"
    assert said.count(expected) == 1
    assert not any("took over" in event.message for event in JOBS["ldm"](here, workspace)
                   if isinstance(event, Narrated))  # fmt: skip


def test_one_that_waits_for_a_busy_run_says_so_first(workspace: Workspace) -> None:
    here = replace(session(workspace, ldm={"epochs": 2}), patience=0.5)
    run = unfinished(here)
    with run.lock():
        events = JOBS["ldm"](here, workspace)
        waiting = next(events)
        assert isinstance(waiting, Narrated)
        assert waiting.message.startswith(f"waiting for run {run.id}, which is in use by process {os.getpid()} on ")
        with pytest.raises(BusyError):
            next(events)


def test_a_run_that_another_process_finished_meanwhile_is_reused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = session(workspace, ldm={"epochs": 2})
    run = unfinished(here)

    @contextmanager
    def finished_by_another(self: Run, patience: float) -> Iterator[None]:
        self.finish({"by": "another"})
        yield

    monkeypatch.setattr(Run, "lock", finished_by_another)
    assert list(JOBS["ldm"](here, workspace)) == [Reused("ldm", run.id), RunFinished(run.id, {"by": "another"})]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
     torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), RuntimeError("MPS backend out of memory")],
)  # fmt: skip
def test_too_little_memory_is_a_device_error(error: Exception, workspace: Workspace) -> None:
    run = unfinished(session(workspace, ldm={"epochs": 2}), error)
    failed = run.events()[0][-1]
    assert isinstance(failed, RunFailed) and failed.message.startswith("out of memory (")
    with pytest.raises(DeviceError, match=r"out of memory \(.*\); make the batch") as found, torch_explained():
        raise error
    assert found.value.exit_code == 4


def test_other_errors_are_not_taken_for_too_little_memory() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), torch_explained():
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "toaster"])
def test_a_device_that_is_not_there_is_a_device_error(name: str) -> None:
    if name != "toaster" and torch.device(name).type == choose_device("auto").type:
        pytest.skip(f"this machine has {name}")
    with pytest.raises(DeviceError, match=f"the device '{name}' cannot be used .*use --device auto or cpu") as found:
        choose_device(name)
    assert found.value.exit_code == 4


def test_unfinished_and_damaged_models_are_refused(workspace: Workspace) -> None:
    run = unfinished(session(workspace, ldm={"epochs": 2}))
    with pytest.raises(
        MissingError, match=f"interrupted, not finished; finish it with `metavqa train ldm --resume {run.id}`"
    ):
        load_model(run, CPU)
    model = miniature.run("hvae", "task", workspace)
    whole = model.model_path.read_bytes()
    for damaged, words in (
        (whole[:-9], "is truncated"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "checksum"),
        (b"x" * 99, "truncated|not a"),
    ):
        model.model_path.write_bytes(damaged)
        with pytest.raises(MetaVQAError, match=words) as found:
            load_model(model, CPU)
        assert found.value.exit_code == 1 and f"`metavqa runs rm {model.id}" in str(found.value)
