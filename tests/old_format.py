"""Artefacts as metavqa wrote them before there were seals, made of sealed ones; and changing a sealed document."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from metavqa_cli.store import sealed
from metavqa_cli.store.container import DATA, SEAL, WRITER
from metavqa_cli.store.tensors import TORCH, read_layout

SEALS = re.compile(rb', "crc": "[0-9a-f]{8}"}$', re.MULTILINE)


def rewrite(path: Path, **values: Any) -> None:
    """Change top-level ``values`` of a sealed (or unsealed) document, and seal it again."""
    document = {**json.loads(path.read_text("utf-8")), **values}
    document.pop("sha256", None)
    text = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8")
    path.write_bytes(sealed.seal(text.removesuffix(b"\n}")) if sealed.is_sealed(document) else text)


def unseal_document(path: Path, *others: str, **values: Any) -> None:
    """Take seal, writer and ``others`` from a document, and put in ``values``."""
    document = json.loads(path.read_text("utf-8"))
    for key in ("sha256", "written_by", "schema_version", *others):
        document.pop(key, None)
    path.write_text(json.dumps({**document, **values}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def unseal_tensors(path: Path) -> None:
    """A model, checkpoint, classifier or feature file as it was."""
    layout, data = read_layout(path), path.read_bytes()
    metadata = {key: value for key, value in layout.metadata.items() if key not in (DATA, SEAL, WRITER)}
    if "sha256" not in json.loads(metadata["metavqa"]):  # features have theirs in the header
        digest = hashlib.sha256()
        for name, entry in sorted(layout.tensors.items()):
            start, stop = (layout.data_start + offset for offset in entry["data_offsets"])
            digest.update(f"{name} torch.{TORCH[entry['dtype']]} {tuple(entry['shape'])}\n".encode())
            digest.update(data[start:stop])
        metadata["sha256"] = digest.hexdigest()
    head = json.dumps({"__metadata__": metadata, **layout.tensors}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[layout.data_start :])


def unseal_run(folder: Path) -> None:
    unseal_document(folder / "run.json", "config_sha256", schema_version=1)
    if (folder / "result.json").is_file():
        unseal_document(folder / "result.json", "record")
    if (folder / "events.jsonl").is_file():
        (folder / "events.jsonl").write_bytes(SEALS.sub(b"}", (folder / "events.jsonl").read_bytes()))
    for path in folder.glob("*.safetensors"):
        unseal_tensors(path)


def unseal_dataset(folder: Path) -> None:
    """All of a dataset, its manifest's record of the files included."""
    from metavqa_cli.engine.verify import describe_files

    for path in folder.glob("features/*.safetensors"):
        unseal_tensors(path)
    (folder / ".tasks.safetensors").unlink(missing_ok=True)
    unseal_document(folder / "recipe.json")
    unseal_document(folder / "dataset.json", schema_version=1, files=describe_files(folder))


def unseal_workspace(root: Path) -> None:
    for folder in (root / "runs").iterdir():
        unseal_run(folder)
    for folder in (root / "datasets").iterdir():
        if (folder / "dataset.json").is_file():
            unseal_dataset(folder)
