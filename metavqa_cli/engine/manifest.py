"""What a dataset says of itself, read without torch."""

from pathlib import Path
from typing import Any

from metavqa_cli.engine.site import MANIFEST, await_entrance
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.strict import check_types
from metavqa_cli.store.features import rebuild
from metavqa_cli.store.sealed import read_sealed
from metavqa_cli.store.workspace import Workspace

SCHEMA_VERSION = 2  # 1: without a seal
TYPES: dict[str, type | tuple[type, ...]] = {
    "fingerprint": str,
    "recipe": dict,
    "encoder": (dict, type(None)),
    "summary": dict,
}


def read_manifest(path: Path) -> dict[str, Any]:
    """``dataset.json`` in the folder ``path``: configuration, encoder identity, counts and fingerprint.

    ``MissingError`` when there is no such dataset, ``JobError`` when it is damaged or of another version.
    """
    document = path / MANIFEST
    await_entrance(path)
    try:
        manifest = read_sealed(document, SCHEMA_VERSION, rebuild(path.name))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(
            f"there is no dataset {path.name!r} in {path.parent.parent}; build one with `metavqa dataset build`"
        ) from None
    if manifest.get("schema_version") not in (1, SCHEMA_VERSION):
        raise JobError(f"{document} is of another version; {rebuild(path.name)}")
    try:
        check_types(manifest, {key: types for key, types in TYPES.items() if key in manifest})
    except ValueError as error:
        raise JobError(f"{document} is damaged ({error}); {rebuild(path.name)}") from None
    return manifest


def open_manifest(workspace: Workspace, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest of the dataset ``name``; errors as ``read_manifest``."""
    path = workspace.dataset_dir(name)
    return path, read_manifest(path)
