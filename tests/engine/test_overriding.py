"""`--resume RUN --override`: what may change while a training goes on, how it is recorded, and what the run then is."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from metavqa_cli.engine.diffusion import newest_ldm, train_ldm
from metavqa_cli.engine.generators import train_generator
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.resuming import CHANGEABLE
from metavqa_cli.engine.session import Session
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import InterruptedJob, JobError, UsageError
from metavqa_cli.schema.events import Event, Narrated, RunFinished, RunStarted, ValidationMeasured
from metavqa_cli.store import removal, runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import read_header
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.miniature import CPU, session

SLOW = {"ldm": {"epochs": 4, "lr": 1e-3}}


def ldm(here: Session) -> Iterator[Event]:
    return train_ldm(here, miniature.run("hvae", "task", here.workspace))


def finished(here: Session, job: Callable[[Session], Iterator[Event]] = ldm) -> Run:
    last = list(job(here))[-1]
    assert isinstance(last, RunFinished)
    return runs.get(here.workspace, last.run)


def stopped(here: Session, at: int = 2, job: Callable[[Session], Iterator[Event]] = ldm) -> Run:
    """The run of the job, interrupted at step ``at``."""
    name = ""
    with pytest.raises(InterruptedJob):
        for event in job(here):
            name = event.run if isinstance(event, RunStarted) else name
            if isinstance(event, ValidationMeasured) and event.step == at:
                signal.raise_signal(signal.SIGTERM)
    run = runs.get(here.workspace, name)
    assert read_header(run.state_path)["step"] == at
    return run


def overriding(workspace: Workspace, run: Run, **changes: Any) -> Session:
    return replace(session(workspace, resume=run.id, **changes), override=True)


def last_step(run: Run) -> int:
    return [event.step for event in run.events()[0] if isinstance(event, ValidationMeasured)][-1]


def test_an_overridden_run_is_no_plain_run_of_either_configuration(workspace: Workspace) -> None:
    """Nor are its children those of a plain run that later has its id."""

    def hvae(here: Session) -> Iterator[Event]:
        return train_generator(here, miniature.run("baseline", workspace=workspace))

    old, new = {"task_latents": {"epochs": 3, "lr": 3e-3}}, {"task_latents": {"epochs": 4, "lr": 1e-3}}
    run = stopped(session(workspace, **old), job=hvae)
    begun = run.manifest()["key"]
    assert finished(overriding(workspace, run, **new), hvae).id == run.id
    [entry], key = run.overrides(), run.manifest()["key"]
    changes = {"task_latents.epochs": [3, 4], "task_latents.lr": [3e-3, 1e-3]}
    assert (entry["step"], entry["changes"]) == (2, changes)
    assert Narrated("goes on from step 2 with task_latents.epochs = 4 in place of 3, task_latents.lr = 0.001 in place "
                    "of 0.003") in run.events()[0]  # fmt: skip
    header = load_model(run, CPU).header
    assert header["overrides"] == [entry] and header["config"]["task_latents"]["epochs"] == 4
    assert last_step(run) == 4
    plain = [finished(session(workspace, **values), hvae) for values in (old, new)]
    assert [other.manifest()["key"] for other in plain] == [begun, entry["plain_key"]]
    assert run.id not in [other.id for other in plain] and len({begun, key, entry["plain_key"]}) == 3

    child = finished(session(workspace), lambda here: train_ldm(here, run))
    for other in (run, *plain):
        removal.remove(other, force=True)
    again = finished(session(workspace, **old), hvae)
    assert again.id == run.id and again.overrides() == []
    assert finished(session(workspace), lambda here: train_ldm(here, again)).id != child.id


def test_an_overridden_run_is_rather_not_the_newest(workspace: Workspace) -> None:
    run = stopped(session(workspace, **SLOW))
    finished(overriding(workspace, run))  # now in the configuration of the finished one
    assert run.config()["ldm"] == miniature.run("ldm", "weights", workspace).config()["ldm"]
    assert newest_ldm(session(workspace), "task").id != run.id


def test_it_is_trained_with_the_new_values_from_there_on(workspace: Workspace) -> None:
    """A rate of next to nothing leaves the parameters where they were."""
    run = stopped(session(workspace, **SLOW, sampling={"steps": 2}), at=3)
    frozen = {"ldm": {"epochs": 5, "lr": 1e-30, "ema": 1e-6}, "sampling": {"steps": 2}}
    finished(overriding(workspace, run, **frozen))
    steps = [event for event in run.events()[0] if isinstance(event, ValidationMeasured)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5]
    assert steps[3].metrics == steps[4].metrics


def test_an_overridden_run_goes_on_as_it_is(workspace: Workspace) -> None:
    """Stopped once more it needs no option again; told otherwise again, it is refused again."""
    run = stopped(session(workspace, **SLOW))
    assert stopped(overriding(workspace, run, ldm={"epochs": 5, "lr": 1e-3}), at=3).id == run.id
    with pytest.raises(UsageError, match=r"ldm\.epochs was 5 and is now 4.*add --override"):
        next(ldm(session(workspace, resume=run.id, **SLOW)))
    assert finished(session(workspace, resume=run.id, ldm={"epochs": 5, "lr": 1e-3})).id == run.id
    assert len(run.overrides()) == 1 and last_step(run) == 5


def test_with_fewer_steps_than_were_taken_a_run_ends_with_its_best(workspace: Workspace) -> None:
    run = stopped(session(workspace, **SLOW), at=3)
    assert finished(overriding(workspace, run, ldm={"epochs": 2, "lr": 1e-3})).id == run.id
    assert last_step(run) == 3 and run.result() is not None


def test_an_override_that_could_not_be_written_did_not_happen(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(session(workspace, **SLOW))

    def full(*args: Any) -> None:
        raise JobError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "amend", full)
        with pytest.raises(JobError, match="full"):
            list(ldm(overriding(workspace, run, ldm={"epochs": 5, "lr": 1e-3})))
    assert run.config()["ldm"]["epochs"] == 4 and run.overrides() == []
    assert finished(session(workspace, resume=run.id, **SLOW)).id == run.id


@pytest.mark.parametrize(
    ("changes", "found"),
    [({"ldm": {**SLOW["ldm"], "hidden": (8,)}}, "ldm.hidden"), ({"ldm": {**SLOW["ldm"], "ema": 0.0}}, "ldm.ema"),
     ({**SLOW, "seed": 4}, "seed"), ({"ldm": {**SLOW["ldm"], "T": 40, "epochs": 9}}, "ldm.T"),
     ({**SLOW, "sampling": {"steps": 3}}, "sampling.steps"),
     ({**SLOW, "questions": {"descriptors": 0.5}}, "questions.descriptors")],
)  # fmt: skip
def test_what_cannot_be_overridden_is_named(changes: dict[str, Any], found: str, workspace: Workspace) -> None:
    run = stopped(session(workspace, **SLOW))
    with pytest.raises(UsageError, match=f"--override cannot change {found}, which decides"):
        next(ldm(overriding(workspace, run, **changes)))
    assert run.overrides() == [] and run.state() == "interrupted"


def test_another_parent_cannot_be_overridden(workspace: Workspace) -> None:
    run, other = stopped(session(workspace, **SLOW)), miniature.run("hvae", "weights", workspace)
    with pytest.raises(UsageError, match=r"--override cannot change parents\.generator"):
        next(train_ldm(overriding(workspace, run, **SLOW), other))


def test_all_that_may_change_is_in_the_configuration() -> None:
    sections = Config().model_dump()
    assert [(name, key) for name, keys in CHANGEABLE.items() for key in keys if key not in sections[name]] == []
