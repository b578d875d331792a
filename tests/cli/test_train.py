"""`metavqa train`: what a person types, from the first training to the resumed one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from metavqa_cli.schema.events import CheckpointSaved, RunInterrupted, RunStarted
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.terminal import ROOT, Done, Terminal
from tests.miniature import OPTIONS

RECORD = {"run", "kind", "variant", "parents", "result"}


@pytest.fixture(autouse=True)
def encoder_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature.ENCODER, miniature.loaded_encoder)


@pytest.fixture
def bare(workspace: Workspace) -> Workspace:
    """The terminal's workspace with the miniature's dataset and no run."""
    return miniature.copy(workspace.root, with_runs=False)


@pytest.fixture
def full(workspace: Workspace) -> Workspace:
    """The terminal's workspace with the finished miniature."""
    return miniature.copy(workspace.root)


def record(done: Done) -> dict[str, object]:
    assert done.code == 0, done.err
    made = json.loads(done.out)
    assert made.keys() == RECORD
    return dict(made)


def test_the_chain_of_commands_makes_the_runs_of_quickstart(metavqa: Terminal, bare: Workspace) -> None:
    made = [
        record(metavqa("train", *command, *OPTIONS, "--json"))
        for command in (
            ["baseline", "--method", "multitask"], ["zoo"], ["hvae", "--objective", "weights"], ["ldm", "--on", "hvae"],
            ["hvae", "--objective", "task"], ["ldm", "--on", "task"],
        )
    ]  # fmt: skip
    expected = {run.id: run.result() for run in runs.list_runs(miniature.finished()) if run.kind != "eval"}
    assert {str(run["run"]): run["result"] for run in made} == expected
    again = metavqa("train", "ldm", "--on", "task", *OPTIONS)
    assert again.code == 0 and f"ldm {made[-1]['run']} is already there" in again.err
    assert len(bare.run_ids()) == 6


def test_the_owners_command_trains_everything_with_gamma(metavqa: Terminal, bare: Workspace) -> None:
    done = metavqa("train", "ldm", "--gamma", "1.5", "--with-parents", *OPTIONS, "--json")
    made = record(done)
    assert made["result"]["gamma"] == 1.5  # type: ignore[index]
    assert [run.kind for run in runs.list_runs(bare)] == ["baseline", "hvae", "ldm"]
    assert "is finished" in done.err


@pytest.mark.parametrize("method", ["mnet-maml", "mnet-fomaml"])
def test_maml_is_another_initialisation(method: str, metavqa: Terminal, full: Workspace) -> None:
    made = record(metavqa("train", "baseline", "--method", method, "--epochs", "1", *OPTIONS, "--json"))
    assert made["variant"] == method
    assert {"accuracy", "zero_shot_accuracy"} == made["result"]["validation"].keys()  # type: ignore[index]


def test_a_missing_parent_is_one_sentence_with_its_command(metavqa: Terminal, bare: Workspace) -> None:
    done = metavqa("train", "ldm", *OPTIONS)
    assert (done.code, done.out) == (3, "")
    assert done.err == (
        "error: there is no finished generator for dataset 'mini'; train one with "
        "`metavqa train hvae --objective task`, or add --with-parents\n"
    )


def test_a_dataset_brings_its_own_configuration(metavqa: Terminal, bare: Workspace) -> None:
    """It need not be said again how the dataset was built, and it cannot be said otherwise."""
    brief = ["--set", "base_network.hidden=4", "--epochs", "1", "--dataset", "mini"]
    made = record(metavqa("train", "baseline", *brief, "--json"))
    config = runs.get(bare, str(made["run"])).config()
    built = miniature.dataset().manifest["recipe"]["dataset"]
    assert {key: config["dataset"].get(key) for key in built} == built
    done = metavqa("train", "baseline", *brief, "--set", "dataset.images=5000")
    assert (done.code, done.out) == (2, "")
    assert "the dataset 'mini' was built with dataset.images = 1500, not 5000 (from --set)" in done.err
    assert "`metavqa dataset build --name NEW`" in done.err


def interrupted(workspace: Workspace, kind: str = "ldm") -> Run:
    """The newest unfinished run."""
    found = runs.newest(workspace, kind, finished=False, match=lambda run: run.state() != "finished")
    assert found is not None
    return found


@pytest.fixture
def stopped(metavqa: Terminal, full: Workspace, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A HyperLDM that Ctrl-C stopped after its second step."""
    from metavqa_cli.engine import loop

    real = loop._step

    def step(*args: object) -> object:
        if args[-1] == 1:
            signal.raise_signal(signal.SIGINT)
        return real(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", step)
        done = metavqa("train", "ldm", "--epochs", "8", "--seed", "3", *OPTIONS)
    run = interrupted(full)
    assert (done.code, done.out) == (130, "")
    way_out = f"`metavqa train ldm --resume {run.id}`, or the same command (without --force), goes on from there"
    assert done.err.endswith(f"error: interrupted at step 2 of 8; {way_out}\n")
    return run


def test_resume_needs_nothing_but_the_run(stopped: Run, metavqa: Terminal, full: Workspace) -> None:
    """Not its preset, not its flags: the run has its own configuration."""
    assert record(metavqa("train", "ldm", "--resume", stopped.id[:-2], "--json"))["run"] == stopped.id
    assert RunStarted(stopped.id, "ldm", 8, resumed_at=2) in stopped.events()[0]
    assert stopped.state() == "finished"
    again = metavqa("train", "ldm", "--resume", stopped.id)
    assert again.code == 2
    assert f"run {stopped.id} is finished already; `metavqa runs show {stopped.id}` shows its result" in again.err


def test_the_same_command_resumes_too(stopped: Run, metavqa: Terminal, full: Workspace) -> None:
    made = record(metavqa("train", "ldm", "--epochs", "8", "--seed", "3", *OPTIONS, "--json"))
    assert made["run"] == stopped.id and stopped.state() == "finished"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [(["ldm", "--epochs", "9"], r"cannot go on otherwise than it began (ldm.epochs was 8 and is now 9)"),
     (["ldm", "--force"], "--resume goes on with a run, --force begins another one; choose one of them"),
     (["ldm", "--epochs", "9"], "leave those options out, add --override to go on with them all the same, or start"),
     (["ldm", "--set", "ldm.T=9"], "(ldm.T was 50 and is now 9); leave those options out, or start a new run without"),
     (["ldm", "--set", "ldm.T=9", "--epochs", "9", "--override"], "--override cannot change ldm.T, which decides"),
     (["ldm", "--seed", "9", "--override"], "--override cannot change seed, which decides"),
     (["hvae"], "is of kind ldm, not hvae; resume it with `metavqa train ldm`")],
)  # fmt: skip
def test_resume_cannot_be_told_otherwise(
    args: list[str], sentence: str, stopped: Run, metavqa: Terminal, full: Workspace
) -> None:
    before = full.run_ids()
    done = metavqa("train", *args, "--resume", stopped.id)
    assert done.code == 2 and sentence in done.err
    assert stopped.state() == "interrupted" and full.run_ids() == before


def test_override_goes_on_with_other_values_and_records_them(stopped: Run, metavqa: Terminal, full: Workspace) -> None:
    """The run is neither the one that the old configuration asks for, nor that of the new one."""
    done = metavqa("train", "ldm", "--resume", stopped.id, "--override", "--epochs", "10", "--set", "ldm.lr=1e-4",
                   "--json")  # fmt: skip
    assert record(done)["run"] == stopped.id
    assert "goes on from step 2 with ldm.epochs = 10 in place of 8, ldm.lr = 0.0001 in place of 0.003" in done.err
    [entry] = json.loads(metavqa("runs", "show", stopped.id, "--json").out)["overrides"]
    assert entry["step"] == 2 and entry["changes"] == {"ldm.epochs": [8, 10], "ldm.lr": [0.003, 0.0001]}
    shown = metavqa("runs", "show", stopped.id).out
    assert "at step 2: ldm.epochs from 8 to 10, ldm.lr from 0.003 to 0.0001" in shown
    config = stopped.config()["ldm"]
    assert (config["epochs"], config["lr"]) == (10, 0.0001)
    assert "epochs = 8" in (stopped.path / "config.toml").read_text()
    for options in (["--epochs", "8"], ["--epochs", "10", "--set", "ldm.lr=1e-4"]):
        other = record(metavqa("train", "ldm", "--seed", "3", *OPTIONS, *options, "--json"))["run"]
        assert other != stopped.id


def test_override_without_resume_is_refused(metavqa: Terminal, full: Workspace) -> None:
    done = metavqa("train", "ldm", "--override", "--epochs", "9")
    assert done.code == 2 and "name it with --resume RUN" in done.err


def test_a_truncated_checkpoint_is_named_with_the_way_out(stopped: Run, metavqa: Terminal, full: Workspace) -> None:
    stopped.state_path.write_bytes(stopped.state_path.read_bytes()[:-100])
    done = metavqa("train", "ldm", "--resume", stopped.id)
    assert (done.code, done.out) == (1, "")
    assert f"{stopped.state_path} is truncated: expected" in done.err
    assert f"`metavqa runs rm {stopped.id}`" in done.err
    assert metavqa("runs", "rm", stopped.id).code == 0


def test_interrupting_the_zoo_is_exit_code_130_and_it_can_be_made(
    metavqa: Terminal, full: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metavqa_cli.engine import zoo

    def stop(*args: object) -> None:
        signal.raise_signal(signal.SIGINT)

    command = ["train", "zoo", *OPTIONS, "--set", "zoo.steps=2"]
    with monkeypatch.context() as patch:
        patch.setattr(zoo, "adapt_weights", stop)
        done = metavqa(*command)
    run = interrupted(full, "zoo")
    assert (done.code, done.out) == (130, "") and done.err.endswith("interrupted\n")
    assert run.state() == "interrupted"
    assert record(metavqa("train", "zoo", "--resume", run.id, "--json"))["run"] == run.id


def test_no_such_device_is_exit_code_4_and_leaves_no_run(metavqa: Terminal, full: Workspace) -> None:
    before = full.run_ids()
    done = metavqa("train", "ldm", "--device", "toaster", "--seed", "9", *OPTIONS)
    assert (done.code, done.out) == (4, "")
    assert "the device 'toaster' cannot be used" in done.err and "use --device auto or cpu" in done.err
    assert full.run_ids() == before


@pytest.mark.parametrize("how", ["--deterministic", "METAVQA_RUNTIME__DETERMINISTIC"])
def test_a_deterministic_training_is_asked_for_by_option_or_variable(
    how: str, metavqa: Terminal, full: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if not how.startswith("--"):
        monkeypatch.setenv(how, "true")
    options = [how] if how.startswith("--") else []
    threads = torch.get_num_threads()
    try:
        done = metavqa("train", "ldm", "--seed", "9", "--epochs", "1", *options, *OPTIONS, "--json")
        assert record(done)["result"]["deterministic"] == "1 thread"  # type: ignore[index]
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


def test_too_little_memory_is_exit_code_4(metavqa: Terminal, full: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*args: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr("metavqa_cli.engine.diffusion.diffusion_loss", allocate)
    done = metavqa("train", "ldm", "--seed", "9", *OPTIONS)
    assert (done.code, done.out) == (4, "")
    assert "out of memory" in done.err and "make the batch or the network smaller (--set)" in done.err
    assert interrupted(full).state() == "failed"


def test_a_diverging_training_is_exit_code_1_and_names_the_step(metavqa: Terminal, full: Workspace) -> None:
    done = metavqa("train", "baseline", "--set", "baseline.lr=1e38", "--seed", "9", *OPTIONS)
    assert (done.code, done.out) == (1, "")
    assert "not finite at step" in done.err and "go on from it with a lower learning rate" in done.err


WAITING = """
import signal, sys, time
from metavqa_cli.cli.app import main
from metavqa_cli.engine import loop

def step(*args, real=loop._step):
    if args[-1] == 3:
        print("training", file=sys.stderr, flush=True)
        while not signal.getsignal(signal.SIGINT).asked:  # the loop's StopRequest has heard the signal
            time.sleep(0.01)
    return real(*args)

loop._step = step
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_in_a_real_process_writes_a_checkpoint_and_the_command_resumes(
    metavqa: Terminal, full: Workspace, tmp_path: Path
) -> None:
    command = ["train", "ldm", *OPTIONS, "--epochs", "8", "--seed", "3"]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, "--workspace", str(full.root), *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None and process.stderr.readline() == "training\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    run = interrupted(full)
    assert (process.returncode, out) == (130, ""), err
    assert f"`metavqa train ldm --resume {run.id}`" in err and "Traceback" not in err
    assert run.events()[0][-2:] == [CheckpointSaved(4), RunInterrupted(run.id, 4)]
    assert run.state_path.is_file()
    assert record(metavqa(*command, "--json"))["run"] == run.id
    started = [event for event in run.events()[0] if isinstance(event, RunStarted)]
    assert [event.resumed_at for event in started] == [0, 4]
