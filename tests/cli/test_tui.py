"""`metavqa tui`: one frame without a terminal, what it is shown of, and what it refuses."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.room import ROOMS
from tests import miniature
from tests.cli.terminal import ROOT, Terminal, assert_refused, python
from tests.tui.made_runs import made

ONCE = ("tui", "--once")
IMPORTS = """
import json, sys
from metavqa_cli.cli.app import run
code = run(sys.argv[1:])
print(json.dumps({"code": code, "modules": sorted(sys.modules)}), file=sys.stderr)
"""
HEAVY = {"torch", "numpy", "open_clip", "scipy"}


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """A workspace with three runs made by hand."""
    made(workspace, "hvae-22222222", age=7200)
    made(workspace, "ldm-33333333", parents={"generator": "hvae-22222222"})
    made(workspace, "ldm-34444444", parents={"generator": "hvae-22222222"}, age=600)
    return workspace


# One frame


def test_once_prints_a_frame_as_plain_text(metavqa: Terminal, filled: Workspace) -> None:
    done = metavqa(*ONCE)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) <= 36 and max(map(len, lines)) <= 120
    assert lines[0].startswith("[F2 Runs]") and "ldm-33333333" in done.out and "q Quit" in lines[-1]
    assert "\x1b" not in done.out, "no colour and no cursor moves in a pipe"
    assert not any(line.endswith(" ") for line in lines)


def test_with_colour_it_is_the_same_text_in_codes_of_colour_alone(metavqa: Terminal, filled: Workspace) -> None:
    plain = metavqa(*ONCE, "--size", "80x24").out
    colored = metavqa("--color", "always", *ONCE, "--size", "80x24").out
    assert "\x1b[" in colored
    codes = set(re.findall(r"\x1b\[[0-9;?]*([A-Za-z])", colored))
    assert codes == {"m"}, "a frame is printed where the cursor is, like any text"
    bare = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in bare.splitlines()] == plain.splitlines()


@pytest.mark.parametrize(("size", "width", "height"), [("80x24", 80, 24), ("200x60", 200, 60), ("20×5", 20, 5)])
def test_size_is_that_of_the_frame(metavqa: Terminal, filled: Workspace, size: str, width: int, height: int) -> None:
    lines = metavqa(*ONCE, "--size", size).out.splitlines()
    assert len(lines) == height and max(map(len, lines)) <= width
    assert height == 5 or width - 2 <= max(map(len, lines))


@pytest.mark.parametrize("size", ["80", "80x", "x24", "19x24", "80x4", "501x30", "80x201", "80*24", "axb", "-80x24"])
def test_a_size_that_is_none_is_refused(metavqa: Terminal, filled: Workspace, size: str) -> None:
    assert_refused(metavqa(*ONCE, f"--size={size}"), 2, "COLUMNSxROWS from 20x5 to 500x200", repr(size), alone=True)


@pytest.mark.parametrize("screen", ROOMS)
def test_every_screen_can_be_printed(metavqa: Terminal, screen: str) -> None:
    shutil.copytree(miniature.finished().root, metavqa.workspace, ignore=shutil.ignore_patterns("images"))
    done = metavqa(*ONCE, "--screen", screen)
    assert done.code == 0
    key, title = ROOMS[screen]  # type: ignore[index]
    assert f"[{key.upper()} {title}]" in done.out.splitlines()[0]
    ascii = metavqa("--ascii", *ONCE, "--screen", screen)
    assert ascii.code == 0 and ascii.out.isascii()


def test_an_unknown_screen_names_those_there_are(metavqa: Terminal) -> None:
    assert_refused(metavqa(*ONCE, "--screen", "running"), 2, "'running'", "runs", "curves", "tasks")


def test_once_changes_nothing_in_the_workspace(metavqa: Terminal, filled: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.root.rglob("*")}
    metavqa(*ONCE)
    assert {path: path.stat().st_mtime_ns for path in filled.root.rglob("*")} == before


def test_an_empty_workspace_says_what_to_do_and_is_not_made(metavqa: Terminal) -> None:
    done = metavqa(*ONCE)
    assert done.code == 0 and "no runs in" in done.out and "metavqa quickstart" in done.out
    assert not metavqa.workspace.exists()


# A picture of it


def test_svg_draws_the_frame(metavqa: Terminal, filled: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "runs.svg"
    done = metavqa(*ONCE, "--svg", str(path))
    assert (done.code, done.out, done.err) == (0, "", f"drawn to {path}\n")
    root = ElementTree.parse(path).getroot()
    assert root.tag.endswith("svg") and "ldm-33333333" in "".join(root.itertext()).replace("\xa0", " ")


def test_an_svg_that_exists_is_replaced_only_with_force(metavqa: Terminal, filled: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "runs.svg"
    path.write_text("mine")
    assert_refused(metavqa(*ONCE, "--svg", str(path)), 5, f"{path} exists", "--force", alone=True)
    assert path.read_text() == "mine"
    assert metavqa(*ONCE, "--svg", str(path), "--force").code == 0
    assert "<svg" in path.read_text("utf-8")


def test_another_suffix_is_refused(metavqa: Terminal, tmp_path: Path) -> None:
    assert_refused(metavqa(*ONCE, "--svg", "runs.png"), 2, "'runs.png' should end in .svg", alone=True)


def test_an_svg_that_cannot_be_written_is_one_sentence(metavqa: Terminal, filled: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_refused(metavqa(*ONCE, "--svg", str(tmp_path / "file" / "runs.svg")), 1, "cannot write", "is a file")


@pytest.mark.parametrize("option", [["--size", "80x24"], ["--svg", "runs.svg"]])
def test_options_of_a_frame_need_once(metavqa: Terminal, option: list[str]) -> None:
    assert_refused(metavqa("tui", *option), 2, "add --once", alone=True)


# Of what


def test_a_folder_is_a_workspace(metavqa: Terminal, filled: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "another")
    made(other, "zoo-99999999")
    for name in (str(other.root), os.path.relpath(other.root)):
        done = metavqa("tui", name, "--once")
        assert done.code == 0 and "zoo-99999999" in done.out and "ldm-33333333" not in done.out


@pytest.mark.parametrize("name", ["ldm-33333333", "ldm-33"])
def test_a_run_opens_its_curves(metavqa: Terminal, filled: Workspace, name: str) -> None:
    done = metavqa("tui", name, "--once")
    assert done.code == 0 and "[F3 Curves]" in done.out.splitlines()[0] and "ldm-33333333" in done.out
    runs = metavqa("tui", name, "--once", "--screen", "runs").out
    assert re.search(r"\[1\]\s+ldm-33333333", runs), "and is selected"


def test_the_folder_of_a_run_opens_it_in_its_workspace(metavqa: Terminal, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "another")
    made(other, "zoo-99999999")
    done = metavqa("tui", str(other.runs_dir / "zoo-99999999"), "--once", "--screen", "runs")
    assert done.code == 0 and re.search(r"\[1\]\s+zoo-99999999", done.out)


def test_an_empty_name_is_refused(metavqa: Terminal) -> None:
    assert_refused(metavqa("tui", "", "--once"), 2, "the workspace is empty")


def test_runs_can_be_selected(metavqa: Terminal, filled: Workspace) -> None:
    out = metavqa(*ONCE, "--select", "ldm-34", "--select", "hvae-22222222").out
    assert re.search(r"\[1\]\s+ldm-34444444", out) and re.search(r"\[2\]\s+hvae-22222222", out)
    assert_refused(metavqa(*ONCE, "--select", "ldm-3333333x"), 3, "there is no run 'ldm-3333333x'", "ldm-33333333")


def test_an_unknown_run_names_near_ones(metavqa: Terminal, filled: Workspace) -> None:
    assert_refused(metavqa("tui", "ldm-33334444", "--once"), 3, "there is no run", "did you mean", "ldm-33333333")
    assert_refused(metavqa("tui", "ldm-3", "--once"), 2, "ambiguous", "ldm-33333333", "ldm-34444444")
    assert_refused(metavqa("tui", "no/such/folder", "--once"), 2, "there is no folder no/such/folder")


# Without a terminal, and on one


def test_without_a_terminal_it_says_how_to_print_a_frame(metavqa: Terminal, filled: Workspace) -> None:
    assert_refused(metavqa("tui"), 2, "needs a terminal", "--once", alone=True)


def test_on_a_terminal_the_frame_has_its_size_and_its_colours(filled: Workspace, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    with subprocess.Popen(
        [sys.executable, "-m", "metavqa_cli", "-w", str(filled.root), *ONCE], stdout=slave, stdin=slave, cwd=ROOT,
        env={**kept, "TERM": "xterm-256color"},
    ) as running:  # fmt: skip
        os.close(slave)
        found = bytearray()
        while chunk := _read(master):
            found += chunk
        assert running.wait(60) == 0
    os.close(master)
    text = found.decode("utf-8")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert "\x1b[" in text and len(lines) == 30 and max(len(line.rstrip()) for line in lines) <= 100
    assert "\x1b[?1049h" not in text, "it stays on the screen that it was called on"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # its other end is closed
        return b""


# What it costs


def _modules(tmp_path: Path, *args: str) -> set[str]:
    done = python("-c", IMPORTS, *args, cwd=tmp_path)
    report = json.loads(done.err.splitlines()[-1])
    assert report["code"] == 0, done.err
    return set(report["modules"])


@pytest.mark.parametrize("screen", ROOMS)
def test_no_first_screen_imports_torch_and_that_of_the_runs_nothing_heavy(
    tmp_path: Path, filled: Workspace, screen: str
) -> None:
    found = _modules(tmp_path, "-w", str(filled.root), *ONCE, "--screen", screen)
    assert "textual" in found and not found & ({"torch", "open_clip"} if screen != "runs" else HEAVY)


@pytest.mark.parametrize("command", [["--help"], ["tui", "--help"], ["runs", "ls"]])
def test_what_needs_no_dashboard_imports_none(tmp_path: Path, filled: Workspace, command: list[str]) -> None:
    found = _modules(tmp_path, "-w", str(filled.root), *command)
    assert not found & {"textual", *HEAVY} and not any(name.startswith("metavqa_cli.tui.app") for name in found)


def test_help_names_the_commands_that_show_the_same(metavqa: Terminal) -> None:
    out = " ".join(metavqa("tui", "--help").out.split())
    for command in ("metavqa runs ls", "metavqa runs curves", "metavqa eval sweep", "metavqa ask", "metavqa dataset"):
        assert command in out
