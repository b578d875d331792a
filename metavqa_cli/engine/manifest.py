"""What a dataset says of itself, read without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metavqa_cli.engine.site import MANIFEST, await_entrance
from metavqa_cli.schema.errors import JobError, MissingError
from metavqa_cli.schema.strict import check_types
from metavqa_cli.store.container import digest
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
READ_ALWAYS = 64 * 2**20  # bytes of a file whose SHA-256 is compared at each opening: 0.15 s


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
        check_types(manifest, TYPES)
        check_types(manifest["recipe"], {"dataset": dict, "clip": dict})
    except ValueError as error:
        raise JobError(f"{document} is damaged ({error}); {rebuild(path.name)}") from None
    return manifest


def recorded(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """The record of each file of a dataset by its name (``engine.verify``); None without a sound one."""
    files = manifest.get("files")
    sound = isinstance(files, dict) and all(isinstance(entry, dict) for entry in files.values())
    return files if sound else None


def check_recorded(folder: Path, name: str, *, up_to: int | None = READ_ALWAYS) -> None:
    """``JobError`` when the file ``name`` of the dataset in ``folder`` is not the one that was built.

    Of more than ``up_to`` bytes `metavqa verify` tells. A dataset without a manifest or its record has none to differ,
    and one without features may be in the middle of the build that adds them.
    """
    path = folder / name
    try:
        manifest = read_manifest(folder)
        entry = (recorded(manifest) or {}).get(name) if manifest["encoder"] is not None else None
        if entry is None or not path.is_file() or (up_to is not None and path.stat().st_size > up_to):
            return
    except MissingError:
        return
    if digest(path) != entry.get("sha256"):
        raise JobError(f"{path} is damaged or was changed after it was built; {rebuild(folder.name)}")


def open_manifest(workspace: Workspace, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the manifest of the dataset ``name``; errors as ``read_manifest``."""
    path = workspace.dataset_dir(name)
    return path, read_manifest(path)
