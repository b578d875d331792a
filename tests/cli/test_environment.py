"""Real processes in odd surroundings: the documented exit code, one clear sentence or the usual output."""

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from metavqa_cli.schema.events import StepLogged
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.feed import read_runs
from tests import miniature
from tests.cli.pipeline import photos
from tests.cli.terminal import ROOT

MARK = "✓ γ 🚗 héllo"  # in a run's manifest
SENTENCE = "error: "


@dataclass(frozen=True)
class Ended:
    code: int
    out: bytes
    err: str

    @property
    def error(self) -> str:
        """The one sentence that the process ended with."""
        lines = self.err.splitlines()
        assert "Traceback" not in self.err and "is a bug" not in self.err, self.err
        assert [line.startswith(SENTENCE) for line in lines] == [False] * (len(lines) - 1) + [True], self.err
        return lines[-1]


def metavqa(
    *args: str, environment: Mapping[str, str | None] | None = None, before: Callable[[], Any] | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE, **how: Any,
) -> Ended:  # fmt: skip
    """Run the command line in a process of its own. ``environment`` is added, or removed where it says None; ``before``
    is called in the new process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METAVQA_")}
    given = {**kept, "PYTHONPATH": str(ROOT), **(environment or {})}
    done = subprocess.run(
        [sys.executable, "-m", "metavqa_cli", *args], env={k: v for k, v in given.items() if v is not None},
        stdout=stdout, stderr=subprocess.PIPE, stdin=how.pop("stdin", subprocess.DEVNULL), preexec_fn=before,
        timeout=120, **how,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout or b"", (done.stderr or b"").decode())


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    """A workspace with one unfinished run, whose manifest is not ASCII."""
    made = Workspace(tmp_path / "workspace")
    key = runs.run_key("ldm", {}, {}, "f")
    run = runs.create(made, "ldm", key, {"seed": 0}, {}, {"name": "d", "fingerprint": "f"}, {"variant": MARK})
    run.append(StepLogged(3, {"loss": 1.0}))
    return made


def listed(workspace: Workspace, **how: Any) -> dict[str, Any]:
    """The one run of the workspace as a process lists it."""
    done = metavqa("-w", str(workspace.root), "runs", "ls", "--json", **how)
    assert (done.code, done.err) == (0, ""), done
    (record,) = json.loads(done.out)
    assert record["variant"] == MARK
    return dict(record)


def read_only(path: Path) -> str:
    path.mkdir(exist_ok=True)
    path.chmod(0o500)
    return str(path)


HOMES: dict[str, Callable[[Path], dict[str, str | None]]] = {
    "no HOME": lambda tmp: {"HOME": None, "XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None},
    "an empty HOME": lambda tmp: {"HOME": "", "XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None},
    "a missing HOME": lambda tmp: {"HOME": str(tmp / "none"), "XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None},
    "a file for a HOME": lambda tmp: {"HOME": "/dev/null", "XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None},
    "a read-only HOME": lambda tmp: {"HOME": read_only(tmp / "r"), "XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None},
    "XDG folders that are files": lambda tmp: dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME"), "/dev/null"),
    "relative XDG folders": lambda tmp: dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"), "x"),
    "no TMPDIR": lambda tmp: {"TMPDIR": str(tmp / "none")},
}
SCREENS: dict[str, dict[str, str | None]] = {
    "nothing": {"TERM": None, "COLUMNS": "0", "LINES": "0", "TZ": "Foo/Bar", "METAVQA_WORKSPACE": ""},
    "one column": {"TERM": "dumb", "COLUMNS": "1", "LINES": "-1", "TZ": "UTC+99", "METAVQA_QUIET": ""},
    "no number": {"COLUMNS": "x", "LINES": "x", "TZ": "EST5EDT,M3.2.0,M11.1.0", "METAVQA_COLOR": ""},
}


@pytest.mark.parametrize("home", HOMES)
def test_a_workspace_is_listed_whatever_the_home(home: str, small: Workspace, tmp_path: Path) -> None:
    listed(small, environment=HOMES[home](tmp_path))


@pytest.mark.parametrize("screen", SCREENS)
def test_a_workspace_is_listed_whatever_the_screen_and_the_clock_s_zone(screen: str, small: Workspace) -> None:
    assert listed(small, environment=SCREENS[screen])["created"].endswith("+00:00")


NOBODY = "import pwd\ndef nobody(*_):\n    raise KeyError('no such user')\npwd.getpwuid = pwd.getpwnam = nobody\n"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["runs", "ls"], 2, "there is no home folder to keep runs in; name one with --workspace or METAVQA_WORKSPACE"),
        (["-w", "~/runs", "runs", "ls"], 2, "write the path out"),
        (["config", "show"], 0, ""),
        (["-w", ".", "locate"], 0, ""),
        (["-w", ".", "tui", "--once"], 0, ""),
    ],
)
def test_a_user_whom_the_system_does_not_know(args: list[str], code: int, words: str, tmp_path: Path) -> None:
    """As in a container that runs under a number; no folder called ~ is made."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOBODY)
    here = tmp_path / "here"
    here.mkdir()
    unknown = {name: None for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME", "HF_HUB_CACHE")}
    path = {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    done = metavqa(*args, environment={**unknown, **path}, cwd=here)
    assert done.code == code, done
    assert words in done.error if code else done.err == ""
    assert [*here.iterdir()] == []


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "latin-1"}])
def test_what_a_locale_cannot_print_is_escaped_and_files_stay_utf_8(locale: dict[str, str], small: Workspace) -> None:
    listed(small, environment={**locale, "PYTHONCOERCECLOCALE": "0"})
    shown = metavqa("-w", str(small.root), "runs", "show", "ldm", environment={**locale, "PYTHONCOERCECLOCALE": "0"})
    assert shown.code == 0 and shown.err == "" and b"variant" in shown.out
    (run,) = runs.list_runs(small)
    assert MARK in (run.path / "run.json").read_text("utf-8")


def test_a_current_folder_that_was_removed(small: Workspace, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    def leave() -> None:
        os.chdir(gone)
        gone.rmdir()

    listed(small, before=leave)
    gone.mkdir()
    relative = metavqa("-w", "here", "runs", "ls", before=leave)
    assert relative.code == 3 and relative.error.endswith("was removed; `cd` to one that exists")


def test_a_current_folder_that_cannot_be_read(small: Workspace, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o300)
    listed(small, cwd=closed)


@pytest.mark.parametrize(
    "name", ["a 'b' \"c\" %s{}$HOME", "-w\n日本語 é", "deep" + ("/" + 190 * "d") * 19],
    ids=["spaces and quotes", "a dash, a newline, non-ASCII", "3,600 bytes deep"],
)  # fmt: skip
def test_a_workspace_under_any_path(name: str, small: Workspace, tmp_path: Path) -> None:
    """Its runs are listed and removed."""
    root = tmp_path / "w" / name
    root.parent.mkdir(parents=True)
    small.root.rename(root)
    record = listed(Workspace(root))
    assert metavqa(f"--workspace={root}", "runs", "rm", record["run"]).code == 0
    assert Workspace(root).run_ids() == []


def test_a_path_longer_than_the_system_allows(tmp_path: Path) -> None:
    done = metavqa("-w", str(tmp_path) + "/d" * 2100, "runs", "ls")
    assert done.code == 1 and "File name too long" in done.error


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("args", [["runs", "show", "ldm"], ["--help"]])
def test_a_full_disk_under_the_output(args: list[str], small: Workspace) -> None:
    with Path("/dev/full").open("wb") as full:
        done = metavqa("-w", str(small.root), *args, stdout=full)
    assert done.code == 1 and "No space left" in done.error


def test_a_reader_that_leaves_is_no_error(small: Workspace) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = metavqa("-w", str(small.root), "runs", "show", "ldm", stdout=pipe)
    assert (done.code, done.err) == (1, "")


@pytest.mark.parametrize("number", [0, 1, 2], ids=["stdin", "stdout", "stderr"])
def test_a_stream_that_is_closed(number: int, small: Workspace) -> None:
    done = metavqa("-w", str(small.root), "runs", "ls", "--json", before=lambda: os.close(number))
    assert done.code == 0 and done.err == "" and (number == 1) == (done.out == b"")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("METAVQA_COLOR", "purple", "'purple' is not one of"), ("METAVQA_QUIET", "maybe", "METAVQA_QUIET")],
)
def test_a_variable_with_a_bad_value(name: str, value: str, words: str, small: Workspace) -> None:
    done = metavqa("-w", str(small.root), "runs", "ls", environment={name: value})
    assert done.code == 2 and words in done.error


CLOCK = "import time\nreal, t = time.time, {}\ntime.time = lambda: {}\n"


@pytest.mark.parametrize("now", ["0.0", "4102444800.0", "real() - 864000"], ids=["1970", "2100", "ten days back"])
def test_any_clock(now: str, small: Workspace, tmp_path: Path) -> None:
    """Ages are never negative, and a log goes on after the clock was set back."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CLOCK.format(0, now))
    clock = {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    listed(small, environment=clock)
    filtered = metavqa("-w", str(small.root), "runs", "ls", "--filter", "kind:ldm", "--json", environment=clock)
    assert filtered.code == 0 and len(json.loads(filtered.out)) == 1, filtered
    (view,) = read_runs(small, 0.0)
    assert view.age == 0.0
    (run,) = runs.list_runs(small)
    append = "from pathlib import Path; from metavqa_cli.store.log import append; import sys; "
    append += "from metavqa_cli.schema.events import StepLogged; append(Path(sys.argv[1]), StepLogged(4, {}))"
    subprocess.run([sys.executable, "-c", append, str(run.events_path)], check=True, env={**os.environ, **clock})
    assert [event for event in run.events()[0] if isinstance(event, StepLogged)][-1].step == 4


# With torch: one question and one training, in all that is odd at once


@pytest.fixture
def whole(tmp_path: Path) -> Workspace:
    return miniature.copy(tmp_path / "a 'b' \n é" / "workspace")


def test_a_question_and_a_training_in_a_container_that_has_nothing(whole: Workspace, tmp_path: Path) -> None:
    """No user, no home, no TMPDIR, no terminal, ASCII, an odd zone, a private umask, 64 files, and no more than 64."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOBODY)
    odd: dict[str, str | None] = {
        "HOME": None, "XDG_CONFIG_HOME": None, "XDG_DATA_HOME": None, "TMPDIR": "/nonexistent", "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0", "TZ": "UTC+99", "TERM": None, "COLUMNS": "0", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}",
    }  # fmt: skip

    def poor() -> None:
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    place = ("-w", str(whole.root), "-q")
    asked = metavqa(*place, "ask", f"What color is the car? {MARK}", *photos(3), "--answers", "red,blue", "--json",
                    environment=odd, before=poor)  # fmt: skip
    assert asked.code == 0, asked
    answered = json.loads(asked.out)
    assert MARK in answered["question"] and len(answered["images"]) == 3
    trained = metavqa(*place, "train", "regression", *miniature.OPTIONS, "--set", "regression.epochs=7", "--json",
                      environment=odd, before=poor)  # fmt: skip
    assert trained.code == 0, trained
    made = runs.get(whole, json.loads(trained.out)["run"])
    assert made.state() == "finished"
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in made.path.iterdir()} == {0}
    for record in (made.path / "run.json", made.path / "config.toml", made.events_path):
        record.read_text("utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_too_little_memory_is_exit_code_4(whole: Workspace) -> None:
    def poor() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    done = metavqa("-w", str(whole.root), "ask", "What color is the car?", *photos(1), "--answers", "red,blue",
                   before=poor, environment={"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.code == 4 and "out of memory" in done.error, done
