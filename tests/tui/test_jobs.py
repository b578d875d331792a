"""Jobs: started, told in words how they end, asked to stop, and left behind only where that was wished."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from metavqa_cli.schema.errors import JobError, UsageError
from metavqa_cli.store.atomic import write_json
from metavqa_cli.store.locks import sidecar
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.jobs import Job, Jobs, command_line, stop_run
from tests.cli.terminal import ROOT
from tests.tui.made_runs import made

DEADLINE_SECONDS = 60.0
WAITS = """
import sys, time
try:
    print("ready", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("checkpoint written", flush=True)
    sys.exit(130)
"""
STUBBORN = """
import time
seen = 0
while seen < 2:
    try:
        print("ready", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        seen += 1
        print("asked", seen, flush=True)  # and then ready again
raise SystemExit(130)
"""
HOLDS = """
import sys, time
from pathlib import Path
from metavqa_cli.store.locks import sidecar
from metavqa_cli.store.runs import Run
with Run(Path(sys.argv[1])).lock():
    try:
        print("ready", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "a workspace")


@pytest.fixture
def jobs_of(workspace: Workspace) -> Iterator[Callable[..., Jobs]]:
    """Makes ``Jobs`` whose program is a piece of Python; what is left of them ends with the test."""
    everyone: list[Jobs] = []

    def make(code: str, program: Sequence[str] | None = None, **environment: str) -> Jobs:
        run_as = (sys.executable, "-c", code) if program is None else program
        everyone.append(Jobs(workspace, run_as, {**os.environ, **environment}))
        return everyone[-1]

    yield make
    for job in (job for jobs in everyone for job in jobs.all):
        if job.code is None:
            job.process.kill()
        job.process.wait()


def ready(job: Job) -> Job:
    until(lambda: b"ready" in job.log.read_bytes())
    return job


def ended(job: Job) -> Job:
    until(lambda: job.code is not None)
    return job


# Starting


def test_a_job_gets_its_arguments_its_environment_and_a_log_of_its_own(
    jobs_of: Callable[..., Jobs], workspace: Workspace
) -> None:
    jobs = jobs_of("import os, sys; print(sys.argv[1:], os.environ['MARK'], sys.stdin.read())", MARK="here")
    one, two = (jobs.start(["train", "ldm", "--set", "a=b c"], outlives=False) for _ in range(2))
    assert one.log != two.log and one.log.parent == workspace.root / "jobs"
    for job in (one, two):
        said = ended(job).last_words()
        assert said == f"{['--workspace', str(workspace.root), 'train', 'ldm', '--set', 'a=b c']} here"
    assert one.line == "metavqa train ldm --set 'a=b c'" == command_line(one.args)
    assert jobs.all == [one, two] and jobs.running() == []


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "done"), (1, "failed"), (2, "refused"), (3, "something is missing"), (4, "memory or device"), (5, "busy"),
     (130, "interrupted"), (77, "exit code 77")],
)  # fmt: skip
def test_an_exit_code_in_words(jobs_of: Callable[..., Jobs], code: int, words: str) -> None:
    job = ended(jobs_of(f"raise SystemExit({code})").start(["x"], outlives=False))
    assert (job.code, job.ending()) == (code, words)


def test_what_a_signal_ended_is_said_to_be_killed(jobs_of: Callable[..., Jobs]) -> None:
    job = ready(jobs_of(WAITS).start(["x"], outlives=False))
    assert job.ending() == "running"
    job.process.kill()
    assert ended(job).ending() == "killed by signal 9 (Killed)"


def test_its_time_stops_when_it_ends(jobs_of: Callable[..., Jobs]) -> None:
    job = ready(jobs_of(WAITS).start(["x"], outlives=False))
    assert job.took(job.started + 5) == 5
    job.process.kill()
    ended(job)
    assert job.took(job.started + 7) == 7 == job.took(job.started + 100)


# Last words


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("one\\ntwo\\n\\n", "two"),
        ("error: no dataset\\nsee the log\\n", "error: no dataset"),
        ("error: first\\nerror: second\\nbye", "error: second"),
        ("", ""),
        ("x" * 9000 + "\\nend", "end"),
    ],
)
def test_last_words_are_the_last_error_or_the_last_line(jobs_of: Callable[..., Jobs], printed: str, words: str) -> None:
    job = ended(jobs_of(f"import sys; sys.stderr.write('{printed}')").start(["x"], outlives=False))
    assert job.last_words() == words


def test_last_words_of_bytes_that_are_no_text_and_of_a_log_that_is_gone(jobs_of: Callable[..., Jobs]) -> None:
    job = ended(jobs_of("import sys; sys.stdout.buffer.write(b'\\xff\\xfe bad\\n')").start(["x"], outlives=False))
    assert job.last_words() == "\ufffd\ufffd bad"
    job.log.unlink()
    assert job.last_words() == "\ufffd\ufffd bad", "what was read after its end holds"
    unread = ended(jobs_of("print('ready')").start(["x"], outlives=False))
    unread.log.unlink()
    assert unread.last_words() == ""


# Stopping


def test_stop_asks_once_to_write_a_checkpoint(jobs_of: Callable[..., Jobs]) -> None:
    jobs = jobs_of(WAITS)
    job = ready(jobs.start(["x"], outlives=False))
    jobs.stop(job)
    assert job.asked_to_stop == 1
    assert (ended(job).ending(), job.last_words()) == ("interrupted", "checkpoint written")
    jobs.stop(job)
    assert job.asked_to_stop == 1, "one that has ended is not asked"


def test_stop_may_be_asked_twice(jobs_of: Callable[..., Jobs]) -> None:
    jobs = jobs_of(STUBBORN)
    job = ready(jobs.start(["x"], outlives=False))
    jobs.stop(job)
    until(lambda: b"asked 1\nready" in job.log.read_bytes())
    assert job.ending() == "stopping" and jobs.running() == [job]
    jobs.stop(job)
    assert ended(job).last_words() == "asked 2"


def test_the_interrupt_of_the_terminal_does_not_reach_a_job(jobs_of: Callable[..., Jobs]) -> None:
    job = ready(jobs_of(WAITS).start(["x"], outlives=True))
    assert os.getpgid(job.process.pid) != os.getpgid(0) and os.getsid(job.process.pid) != os.getsid(0)


def test_on_closing_one_goes_on_and_the_other_is_interrupted(jobs_of: Callable[..., Jobs]) -> None:
    jobs = jobs_of(WAITS)
    stays, goes = (ready(jobs.start(["x"], outlives=outlives)) for outlives in (True, False))
    jobs.close()
    assert ended(goes).ending() == "interrupted"
    assert stays.code is None and stays.asked_to_stop == 0
    stays.outlives = False
    jobs.close()
    assert ended(stays).ending() == "interrupted"


def test_the_line_is_what_runs_and_the_usual_workspace_goes_without_saying(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Jobs(workspace, ("metavqa",), {}).line(["runs", "ls"]) == f"metavqa --workspace '{workspace.root}' runs ls"
    usual = Workspace(Workspace.default_root())
    assert Jobs(usual, ("metavqa",), {}).line(["runs", "ls"]) == "metavqa runs ls"
    monkeypatch.setenv("METAVQA_WORKSPACE", str(workspace.root))
    chosen = Jobs(workspace, ("metavqa",), {"METAVQA_WORKSPACE": str(workspace.root)})
    assert "--workspace" in chosen.line(["runs", "ls"]), "another shell may not have the variable"


def test_a_job_that_was_stopped_by_its_number_counts_as_asked(jobs_of: Callable[..., Jobs]) -> None:
    jobs = jobs_of(STUBBORN)
    one, two = (ready(jobs.start(["x"], outlives=False)) for _ in range(2))
    jobs.asked(two.process.pid)
    assert (one.ending(), two.ending()) == ("running", "stopping")


# What cannot be started


@pytest.mark.parametrize("name", ["/no/such/program", "no-such-program-anywhere"])
def test_a_program_that_is_not_there_is_one_sentence(
    jobs_of: Callable[..., Jobs], workspace: Workspace, name: str
) -> None:
    jobs = jobs_of("", program=(name,))
    with pytest.raises(JobError, match=f"cannot start {name}: No such file or directory; is metavqa installed"):
        jobs.start(["x"], outlives=False)
    assert jobs.all == []
    assert list((workspace.root / "jobs").iterdir()) == [], "no log of what never ran"


def test_a_file_in_the_way_of_the_logs_is_one_sentence(jobs_of: Callable[..., Jobs], workspace: Workspace) -> None:
    workspace.root.mkdir()
    (workspace.root / "jobs").write_text("in the way")
    with pytest.raises(JobError, match=r"cannot write .*jobs.*is a file, not a folder"):
        jobs_of("").start(["x"], outlives=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_workspace_without_permission_is_one_sentence(jobs_of: Callable[..., Jobs], workspace: Workspace) -> None:
    workspace.root.mkdir()
    workspace.root.chmod(0o500)
    with pytest.raises(JobError, match=r"cannot write .*permission denied"):
        jobs_of("").start(["x"], outlives=False)


# Stopping a run, whoever works on it


@pytest.fixture
def run(workspace: Workspace) -> Run:
    return Run(made(workspace, "ldm-aaaa1111"))


@pytest.fixture
def holder(run: Run) -> Iterator["subprocess.Popen[str]"]:
    """A process that works on the run until it is interrupted."""
    started = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(run.path)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        try:
            yield started
        finally:
            started.kill()


def test_the_process_that_works_on_a_run_is_asked_to_stop(run: Run, holder: "subprocess.Popen[str]") -> None:
    assert stop_run(run) == holder.pid
    assert holder.stdout is not None and holder.stdout.readline() == "stopped\n"
    assert holder.wait(DEADLINE_SECONDS) == 0
    with pytest.raises(UsageError, match=f"run {run.id} is not running"):
        stop_run(run)


def test_a_run_that_nobody_works_on_is_not_running(run: Run) -> None:
    with pytest.raises(UsageError, match="is not running"):
        stop_run(run)
    with pytest.raises(UsageError, match="is not running"):
        stop_run(Run(run.path.with_name("gone-1234")))


def owner(run: Run, **changes: object) -> None:
    """Say that somebody else holds the run."""
    record = {"pid": os.getpid(), "host": socket.gethostname(), "since": 0.0}
    write_json(sidecar(run.lock_path), {**record, **changes})


def test_on_another_machine_it_says_what_to_type_there(run: Run, holder: "subprocess.Popen[str]") -> None:
    owner(run, host="faraway", pid=4711)
    with pytest.raises(UsageError, match="running on faraway; stop it there: kill -INT 4711"):
        stop_run(run)


def test_a_process_that_has_just_ended_is_said_to_have(run: Run, holder: "subprocess.Popen[str]") -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, 2**40):
        owner(run, pid=pid)
        with pytest.raises(UsageError, match=f"process {pid} of run {run.id} has just ended"):
            stop_run(run)


def test_somebody_elses_process_is_said_to_be(
    run: Run, holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    with monkeypatch.context() as patch, pytest.raises(UsageError, match="somebody else's"):
        patch.setattr(os, "kill", refuse)
        stop_run(run)


@pytest.mark.parametrize("pid", [0, -1, -4711, True, "12", 1.5, None])
def test_a_number_that_is_no_single_process_gets_no_signal(
    run: Run, holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch, pid: object
) -> None:
    sent: list[tuple[int, int]] = []
    owner(run, pid=pid)
    with monkeypatch.context() as patch, pytest.raises(UsageError, match="not known in which process"):
        patch.setattr(os, "kill", lambda *what: sent.append(what))
        stop_run(run)
    assert sent == []


def test_the_signal_is_that_of_ctrl_c(
    run: Run, holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *what: sent.append(what))
        assert stop_run(run) == holder.pid
    assert sent == [(holder.pid, signal.SIGINT)]
