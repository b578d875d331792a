"""What a dataset says of itself, read without torch."""

from pathlib import Path
from typing import Any

from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.strict import check_types, parse_json
from metavqa_cli.store.features import rebuild
from metavqa_cli.store.workspace import Workspace

SCHEMA_VERSION = 1
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
    try:
        manifest = parse_json((path / "dataset.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(
            f"there is no dataset {path.name!r} in {path.parent.parent}; build one with `metavqa dataset build`"
        ) from None
    except ValueError as error:
        raise JobError(f"{path}/dataset.json is damaged ({error}); {rebuild(path.name)}") from None
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise JobError(f"{path}/dataset.json is of another version; {rebuild(path.name)}")
    try:
        check_types(manifest, {key: types for key, types in TYPES.items() if key in manifest})
    except ValueError as error:
        raise JobError(f"{path}/dataset.json is damaged ({error}); {rebuild(path.name)}") from None
    return manifest


def open_manifest(workspace: Workspace, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest of the dataset ``name``; errors as ``read_manifest``."""
    path = workspace.dataset_dir(name)
    return path, read_manifest(path)
