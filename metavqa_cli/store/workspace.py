"""The folder that holds a person's datasets and runs."""

import os
from dataclasses import dataclass
from pathlib import Path

from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.store.home import own_folder


@dataclass(frozen=True)
class Workspace:
    """``root/datasets/<name>/`` and ``root/runs/<id>/``. Nothing is created until something is written."""

    root: Path

    @staticmethod
    def default_root() -> Path:
        """``METAVQA_WORKSPACE``, or ``metavqa`` under the platform's folder for user data.

        ``UsageError`` for somebody without a home.
        """
        chosen = os.environ.get("METAVQA_WORKSPACE")
        if chosen:
            return Path(chosen).expanduser().absolute()
        own = own_folder("data")
        if own is None:
            raise UsageError("there is no home folder to keep runs in; name one with --workspace or METAVQA_WORKSPACE")
        return own

    @property
    def datasets_dir(self) -> Path:
        return self.root / "datasets"

    @property
    def runs_dir(self) -> Path:
        return self.root / "runs"

    def dataset_dir(self, name: str) -> Path:
        """Where dataset ``name`` lives, whether it exists or not. ``MissingError`` for a name that leads elsewhere."""
        if (
            name in ("", ".", "..") or Path(name).name != name or "\0" in name
        ):  # as a run's record may say, which somebody else wrote
            raise MissingError(f"there is no dataset {name!r} in {self.root}; `metavqa dataset ls` lists what there is")
        return self.datasets_dir / name

    def datasets(self) -> list[str]:
        """Names of the complete datasets (those with a manifest), sorted."""
        return _folders_with(self.datasets_dir, "dataset.json")

    def run_ids(self) -> list[str]:
        """Ids of all runs, sorted."""
        return _folders_with(self.runs_dir, "run.json")


def _folders_with(parent: Path, manifest: str) -> list[str]:
    if not parent.is_dir():
        return []
    return sorted(folder.name for folder in parent.iterdir() if folder.name[0] != "." and (folder / manifest).is_file())
