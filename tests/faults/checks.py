"""What a workspace holds, without what differs from run to run, and whether every file in it is whole."""

import hashlib
import json
from pathlib import Path
from typing import Any

from PIL import Image

from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.atomic import TEMPORARY
from metavqa_cli.store.tensors import read_layout

TIMES = {"created", "seconds", "at", "since", "took"}  # keys of records that tell when, not what
UNTIMED = {"events.jsonl"}  # a log tells when
Contents = dict[str, Any]


def contents(root: Path) -> Contents:
    """By path: a digest of every visible file below ``root``, of records without their times."""
    return {name: _digest(path) for name, path in files(root) if not _is_hidden(name) and path.name not in UNTIMED}


def hidden(root: Path) -> set[str]:
    """The paths below ``root`` that begin with a dot, drafts under one name: what a listing does not show."""
    found = set()
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.name.startswith(".") and not _is_hidden(path.parent.relative_to(root).as_posix()):
            found.add(name)
    return found


def drafts(root: Path) -> list[str]:
    """Temporary files and folders that nobody is at any more."""
    return sorted(name for name in hidden(root) if Path(name).name.startswith(TEMPORARY))


def torn(root: Path) -> list[str]:
    """Visible files below ``root`` that are not whole: half a record, half an image, a wrong length."""
    return [f"{name}: {fault}" for name, path in files(root) if not _is_hidden(name) and (fault := _fault(path))]


def files(root: Path) -> list[tuple[str, Path]]:
    return sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.is_file())


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != "." for part in name.split("/"))


def _digest(path: Path) -> str:
    if path.suffix == ".json":
        record = _timeless(json.loads(path.read_text("utf-8")))
        if "written_by" in record:  # sealed
            record.pop("sha256")  # the seal, also of times
            record.get("record", {}).pop("events", None)  # the length and sum of the log
        value = json.dumps(record, sort_keys=True).encode()
    elif path.suffix == ".safetensors":  # the library writes its metadata in no order
        layout = read_layout(path)
        value = json.dumps([layout.metadata, layout.tensors], sort_keys=True).encode()
        value += path.read_bytes()[layout.data_start :]
    else:
        value = path.read_bytes()
    return hashlib.sha256(value).hexdigest()[:16]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _fault(path: Path) -> str | None:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".jsonl" and path.name != "events.jsonl":  # a log may end in half a line
            for line in path.read_text("utf-8").splitlines():
                json.loads(line)
        elif path.suffix == ".safetensors":
            read_layout(path)
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
    except (MetaVQAError, OSError, ValueError, SyntaxError) as error:
        return str(error)
    return None
