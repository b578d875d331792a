"""What a dataset says of itself, read without torch."""

import json
from pathlib import Path
from typing import Any

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.store.features import rebuild
from metavqa_cli.store.workspace import Workspace

SCHEMA_VERSION = 1


def read_manifest(path: Path) -> dict[str, Any]:
    """``dataset.json`` in the folder ``path``: configuration, encoder identity, counts and fingerprint.

    ``MissingError`` when there is no such dataset, ``JobError`` when it is damaged or of another version.
    """
    try:
        manifest = json.loads((path / "dataset.json").read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(
            f"there is no dataset {path.name!r} in {path.parent.parent}; build one with `metavqa dataset build`"
        ) from None
    except ValueError as error:
        raise JobError(f"{path}/dataset.json is damaged ({error}); {rebuild(path.name)}") from None
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise JobError(f"{path}/dataset.json is of another version; {rebuild(path.name)}")
    return manifest


def open_manifest(workspace: Workspace, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest of the dataset ``name``; errors as ``read_manifest``."""
    path = workspace.dataset_dir(name)
    return path, read_manifest(path)
