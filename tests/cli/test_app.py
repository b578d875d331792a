"""The contract of the command line: streams, exit codes, one sentence for each error, global options anywhere."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from metavqa_cli.cli import app, console
from metavqa_cli.cli.failures import explain
from metavqa_cli.cli.options import hoist
from metavqa_cli.schema import errors
from tests.cli.terminal import ROOT, Terminal, python


def test_help_is_data_and_names_every_group(metavqa: Terminal) -> None:
    done = metavqa("--help")
    assert done.code == 0 and done.err == ""
    for word in ("env", "locate", "runs", "config", "--workspace", "--color", "--ascii", "--offline", "--debug"):
        assert word in done.out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "missing command; `metavqa --help` shows the usage"),
        (["runs"], "a command is needed; `metavqa runs --help` lists them"),
        (["rnus"], "no such command 'rnus'; did you mean 'runs'?; `metavqa --help` shows the usage"),
        (["runs", "ls", "--nonsense"], r"no such option: --nonsense.*; `metavqa runs ls --help` shows the usage"),
        (["runs", "show"], r"missing argument 'RUN'; `metavqa runs show --help` shows the usage"),
        (["--color", "purple", "env"], r"'purple' is not one of 'auto', 'always', 'never'"),
        (["runs", "ls", "--format", "xml"], r"'xml' is not one of 'auto', 'human'"),
        (["config", "init", "a", "b"], r"unexpected extra argument"),
    ],
)
def test_a_wrong_line_is_one_sentence_and_exit_code_2(metavqa: Terminal, args: list[str], sentence: str) -> None:
    done = metavqa(*args)
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and len(done.err.splitlines()) == 1
    assert re.search(sentence, done.err) or sentence in done.err


def test_no_words_at_all_point_to_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == 2
    assert capsys.readouterr() == ("", "error: a command is needed; `metavqa --help` lists them\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobError("it failed"), 1), (errors.UsageError("it failed"), 2), (errors.MissingError("it failed"), 3),
        (errors.DeviceError("it failed"), 4), (errors.BusyError("it failed"), 5),
        (errors.InterruptedJob("it failed"), 130),
    ],
)  # fmt: skip
def test_each_error_class_has_its_exit_code(error: errors.MetaVQAError, code: int) -> None:
    assert explain(error) == ("it failed", code)


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (MemoryError("21 GiB"), 4, r"out of memory \(21 GiB\); make the batch smaller"),
        (OutOfMemoryError("CUDA out of memory\nmore"), 4, r"\(CUDA out of memory\); make"),
        (FileNotFoundError(2, "No such file", "a.txt"), 1, r"cannot use a\.txt: No such file"),
        (ZeroDivisionError("by zero\nmore"), 1, r"unexpected ZeroDivisionError \(by zero\); this is a bug.*--debug"),
        (OSError(5, "I/O"), 1, "unexpected OSError"),
    ],
)
def test_any_other_exception_is_explained_too(error: BaseException, code: int, words: str) -> None:
    sentence, found = explain(error)
    assert found == code
    assert re.search(words, sentence) and "\n" not in sentence


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """`metavqa env` has a bug."""

    def fail(_package: str) -> str:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("metavqa_cli.cli.env.installed", fail)


@pytest.mark.usefixtures("broken")
def test_a_bug_is_one_line_and_a_traceback_only_with_debug(metavqa: Terminal) -> None:
    done = metavqa("env")
    assert done.code == 1 and len(done.err.splitlines()) == 1 and "--debug" in done.err
    debugged = metavqa("env", "--debug")
    assert debugged.code == 1 and "Traceback (most recent call last)" in debugged.err
    assert debugged.err.splitlines()[-1] == done.err.strip()


@pytest.mark.parametrize(
    ("args", "hoisted"),
    [
        (["runs", "ls", "-q"], ["-q", "runs", "ls"]),
        (["runs", "ls", "-w", "x", "--json"], ["-w", "x", "runs", "ls", "--json"]),
        (["env", "--workspace=x", "--color", "never"], ["--workspace=x", "--color", "never", "env"]),
        (["ask", "--", "-q"], ["ask", "--", "-q"]),
        (["env", "-w"], ["-w", "env"]),
        ([], []),
    ],
)
def test_global_options_may_stand_anywhere(args: list[str], hoisted: list[str]) -> None:
    assert hoist(args) == hoisted


def test_offline_reaches_the_hub_before_it_is_imported(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    done = metavqa("env", "--offline", "--json")
    assert done.code == 0 and os.environ["HF_HUB_OFFLINE"] == "1"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert metavqa("env").code == 0
    assert "HF_HUB_OFFLINE" not in os.environ


def test_the_workspace_comes_from_the_option_then_the_variable(
    metavqa: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METAVQA_WORKSPACE", str(tmp_path / "variable"))
    assert f"workspace\t{metavqa.workspace}\t" in metavqa("locate").out
    assert app.run(["locate"]) == 0
    assert f"workspace\t{tmp_path / 'variable'}\t" in capsys.readouterr().out


def test_the_module_and_its_version(tmp_path: Path) -> None:
    done = python("-m", "metavqa_cli", "--version", cwd=tmp_path)
    assert done.code == 0
    assert re.fullmatch(r"metavqa \d+\.\d+\.\d+\n", done.out)


def test_a_reader_that_stops_reading_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m metavqa_cli config show --json | head -c 10"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert len(done.stdout) == 10 and done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full, a disk that is always full")
def test_output_onto_a_full_disk_is_an_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m metavqa_cli config show > /dev/full"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_exit_code_130(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import sys, time, metavqa_cli.cli.env as env\n"
        "def wait(_): print('waiting', file=sys.stderr, flush=True); time.sleep(60)\n"
        "env.installed = wait\n"
        "sys.argv = ['metavqa', 'env']\n"
        "from metavqa_cli.cli.app import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stderr.readline() == "waiting\n"
        process.send_signal(number)
        assert process.stderr.read() == "interrupted\n"
    assert process.returncode == 130


def test_text_that_the_terminal_cannot_encode_is_escaped(tmp_path: Path) -> None:
    done = python("-m", "metavqa_cli", "runs", "show", "où", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.code == 3
    assert r"no run 'o\xf9'" in done.err


def command_lines() -> list[list[str]]:
    """The words of every command and group, in the order of the help."""
    lines: list[list[str]] = []
    waiting: list[tuple[list[str], Any]] = [([], typer.main.get_command(app.app))]
    while waiting:
        words, command = waiting.pop(0)
        lines.append(words)
        waiting += [([*words, name], child) for name, child in getattr(command, "commands", {}).items()]
    return lines


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_help_on_a_terminal_loses_no_word_of_the_plain_help(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich would swallow text in square brackets that looks like its markup."""
    monkeypatch.setenv("COLUMNS", "300")
    printed = []
    for terminal in (False, True):
        monkeypatch.setattr(console, "is_terminal", lambda stream, terminal=terminal: terminal and stream == "stdout")
        assert app.run([*words, "--help"]) == 0
        printed.append(capsys.readouterr().out)
    plain, rich = (set(re.findall(r"[a-z]{4,}", text)) for text in printed)
    assert printed[0] != printed[1]
    assert plain <= rich


def test_the_streams_of_this_process_are_untouched(metavqa: Terminal) -> None:
    before = sys.stdout
    metavqa("env")
    assert sys.stdout is before
    assert not isinstance(before, io.StringIO) or before.closed is False
