"""`metavqa verify`: whether everything in a workspace is what was written, and what depends on what is not. No torch.

Files are read a piece at a time, so that memory does not depend on their size.
"""

import hashlib
import shutil
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from metavqa_cli.clip.tiny import identity
from metavqa_cli.engine.manifest import read_manifest
from metavqa_cli.engine.run_audit import LATER, Finding, Problem, audit_run, reason
from metavqa_cli.engine.site import MANIFEST, RECIPE, TASK_INDEX, file_sizes
from metavqa_cli.engine.verify import verify_dataset
from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store import locks
from metavqa_cli.store.atomic import TEMPORARY, explained
from metavqa_cli.store.features import rebuild
from metavqa_cli.store.runs import Run
from metavqa_cli.store.sealed import NewerError, is_sealed
from metavqa_cli.store.tensors import check_tensors
from metavqa_cli.store.workspace import Workspace

A_DAY = 24 * 3600  # seconds


@dataclass(frozen=True)
class Audit:
    """How many runs, datasets and bytes were looked at, and what was found."""

    runs: int
    datasets: int
    bytes: int
    findings: tuple[Finding, ...]

    @property
    def bad(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.is_bad)


def verify_workspace(workspace: Workspace) -> Generator[Event, None, Audit]:
    """Look at every run, every dataset and the built-in CLIP model; yields progress.

    ``MissingError`` when there is no such workspace.
    """
    folders = [workspace.datasets_dir, workspace.runs_dir]
    if not any(folder.is_dir() for folder in folders):
        raise MissingError(f"there is no workspace in {workspace.root}; `metavqa quickstart` makes one")
    datasets = [path for path in _children(workspace.datasets_dir) if not path.name.startswith(".")]
    runs = [Run(path) for path in _children(workspace.runs_dir) if not path.name.startswith(".")]
    made_on, children = _lineage(runs)
    findings = [*audit_clip(), *_stray(workspace.datasets_dir), *_stray(workspace.runs_dir)]
    for path in datasets:
        found = yield from _dataset_audited(path, bool(made_on.get(path.name)))
        concerned = _all_from(made_on.get(path.name, ()), children)
        findings += [replace(each, runs=concerned) if _matters(each) else each for each in found]
    for done, run in enumerate(runs, 1):
        for finding in _audited(run):
            concerned = _all_from(children.get(run.id, ()), children) if _matters(finding) else ()
            findings.append(replace(finding, runs=concerned))
        yield ProgressMade("checking runs", done, len(runs), "runs")
    return Audit(len(runs), len(datasets), sum(map(_bytes, folders)), tuple(findings))


def _audited(run: Run) -> list[Finding]:
    """What is wrong with ``run``. What is bad is so twice in a row: a run goes on, ends, or is removed meanwhile."""
    found = [*audit_run(run)]
    if any(finding.is_bad for finding in found):
        before, found = found, [*audit_run(run)]
        found = [finding for finding in found if not finding.is_bad or finding in before]
    return found if run.path.is_dir() else []


def _matters(finding: Finding) -> bool:
    """Whether what was made from an artefact depends on what is wrong with it: not on a log, nor on an index."""
    return finding.is_bad and not finding.artefact.endswith(("events.jsonl", TASK_INDEX))


def verify_files(paths: Iterable[Path]) -> Audit:
    """Look at tensor files: classifiers, models, features, wherever they are. ``MissingError`` for one not there."""
    findings, count, size = list[Finding](), 0, 0
    for path in paths:
        count, size = count + 1, size + (path.stat().st_size if path.is_file() else 0)
        remedy = "restore it, or make it again with the command that wrote it"
        try:
            if not check_tensors(path):
                findings.append(Finding(str(path), "unsealed", "written by a metavqa that made no checksums of headers",
                                        remedy, path=path))  # fmt: skip
        except MissingError:
            raise
        except NewerError as error:
            findings.append(Finding(str(path), "newer", str(error), LATER, path=path))
        except (JobError, OSError) as error:
            findings.append(Finding(str(path), "damaged", reason(error), remedy, path=path))
    return Audit(0, 0, size, tuple(findings))


def audit_clip(folder: Path = identity.FOLDER) -> Iterator[Finding]:
    """The built-in CLIP model is the one of this version."""
    digest = hashlib.sha256()
    for name in identity.FILES:
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            detail = f"it cannot be read: {error.strerror}"
            yield Finding(str(folder / name), "missing", detail, "install metavqa again", path=folder / name)
            return
    if digest.hexdigest() != identity.SHA256:
        yield Finding(str(folder), "damaged", "the built-in CLIP model is not the one of this metavqa",
                      "install metavqa again", path=folder)  # fmt: skip


def _dataset_audited(path: Path, used: bool) -> Generator[Event, None, list[Finding]]:
    """What is wrong with the dataset in ``path``; without a manifest it is one when runs were made on it."""
    name, again = f"datasets/{path.name}", rebuild(path.name)
    if not (path / MANIFEST).is_file():
        if used:
            return [
                Finding(f"{name}/{MANIFEST}", "missing", "runs were made on the dataset", again, path=path / MANIFEST)
            ]
        begun = "a build that did not finish" if (path / RECIPE).is_file() else "a folder that is no dataset"
        return [Finding(name, "leftover", begun, f"build it, or `metavqa dataset rm {path.name}`", path=path)]
    found = list[Finding]()
    try:
        manifest = read_manifest(path)
        report = yield from verify_dataset(path)
    except NewerError as error:
        return [Finding(f"{name}/{MANIFEST}", "newer", str(error), LATER, path=path / MANIFEST)]
    except (MetaVQAError, OSError) as error:
        return [Finding(f"{name}/{MANIFEST}", "damaged", reason(error), again, path=path / MANIFEST)]
    for difference in report.differences:
        problem: Problem = "missing" if difference.problem in ("missing", "gone") else "damaged"
        detail = f"{difference.problem}: {difference.detail}"
        found.append(Finding(f"{name}/{difference.file}", problem, detail, again, path=path / difference.file))
    if (path / TASK_INDEX).is_file():
        with suppress(MissingError):
            found += [replace(each, artefact=f"{name}/{TASK_INDEX}", remedy=f"rm {path / TASK_INDEX}; it is made again")
                      for each in verify_files([path / TASK_INDEX]).findings if each.is_bad]  # fmt: skip
    if not is_sealed(manifest):
        detail = "written by a metavqa that made no checksum of its manifest"
        found.append(
            Finding(name, "unsealed", detail, "none needed: what is made from now on has checksums", path=path)
        )
    return [*found, *(replace(each, artefact=f"{name}/{each.artefact}") for each in _stray(path))]


def _stray(folder: Path) -> Iterator[Finding]:
    """What killed processes left directly in ``folder``."""
    clean = "metavqa verify --clean"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(TEMPORARY):
            yield Finding(path.name, "leftover", "a process was killed while it wrote or removed", clean, path=path)
        elif path.name.endswith(".lock.json") and not locks.is_held(path.with_suffix("")):
            yield Finding(path.name, "leftover", "the process that held the lock is gone", clean, path=path)


def _lineage(runs: Iterable[Run]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The runs made on each dataset, and those made from each run, as far as manifests can be read."""
    made_on: dict[str, list[str]] = {}
    children: dict[str, list[str]] = {}
    for run in runs:
        with suppress(MetaVQAError, OSError):
            manifest = run.manifest()
            made_on.setdefault(manifest["dataset"]["name"], []).append(run.id)
            for parent in manifest["parents"].values():
                children.setdefault(parent, []).append(run.id)
    return made_on, children


def _all_from(runs: Iterable[str], children: Mapping[str, list[str]]) -> tuple[str, ...]:
    """``runs`` and everything that was made from them, and so on."""
    found: dict[str, None] = {}
    waiting = list(runs)
    while waiting:
        run = waiting.pop()
        if run not in found:
            found[run] = None
            waiting += children.get(run, ())
    return tuple(sorted(found))


def _children(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _bytes(folder: Path) -> int:
    return sum(file_sizes(folder))


def remove_leftovers(audit: Audit, now: float | None = None) -> frozenset[Path]:
    """Remove what killed processes left and nobody needs, and return it: temporary files once they are a day old, for
    a younger one may be in the making; notes of dead owners of locks; checkpoints of finished runs."""
    removed = set[Path]()
    for finding in audit.findings:
        path = finding.path
        if finding.problem != "leftover" or path is None or not finding.remedy.endswith("--clean"):
            continue
        with explained(path), suppress(FileNotFoundError):
            if path.name.startswith(TEMPORARY) and (now or time.time()) - path.lstat().st_mtime < A_DAY:
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            removed.add(path)
    return frozenset(removed)
