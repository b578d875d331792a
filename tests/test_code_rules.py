"""The code trusts nothing it loads, has one gate for each kind of danger, and the rules that say so can fail."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from metavqa_cli.schema.text import UNSAFE
from tests.code_rules import RULES, broken

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "metavqa_cli"
ALLOWED: dict[str, set[str]] = {
    "loads a program of torch": {"clip/weights.py"},  # OpenAI's own files, known by their sha256
    "network beside the gate": {
        "store/web.py", "store/fetch.py",
        "store/locks.py", "tui/jobs.py",  # the name of this machine
    },
    "checks with assert": {  # what the code itself has made so; never what came from a person or a file
        "cli/curves.py", "engine/judged.py", "engine/together.py", "engine/world.py", "guidance/anchor.py",
        "tui/axes.py", "tui/filters.py", "tui/series.py", "tui/task_feed.py", "tui/widgets/one_picture.py",
    },
    "writable by all": {"store/atomic.py"},  # reads the umask, which can only be done by setting it, and keeps to it
    "chosen by data": {
        "tui/app.py", "tui/graphics.py",  # modules by constants of the program
        "tui/screens/ask.py",  # methods by the program's own keys
        "engine/world.py",  # the class of an error that another process of the same job met
    },
    "opens archives": {
        "store/zips.py", "store/unpack.py", "clip/archives.py", "clip/weights.py", "tasks/sources/packed.py",
        "clip/tiny/tokenizer.py",  # the vocabulary that open_clip brings
    },
    "opens an image": {"clip/images.py"},
    "writes beside the gate": {
        "store/atomic.py", "store/container.py",  # to the temporary path of `atomic_path`
        "store/fetch.py", "store/unpack.py",  # to `.part` and temporary files of their own
        "store/locks.py",  # the name of a lock's owner, which need not outlive a power cut
        "store/log.py", "clip/tiny/train.py",  # logs, which grow
        "tui/jobs.py",  # the output of a process, as it comes
        "cli/app.py", "cli/console.py",  # os.devnull
    },
    "prints beside the gate": {
        "cli/console.py",  # the gate
        "cli/curves.py",  # a drawing whose words are neutral
        "cli/tui.py",  # a frame, which the dashboard's own gate has passed
        "clip/tiny/train.py", "clip/tiny/retrieval.py",  # scripts that print their own numbers
    },
}  # fmt: skip
EVERYWHERE = ("hands a line to a shell", "loads tensors with code in them", "does not verify the server", "weak hash",
              "loads arrays with pickles in them", "guessable temporary file")  # fmt: skip
BAD: dict[str, list[str]] = {
    "runs text as code": [
        "eval(x)",
        "exec(x)",
        "compile(x, y, 'exec')",
        "__import__(x)",
        "globals()[x]()",
        "import builtins\nbuiltins.eval(x)",
        "from builtins import exec as e\ne(x)",
    ],
    "unpickles": [
        "import pickle",
        "from pickle import loads",
        "import cPickle",
        "import dill",
        "import shelve",
        "import marshal",
        "import yaml",
        "from yaml import load",
        "import joblib",
        "def f():\n import pickle",
    ],
    "loads tensors with code in them": [
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "from torch import load\nload(p)",
        "import torch as t\nt.load(p, weights_only=w)",
    ],
    "loads a program of torch": [
        "import torch\ntorch.jit.load(p)",
        "from torch import hub\nhub.load(r, m)",
    ],
    "loads arrays with pickles in them": [
        "import numpy as np\nnp.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "from numpy import load\nload(p, allow_pickle=x)",
    ],
    "hands a line to a shell": [
        "import subprocess\nsubprocess.run(x, shell=True)",
        "run(x, shell=y)",
        "import os\nos.system(x)",
        "from os import popen\npopen(x)",
        "import subprocess\nsubprocess.run('ls -l')",
        "from subprocess import Popen\nPopen(f'ls {x}')",
        "import os\nos.execvp(x, y)",
    ],
    "guessable temporary file": [
        "import tempfile\ntempfile.mktemp()",
        "open('/tmp/x')",
        "x = '/var/tmp'",
    ],
    "weak hash": [
        "import hashlib\nhashlib.md5(x)",
        "from hashlib import sha1\nsha1(x)",
        "import hashlib\nhashlib.new('MD5')",
    ],
    "does not verify the server": [
        "get(u, verify=False)",
        "import ssl\nssl._create_unverified_context()",
        "context.check_hostname = False",
        "import ssl\nc.verify_mode = ssl.CERT_NONE",
    ],
    "network beside the gate": [
        "import urllib.request",
        "from urllib import request",
        "import requests",
        "import socket",
        "from urllib.request import urlopen",
        "import httpx",
    ],
    "parses XML": [
        "import xml.etree.ElementTree as E",
        "from lxml import etree",
        "from xml.sax import parse",
    ],
    "calls foreign code": [
        "import ctypes",
        "from ctypes import CDLL",
    ],
    "checks with assert": [
        "assert size < 10",
        "def f(x):\n assert x",
    ],
    "swallows an error": [
        "try:\n f()\nexcept:\n g()",
        "try:\n f()\nexcept Exception:\n pass",
        "try:\n f()\nexcept OSError:\n ...",
        "from contextlib import suppress\nwith suppress(Exception):\n f()",
    ],
    "writable by all": [
        "import os\nos.chmod(p, 0o777)",
        "p.chmod(0o666)",
        "import os\nos.umask(0)",
    ],
    "shared or guessable randomness": [
        "import random\nrandom.random()",
        "from random import choice\nchoice(x)",
        "import uuid\nuuid.uuid1()",
        "import random\nrandom.seed(0)",
    ],
    "chosen by data": [
        "from importlib import import_module\nimport_module(x)",
        "getattr(module, name)()",
        "import importlib\nimportlib.import_module(f'a.{x}')",
    ],
    "extracts an archive": [
        "z.extractall(p)",
        "z.extract(m, p)",
        "import shutil\nshutil.unpack_archive(p)",
    ],
    "opens archives": [
        "import zipfile",
        "import tarfile",
        "from zipfile import ZipFile",
        "import gzip",
    ],
    "opens an image": [
        "from PIL import Image\nImage.open(p)",
        "import PIL.Image\nPIL.Image.open(p)",
    ],
    "writes beside the gate": [
        "open(p, 'w')",
        "p.open('wb')",
        "p.open('a')",
        "open(p, mode='r+b')",
        "p.write_text(x)",
        "p.write_bytes(x)",
        "import shutil\nshutil.copyfile(a, b)",
        "import torch\ntorch.save(x, p)",
    ],
    "prints beside the gate": [
        "print(x)",
        "import sys\nsys.stdout.write(x)",
        "import typer\ntyper.echo(x)",
        "input(x)",
        "from sys import stderr\nstderr.write(x)",
        "import os\nos.write(1, x)",
    ],
    "reads markup": [
        "from rich.text import Text\nText.from_markup(x)",
        "Static(x, markup=True)",
    ],
}
GOOD = """
import hashlib, os, random, re, subprocess, sys
import numpy as np
import torch
from importlib import import_module
from metavqa_cli.store.atomic import write_text

model.eval(); re.compile(x); compiled(x); torch.compile(model); torch.load(p, weights_only=True)
np.load(p, allow_pickle=False); subprocess.run([sys.executable, x]); subprocess.run(["ls"], shell=False)
hashlib.sha256(x); random.Random(seed).random(); import_module("metavqa_cli.tui.app")
getattr(x, "name")(); getattr(x, n)
p.open(); p.open("rb"); open(p); write_text(p, x); p.chmod(0o600); Static(x, markup=False); "a/tmp/b"; console.print(x)
try:
    f()
except OSError:
    g()
"""


def sources(folder: Path) -> Iterator[tuple[str, str]]:
    """Every module below a folder: its path from there, and its text."""
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path.read_text("utf-8")


@cache
def found() -> dict[str, dict[str, list[int]]]:
    """The lines of the package that break a rule, by rule and file."""
    lines: dict[str, dict[str, list[int]]] = {rule: {} for rule in RULES}
    for name, source in sources(PACKAGE):
        for rule, line in broken(source):
            lines[rule].setdefault(name, []).append(line)
    return lines


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule: str) -> None:
    others = {name: lines for name, lines in found()[rule].items() if name not in ALLOWED.get(rule, set())}
    assert not others, f"{rule}: {others}"


@pytest.mark.parametrize("rule", ALLOWED)
def test_no_exception_is_granted_that_nobody_needs(rule: str) -> None:
    assert ALLOWED[rule] == found()[rule].keys() & ALLOWED[rule]


def test_the_tests_keep_what_holds_everywhere() -> None:
    lines = [(name, *one) for name, source in sources(ROOT / "tests") for one in broken(source, EVERYWHERE)]
    assert not lines


@pytest.mark.parametrize(("rule", "snippet"), [(rule, one) for rule, some in BAD.items() for one in some])
def test_each_rule_finds_what_it_forbids(rule: str, snippet: str) -> None:
    assert rule in {name for name, _ in broken(snippet)}


def test_every_rule_has_an_example_and_none_forbids_what_is_right() -> None:
    assert BAD.keys() == RULES.keys()
    assert list(broken(GOOD)) == []


def test_no_tracked_text_hides_or_reorders_anything() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode()
    if not tracked:
        pytest.skip("not a checkout")
    checked = 0
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).suffix not in (".png", ".safetensors") and (ROOT / name).is_file():
            text, checked = (ROOT / name).read_bytes().decode("utf-8"), checked + 1
            assert UNSAFE.search(text) is None, f"{name}: {UNSAFE.search(text)}"
    assert checked > 500
