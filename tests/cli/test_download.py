"""`metavqa dataset download`: what a person types, sees and gets back, against a server on this machine."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from metavqa_cli.engine import archives
from metavqa_cli.engine import download as verb
from metavqa_cli.engine.archives import Archive
from metavqa_cli.store import fetch, locks
from metavqa_cli.store.workspace import Workspace
from tests.cli.pipeline import data
from tests.cli.terminal import ROOT, Terminal, assert_refused, python
from tests.servers import Reply, Server, running

NAMES = [archive.name for archive in archives.ARCHIVES]
BODIES = {name: name.encode() * (3000 + i) for i, name in enumerate(NAMES)}
SMALL = tuple(Archive(a.name, a.what, a.split, len(BODIES[a.name])) for a in archives.ARCHIVES)
SHA = {name: hashlib.sha256(body).hexdigest() for name, body in BODIES.items()}
TOTAL = sum(map(len, BODIES.values()))
KEYS = {"file", "path", "bytes", "sha256", "state", "unpacked"}
PLAN_KEYS = {"file", "url", "path", "bytes", "have", "remaining", "to_unpack", "state"}
DOWNLOAD = ("dataset", "download", "vqa2")
# The same small catalogue in a process of its own, which says at its end what heavy libraries it has imported.
APART = """
import sys
from metavqa_cli.engine import archives, download
sizes = dict(zip(sys.argv[1].split(","), map(int, sys.argv[2].split(","))))
small = lambda a: archives.Archive(a.name, a.what, a.split, sizes[a.name])
archives.ARCHIVES = tuple(map(small, archives.ARCHIVES))
download.GOODBYE_SECONDS = 0.0
from metavqa_cli.cli import app
code = app.run(sys.argv[3:])
heavy = [name for name in ("torch", "numpy", "open_clip", "textual", "scipy", "PIL") if name in sys.modules]
print("heavy:", heavy, file=sys.stderr)
sys.exit(code)
"""
CATALOGUE = [",".join(NAMES), ",".join(str(archive.size) for archive in SMALL)]


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(archives, "ARCHIVES", SMALL)
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 0.0)
    with running() as found:
        for name, body in BODIES.items():
            found.serve(name, body)
        yield found


@pytest.fixture
def mirror(server: Server) -> list[str]:
    return ["--base-url", server.url, "--images-url", server.url.rstrip("/")]


def test_everything_is_downloaded_printed_and_the_next_command_named(
    metavqa: Terminal, workspace: Workspace, mirror: list[str]
) -> None:
    folder = workspace.root / "downloads" / "vqa2"
    done = metavqa(*DOWNLOAD, *mirror, "--json")
    rows = data(done)
    assert [row["file"] for row in rows] == NAMES and all(row.keys() == KEYS for row in rows)
    assert [(row["sha256"], row["bytes"], row["state"], row["unpacked"]) for row in rows] == [
        (SHA[name], len(BODIES[name]), "downloaded", None) for name in NAMES
    ]
    assert all(Path(row["path"]).read_bytes() == BODIES[row["file"]] for row in rows)
    assert done.err.endswith(f"next: metavqa dataset build --source vqa2 --path {folder}\n")
    again = metavqa(*DOWNLOAD, *mirror, "--format", "csv")
    assert again.out.splitlines()[0] == "file,bytes,state,sha256,path"
    assert [line.split(",")[2] for line in again.out.splitlines()[1:]] == ["there"] * 6


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--what", "questions"], NAMES[:2]),
        (["--what", "questions,annotations", "--split", "val"], [NAMES[1], NAMES[3]]),
        (["--what", "images", "--what", "questions", "--split", "train"], [NAMES[0], NAMES[4]]),
        (["--what", "all", "--split", "train, val"], NAMES),
    ],
)
def test_parts_and_splits_are_chosen(
    metavqa: Terminal, mirror: list[str], tmp_path: Path, options: list[str], chosen: list[str]
) -> None:
    rows = data(metavqa(*DOWNLOAD, *mirror, *options, "--to", str(tmp_path / "a b"), "--json"))
    assert [row["file"] for row in rows] == chosen
    assert {file.name for file in (tmp_path / "a b").glob("*.zip")} == set(chosen)


def test_a_dry_run_shows_sizes_and_the_disk_and_asks_nobody(
    metavqa: Terminal, workspace: Workspace, mirror: list[str], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=TOTAL - 1))
    done = metavqa(*DOWNLOAD, *mirror, "--dry-run", "--json")
    plan = data(done)
    assert {name: plan[name] for name in ("remaining", "needed", "free", "fits")} == {
        "remaining": TOTAL, "needed": TOTAL, "free": TOTAL - 1, "fits": False,
    }  # fmt: skip
    assert [row["url"] for row in plan["files"]] == [server.url + name for name in NAMES]
    assert all(row.keys() == PLAN_KEYS and row["have"] == 0 and row["state"] == "absent" for row in plan["files"])
    assert done.err == f"{TOTAL} bytes to download; {TOTAL - 1} are free: it does not fit\n"
    table = metavqa("--offline", *DOWNLOAD, "--dry-run", "--unpack", "--what", "questions")
    assert table.code == 0 and len(table.out.splitlines()) == 3
    assert table.out.splitlines()[0].split("\t") == ["file", "bytes", "have", "remaining", "url", "to_unpack"]
    assert archives.VQA_URL + NAMES[0] in table.out and "with unpacking (estimated)" in table.err
    assert server.asked == [] and not workspace.root.exists()


def test_a_disk_that_is_too_small_is_refused_before_starting(
    metavqa: Terminal, mirror: list[str], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5))
    done = metavqa(*DOWNLOAD, *mirror, "--what", "images")
    assert_refused(done, 1, "has 5 bytes free", "--to", "--what", alone=True)
    assert server.asked == []


def test_the_mirror_of_the_questions_may_stand_in_the_environment(
    metavqa: Terminal, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METAVQA_VQA_URL", server.url.rstrip("/"))
    (row,) = data(metavqa(*DOWNLOAD, "--what", "questions", "--split", "val", "--json"))
    assert row["sha256"] == SHA[NAMES[1]] and [asked.path for asked in server.asked] == [NAMES[1]]


def test_offline_is_exit_code_3_with_the_commands_for_elsewhere(
    metavqa: Terminal, mirror: list[str], server: Server
) -> None:
    done = metavqa("--offline", *DOWNLOAD, *mirror)
    assert_refused(done, 3, "--offline", "metavqa dataset download vqa2", f"wget {server.url}{NAMES[0]}", alone=True)
    assert server.asked == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--what", "question"], ["--what takes questions, annotations, images or all", "'question'"]),
        (["--split", "test"], ["--split takes train, val or all", "'test'"]),
        (["--what", ","], ["is empty"]),
        (["--sha256", "x.zip=" + "0" * 64], ["'x.zip' is none of the files", NAMES[0]]),
        (["--sha256", "0" * 64], ["'' is none of the files"]),
        (["--sha256", f"{NAMES[0]}=12"], ["'12' is not a sha256", "64"]),
        (["--base-url", "ftp://mirror.example/"], ["--base-url takes an address", "'ftp://mirror.example/'"]),
        (["--base-url", "mirror.example"], ["--base-url takes an address"]),
        (["--images-url", "http://"], ["--images-url takes an address"]),
        (["--images-url", "http://a.example:x/"], ["--images-url takes an address"]),
        (["--images-url", "https://me:secret@a.example/"], ["--images-url takes an address"]),
        (["--images-url", "https://a.example/?x=1"], ["--images-url takes an address"]),
        (["--images-url", "https://a.example/a b"], ["--images-url takes an address"]),
        (["--jobs", "0"], ["--jobs"]),
        (["--retries", "-1"], ["--retries"]),
        (["--json", "--format", "csv"], ["contradict"]),
    ],
)
def test_a_mistake_on_the_line_is_one_sentence(
    metavqa: Terminal, server: Server, options: list[str], words: list[str]
) -> None:
    assert_refused(metavqa(*DOWNLOAD, *options), 2, *words, alone=True)
    assert server.asked == []


def test_another_source_is_named(metavqa: Terminal) -> None:
    assert_refused(metavqa("dataset", "download", "imagenet"), 2, "'imagenet'", "vqa2", alone=True)


def test_a_pin_is_kept_and_a_wrong_one_leaves_nothing(
    metavqa: Terminal, mirror: list[str], workspace: Workspace
) -> None:
    one = [*DOWNLOAD, *mirror, "--what", "questions", "--split", "train"]
    wrong = "f" * 64
    done = metavqa(*one, "--sha256", f"{NAMES[0]}={wrong}")
    assert_refused(done, 1, f"has the sha256 {SHA[NAMES[0]]}, but {wrong} was expected")
    assert not (workspace.root / "downloads" / "vqa2" / NAMES[0]).exists()
    assert metavqa(*one, "--sha256", f"{NAMES[0]}={SHA[NAMES[0]].upper()}").code == 0


@pytest.mark.parametrize("status", [404, 429, 503])
def test_a_server_that_refuses_is_exit_code_3(
    metavqa: Terminal, mirror: list[str], server: Server, status: int
) -> None:
    server.serve(NAMES[0], BODIES[NAMES[0]], *[Reply(status=status, headers=(("Retry-After", "0"),))] * 3)
    done = metavqa(*DOWNLOAD, *mirror, "--what", "questions", "--retries", "2")
    assert_refused(done, 3, f"{server.url}{NAMES[0]}", f"HTTP {status}")
    server.serve(NAMES[0], BODIES[NAMES[0]])
    again = data(metavqa(*DOWNLOAD, *mirror, "--what", "questions", "--json"))
    assert [row["state"] for row in again] == ["downloaded", "there"], "the other file was not lost"


def test_a_changed_file_is_exit_code_1(metavqa: Terminal, mirror: list[str], server: Server) -> None:
    server.serve(NAMES[0], BODIES[NAMES[0]] + b"grown")
    done = metavqa(*DOWNLOAD, *mirror, "--what", "questions")
    assert_refused(done, 1, f"has {len(BODIES[NAMES[0]]) + 5} bytes, but {len(BODIES[NAMES[0]])} were expected")


def test_unpack_says_what_is_wrong_with_an_archive(metavqa: Terminal, mirror: list[str]) -> None:
    done = metavqa(*DOWNLOAD, *mirror, "--what", "questions", "--split", "val", "--unpack")
    assert_refused(done, 1, f"{NAMES[1]} is damaged: File is not a zip file")


def test_a_second_download_into_the_folder_is_exit_code_5(metavqa: Terminal, mirror: list[str], tmp_path: Path) -> None:
    with locks.hold(tmp_path / verb.LOCK, "x"):
        done = metavqa(*DOWNLOAD, *mirror, "--to", str(tmp_path))
    assert_refused(done, 5, f"the download folder {tmp_path} is in use by process", alone=True)


def test_quiet_prints_data_and_nothing_else(metavqa: Terminal, mirror: list[str]) -> None:
    done = metavqa("-q", *DOWNLOAD, *mirror, "--what", "questions", "--json")
    assert len(data(done)) == 2 and done.err == ""


def test_ctrl_c_is_exit_code_130_and_the_same_command_fetches_only_the_rest(
    metavqa: Terminal, mirror: list[str], server: Server, tmp_path: Path
) -> None:
    name, there = NAMES[4], 20_000
    server.serve(name, BODIES[name], Reply(hold=there))
    options = [*DOWNLOAD, *mirror, "--what", "images", "--split", "train", "--to", str(tmp_path / "to"), "--json"]
    command = [sys.executable, "-c", APART, *CATALOGUE, *options]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert server.held.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert f"error: interrupted; the same command goes on with what is in {tmp_path / 'to'}" in err
    assert "Traceback" not in err
    found = tmp_path / "to" / f"{name}.part"  # not there if nothing had arrived yet
    part = found.stat().st_size if found.exists() else 0
    (row,) = data(metavqa(*options))
    assert row["sha256"] == SHA[name] and row["state"] == ("resumed" if part else "downloaded")
    assert server.firsts() == [None, part or None] and part <= there


def test_nothing_heavy_is_imported(mirror: list[str], tmp_path: Path) -> None:
    options = ["-w", str(tmp_path / "w"), *DOWNLOAD, *mirror, "--json"]
    done = python("-c", APART, *CATALOGUE, *options, cwd=tmp_path, NO_PROXY="127.0.0.1")
    assert done.code == 0 and len(json.loads(done.out)) == 6
    assert done.err.endswith("heavy: []\n")


def test_help_says_that_the_zips_need_no_unpacking(metavqa: Terminal) -> None:
    done = metavqa("dataset", "download", "--help")
    assert done.code == 0
    words = " ".join(done.out.split())
    assert "`dataset build` reads the zips as they are" in words and "METAVQA_VQA_URL" in words
