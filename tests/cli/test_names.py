"""Files and folders may be called what a disk allows: each odd name goes through every command that takes one."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from metavqa_cli.schema.text import UNSAFE
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.cli.pipeline import furnished
from tests.cli.terminal import Terminal, assert_refused

ASKED = ("What color is the car?", "--answers", "red,blue,green")
NAMES = {
    "spaces": " a  b ",
    "a newline": "a\nb",
    "a leading dash": "-rf",
    "an option": "--help",
    "a home": "./~nobody",
    "a pattern": "[a]*?{b}",
    "a shell": "$(id) `id` 'a' \"b\" ;|&",
    "emoji": "🎈👩\u200d👧❤\ufe0f",
    "composed": "caf\u00e9",
    "decomposed": "cafe\u0301",
    "right to left": "\u05e9\u05dc\u05d5\u05dd",
    "an override": "a\u202eb",
    "a sequence": "\x1b]0;x\x07\x9b",
    "no UTF-8": "a\udcff\udc80",
    "hidden": ".a",
    "like a temporary file": ".tmp-1",
    "a backslash": "a\\b",
    "a word of Windows": "CON",
    "trailing dots": "a..",
    "255 bytes": "x" * 255,
    "255 bytes of letters": "é" * 127,
    "255 bytes of emoji": "🎈" * 63,
}


USUAL = ("a newline", "an option", "an override", "no UTF-8", "255 bytes of emoji")
CASES = [case if case in USUAL else pytest.param(case, marks=pytest.mark.nightly) for case in NAMES]


def called(name: str, suffix: str = "") -> str:
    """The name with a suffix, as long as a disk allows."""
    whole = os.fsencode(name)[: 255 - len(suffix)].decode("utf-8", "ignore") if len(os.fsencode(name)) > 250 else name
    return whole + suffix


@pytest.fixture
def here(metavqa: Terminal, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    furnished(workspace, monkeypatch)
    return tmp_path / "here"


@pytest.mark.parametrize("case", CASES)
def test_an_odd_name_is_a_name(case: str, here: Path, metavqa: Terminal) -> None:
    image, folder = called(NAMES[case], ".png"), called(NAMES[case])
    made, sheet = called(NAMES[case], ".safetensors"), called(NAMES[case], "s.png")
    source = miniature.dataset()
    picture = source.image_path(source.tasks.image_ids()[0]).read_bytes()
    (here / image).write_bytes(picture)
    (here / folder).mkdir()
    (here / folder / image).write_bytes(picture)
    asked = metavqa("ask", *ASKED, "--sheet", sheet, "--json", "--", image, folder)
    assert asked.code == 0, asked.err
    names = [entry["image"] for entry in json.loads(asked.out)["images"]]
    assert sorted(map(os.fsencode, names)) == sorted(map(os.fsencode, (image, str(Path(folder, image)))))
    assert (here / sheet).read_bytes().startswith(b"\x89PNG")
    done = metavqa("generate", *ASKED, "-o", made)
    assert done.code == 0, done.err
    judged = metavqa("predict", "--", made, image, folder)
    assert judged.code == 0 and judged.out.count("\n") == 3, judged.err
    assert all(UNSAFE.search(text) is None for text in (*asked.__dict__.values(), *judged.__dict__.values(), done.err)
               if isinstance(text, str))  # fmt: skip
    assert {path.name for path in here.iterdir()} == {image, folder, made, sheet}, "nothing temporary is left"


@pytest.mark.parametrize("case", CASES)
def test_an_odd_name_of_a_configuration_a_workspace_and_a_table(case: str, metavqa: Terminal, tmp_path: Path) -> None:
    here = tmp_path / "here"
    settings, folder, table = called(NAMES[case], ".toml"), called(NAMES[case]), called(NAMES[case], ".csv")
    assert metavqa("config", "init", "--", settings).code == 0
    shown = metavqa("config", "show", "seed", f"--config={settings}", "--json")
    assert shown.code == 0, shown.err
    (here / folder).mkdir()
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 90, 10)).save(here / folder / f"{number}.png")
    lines = [
        f"{n}.png,{question},{'ab'[n % 2]}"
        for question in ("What is it?", "Who is it?", "Where is it?", "Why is it?")
        for n in range(6)
    ]
    (here / folder / table).write_text("\n".join(["image,question,answer", *lines]), "utf-8")
    built = metavqa(f"--workspace={folder}", "dataset", "build", "--source", "folder", f"--path={folder}",
                    "--name", "odd", "--min-pairs", "2", "--set", "runtime.workers=1")  # fmt: skip
    if "\udcff" in NAMES[case]:
        assert_refused(built, 2, "is not UTF-8; rename it")
        return
    assert built.code == 0, built.err
    assert metavqa(f"--workspace={folder}", "dataset", "ls", "--json").out.count('"odd"') == 1
    verified = metavqa(f"--workspace={folder}", "dataset", "verify", "odd", "--images")
    assert verified.code == 0, verified.err + verified.out


@pytest.mark.parametrize("name", ["../x", "/x", "-rf", ".x", "..", "a/b", "a\\b", "a b", "é", "x" * 101, "a\n"])
def test_a_name_of_a_dataset_is_plain(name: str, metavqa: Terminal, workspace: Workspace) -> None:
    assert_refused(metavqa("dataset", "build", f"--name={name}"), 2, "dataset.name")
    for command in ("info", "verify", "rm"):
        assert metavqa("dataset", command, "--", name).code == 3
    assert not workspace.root.exists()


def test_a_name_that_is_too_long_is_explained(metavqa: Terminal) -> None:
    assert_refused(metavqa("config", "init", "x" * 256), 1, "too long")
    for command in (
        ["predict", "x" * 256, "y"],
        ["config", "show", "--config", "x" * 256],
        ["-w", "x" * 256, "runs", "ls"],
    ):
        done = metavqa(*command)
        assert done.code in (0, 1, 2, 3) and "unexpected" not in done.err, done.err
