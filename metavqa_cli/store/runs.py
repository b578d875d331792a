"""Runs on disk: one folder each, whose state is read off its files, so that nothing can disagree with them.

``run.json`` (who it is), ``config.toml`` (fully resolved), ``events.jsonl`` (what happened), ``model.safetensors`` and
``state.safetensors`` (weights; optimiser, RNG and step), ``result.json`` (only when finished). The lock of a run lies
beside its folder (``.ID.lock``) and stays when the run is removed: two processes must not hold two files of one name.

``run.json`` and ``result.json`` are sealed; the former holds the checksum of ``config.toml``, the latter what belongs
to the finished run: its model's seal, and length and checksum of its log as it was then. Runs of before there were
seals (schema version 1) are read as they are, and sealed when they are gone on with.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from metavqa_cli.schema.errors import JobError, MissingError, RemovedError, UsageError
from metavqa_cli.schema.events import Event, RunFailed, RunInterrupted, RunStarted
from metavqa_cli.schema.strict import check_types, kind, parse_toml
from metavqa_cli.store import locks, log
from metavqa_cli.store.atomic import explained, sweep, sync_file, sync_folder, temporary_name, write_text
from metavqa_cli.store.container import SEAL
from metavqa_cli.store.sealed import file_sum, is_sealed, read_sealed, read_small, write_sealed
from metavqa_cli.store.tensors import read_layout
from metavqa_cli.store.workspace import Workspace

SCHEMA_VERSION = 2  # 1: without seals
KEY_VERSION = 1  # of what a key is made of; another one would lose every finished run
REQUIRED = {"kind": str, "key": str, "parents": dict, "dataset": dict, "created": str}
CONFIG_SUM = "config_sha256"
RESULT_OWN = {"record", "schema_version", "written_by"}  # what result.json holds besides the result

RunState = Literal["running", "finished", "failed", "interrupted", "stale"]


@dataclass(frozen=True)
class Run:
    """A handle on a run's folder; reads are fresh every time."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def kind(self) -> str:
        return str(self.manifest()["kind"])

    @property
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def state_path(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    def manifest(self) -> dict[str, Any]:
        """``kind, id, key, parents {role: id}, dataset {name, fingerprint}, created, schema_version`` and extras."""
        path = self.path / "run.json"
        manifest = _read_json(path)
        version = manifest.get("schema_version")
        if version not in (1, SCHEMA_VERSION):
            raise JobError(f"{path} has schema version {version!r:.20}, not {SCHEMA_VERSION}; {_removal(path)}")
        if version != 1 and manifest.get("id") != self.id:
            raise JobError(f"{path} is of the run {manifest.get('id')!r:.60}, not of {self.id}; {_removal(path)}")
        try:
            check_types(manifest, REQUIRED if version == 1 else {**REQUIRED, CONFIG_SUM: str})
            check_types(manifest["dataset"], {"name": str, "fingerprint": str})
            check_types(manifest["parents"], dict.fromkeys(manifest["parents"], str))
        except ValueError as error:
            raise JobError(f"{path} is damaged ({error}); {_removal(path)}") from None
        return manifest

    def is_intact(self) -> bool:
        """Whether the manifest can be read."""
        try:
            return bool(self.manifest())
        except (JobError, MissingError):
            return False

    def config(self) -> dict[str, Any]:
        """The fully resolved configuration (sections of plain values). A value of None is absent: TOML has none.

        ``config.toml`` is what the run began with; what was overridden since stands in the manifest, and counts.
        """
        path = self.path / "config.toml"
        stated = self.manifest().get(CONFIG_SUM)
        try:
            raw = read_small(path, _removal(path))
            if stated not in (None, hashlib.sha256(raw).hexdigest()):
                raise JobError(f"{path} is damaged or was changed after it was written; {_removal(path)}")
            return self._overridden(parse_toml(raw))
        except FileNotFoundError:
            raise MissingError(f"{path} is missing; {_removal(path)}") from None
        except ValueError as error:
            raise JobError(f"{path} is damaged ({error}); {_removal(path)}") from None

    def overrides(self) -> list[dict[str, Any]]:
        """What was changed while it went on, oldest first: ``at``, ``step``, ``changes`` {dotted key: [old, new]}."""
        found = self.manifest().get("overrides", [])
        if not isinstance(found, list) or not all(map(_is_override, found)):
            raise JobError(
                f"{self.path / 'run.json'} is damaged (what was overridden); {_removal(self.path / 'run.json')}"
            )
        return found

    def _overridden(self, config: dict[str, Any]) -> dict[str, Any]:
        changes = {key: new for entry in self.overrides() for key, (_, new) in entry["changes"].items()}
        for key, new in changes.items():
            section, _, name = key.partition(".")
            values = config.setdefault(section, {})
            if not isinstance(values, dict):
                raise ValueError(f"{section!a} is no table")
            values[name] = new
        return config

    def result(self) -> dict[str, Any] | None:
        """What the finished run measured, or None."""
        path = self.path / "result.json"
        if not path.is_file():
            return None
        document = _read_json(path)
        record = document.get("record", {})
        if not isinstance(record, dict):
            raise JobError(f"{path} is damaged (its record is {kind(record)}); {_removal(path)}")
        if is_sealed(document) and (found := record.get("run")) != self.id:
            raise JobError(f"{path} is of the run {found!r:.60}, not of {self.id}; {_removal(path)}")
        return {name: value for name, value in document.items() if name not in RESULT_OWN}

    def record(self) -> dict[str, Any] | None:
        """What belonged to the run when it finished: ``run``, ``model`` (its seal), ``events`` {bytes, sha256}.

        None of a run that has not, or did before there were seals. Errors as ``result``.
        """
        path = self.path / "result.json"
        record = _read_json(path).get("record") if self.result() is not None else None
        if record is not None:
            try:
                check_types(record, {"model": (str, type(None)), "events": dict})
                check_types(record["events"], {"bytes": int, "sha256": str})
            except ValueError as error:
                raise JobError(f"{path} is damaged (its record: {error}); {_removal(path)}") from None
        return record

    def own(self, path: Path, header: Mapping[str, Any], remedy: str) -> None:
        """``JobError`` when the tensor file ``path`` of this run says that it is another run's."""
        if header.get("run", self.id) != self.id:
            raise JobError(f"{path} is of the run {header['run']!r}, not of {self.id}; {remedy}")

    def finish(self, result: dict[str, Any]) -> None:
        """Mark the run as finished with ``result``."""
        if own := sorted(RESULT_OWN & result.keys()):
            raise ValueError(f"a result cannot hold {', '.join(own)}")
        document = {**result, "record": self._record(), "schema_version": SCHEMA_VERSION}
        write_sealed(self.path / "result.json", document)

    def _record(self) -> dict[str, Any]:
        """What belongs to the run now; the log is on the disk before anything vouches for it."""
        self._sync_log()
        log_bytes, log_sum = log.measure(self.events_path)
        model = read_layout(self.model_path).metadata.get(SEAL) if self.model_path.is_file() else None
        return {"run": self.id, "model": model, "events": {"bytes": log_bytes, "sha256": log_sum}}

    def mark_log(self) -> dict[str, Any]:
        """What a checkpoint says of the log (``log.mark``), which is on the disk by then."""
        self._sync_log()
        return log.mark(self.events_path)

    def _sync_log(self) -> None:
        if self.events_path.is_file():
            with explained(self.events_path):
                sync_file(self.events_path)

    def amend(self, values: dict[str, Any]) -> None:
        """Add ``values`` to the manifest. For whoever holds the run's lock. A run without seals is sealed by it."""
        manifest = {**self.manifest(), **values}
        if manifest["schema_version"] == 1:
            log.seal(self.events_path)
            manifest |= {CONFIG_SUM: file_sum(self.path / "config.toml"), "schema_version": SCHEMA_VERSION}
        write_sealed(self.path / "run.json", manifest)

    def state(self) -> RunState:
        """finished: has a result; running: a living process holds the lock; else how its last process ended."""
        if (self.path / "result.json").is_file():
            return "finished"
        if self.is_held():
            return "running"
        if (self.path / "result.json").is_file():  # which its last holder wrote since we looked
            return "finished"
        return _ending(self.events_path)

    def append(self, event: Event) -> None:
        """Add one event to the log, with the time (``at``, seconds since 1970)."""
        log.append(self.events_path, event)

    def events(self, offset: int = 0) -> tuple[list[Event], int]:
        """The events from byte ``offset`` on, and the offset to ask for next (see ``log.read``)."""
        return log.read(self.events_path, offset)

    @contextmanager
    def lock(self, patience: float = locks.PATIENCE_SECONDS) -> Iterator[locks.Owner | None]:
        """Hold this run for the body, which gets the process that was killed while it held the run, if one was.

        ``BusyError`` names the run, the process and the age if it stays taken; ``RemovedError`` if it is not there.
        """
        with locks.hold(self.lock_path, f"run {self.id}", patience) as left:
            if not self.path.is_dir():
                way_out = "run the command again, or choose another one from `metavqa runs ls`"
                raise RemovedError(f"run {self.id} has been removed meanwhile; {way_out}")
            sweep(self.path, age=0)  # half a file of a process that was killed: a checkpoint may have gigabytes
            yield left

    def holder(self) -> str:
        """Who holds the run, where and since when, as far as that is known."""
        return locks.holder(self.lock_path)

    def owner(self) -> locks.Owner | None:
        """The process that last held the run, as far as that is known."""
        return locks.read_owner(self.lock_path)

    def is_held(self) -> bool:
        """Whether a living process works on this run."""
        return locks.is_held(self.lock_path)

    @property
    def lock_path(self) -> Path:
        return self.path.with_name(f".{self.id}.lock")


def run_key(kind: str, sections: dict[str, Any], parents: dict[str, str], dataset_fingerprint: str) -> str:
    """SHA-256 of everything that a run's outcome depends on: equal key, equal run.

    ``sections`` are the parts of the configuration named in ``schema.config.RUN_SECTIONS``.
    """
    inputs = [KEY_VERSION, kind, sections, parents, dataset_fingerprint]
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def list_runs(workspace: Workspace, prefix: str = "") -> list[Run]:
    """All runs with an intact manifest (whose id begins with ``prefix``), oldest first."""
    return [run for run, _ in manifests(workspace, prefix)]


def manifests(workspace: Workspace, prefix: str = "") -> list[tuple[Run, dict[str, Any]]]:
    """As ``list_runs``, each with its manifest as it was read at this moment: the run may be gone at the next."""
    found = []
    for run in (Run(workspace.runs_dir / name) for name in workspace.run_ids() if name.startswith(prefix)):
        with suppress(JobError, MissingError):
            found.append((run, run.manifest()))
    return sorted(found, key=lambda pair: (pair[1]["created"], pair[0].id))


def find(workspace: Workspace, kind: str, key: str) -> Run | None:
    """The newest finished run with exactly this key, else the newest in whatever state.

    Reads only the folders that can hold it, by their names: a table asks for hundreds of runs among hundreds.
    """
    own = [run for run, manifest in manifests(workspace, prefix=_base(kind, key)) if manifest["key"] == key]
    finished = [run for run in own if run.state() == "finished"]
    return next(reversed(finished or own), None)


def agrees(run: Run, values: Mapping[str, Any], sections: Sequence[str]) -> bool:
    """Whether ``run`` was made with the same as ``values`` (as JSON) in these ``sections``, and nothing overridden."""
    config = run.config()
    return not run.overrides() and all(
        config.get(section) == {name: value for name, value in values[section].items() if value is not None}
        for section in sections
    )


def newest(
    workspace: Workspace,
    kind: str,
    *,
    finished: bool = True,
    match: Callable[[Run], bool] | None = None,
    rather: Callable[[Run], bool] | None = None,
) -> Run | None:
    """The newest run of ``kind`` that ``match`` accepts; only finished ones, unless ``finished=False``.

    One that ``rather`` accepts too goes before newer ones that it does not.
    """
    second = None
    for run, manifest in reversed(manifests(workspace)):
        if manifest["kind"] != kind or (finished and run.state() != "finished"):
            continue
        with unless_removed(run):
            if match is None or match(run):
                if rather is None or rather(run):
                    return run
                second = second or run
    return second


@contextmanager
def unless_removed(run: Run) -> Iterator[None]:
    """End the body without an error when it fails because another process removed ``run`` meanwhile."""
    try:
        yield
    except (MissingError, OSError):
        if run.path.is_dir():
            raise


def get(workspace: Workspace, name: str) -> Run:
    """The run with this id, or whose id alone begins so; ``MissingError`` names near ids, ``UsageError`` all fits."""
    ids = workspace.run_ids()
    fits = [name] if name in ids else [known for known in ids if name and known.startswith(name)]
    if len(fits) > 1:
        raise UsageError(f"run {name!r} is ambiguous: {', '.join(fits)}; type more of the id")
    if fits:
        return Run(workspace.runs_dir / fits[0])
    from difflib import get_close_matches

    near = get_close_matches(name, ids, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise MissingError(f"there is no run {name!r} in {workspace.root}; {hint}`metavqa runs ls` lists all runs")


def create(
    workspace: Workspace,
    kind: str,
    key: str,
    config: dict[str, Any],
    parents: dict[str, str],
    dataset: dict[str, str],
    extra: dict[str, Any] | None = None,
    fresh: bool = False,
) -> Run:
    """Make the folder of a run with its manifest and configuration, complete from the first moment.

    Its id is ``kind-key[:8]``, with ``-2``, ``-3``… when that is taken. Without ``fresh`` an existing run with the same
    key is returned as it is, so that it can be resumed.
    """
    existing = None if fresh else find(workspace, kind, key)
    if existing:
        return existing
    manifest = {
        **(extra or {}), "kind": kind, "key": key, "parents": parents, "dataset": dataset,
        "created": datetime.now(timezone.utc).isoformat(timespec="microseconds"), "schema_version": SCHEMA_VERSION,
    }  # fmt: skip
    draft = workspace.runs_dir / temporary_name()
    sweep(workspace.runs_dir)
    try:
        return _move_in(draft, manifest, config, fresh)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move_in(draft: Path, manifest: dict[str, Any], config: dict[str, Any], fresh: bool) -> Run:
    """Write the draft folder and rename it to the first id that is free; to none if another process was faster."""
    import tomlkit

    base = _base(manifest["kind"], manifest["key"])
    write_text(draft / "config.toml", tomlkit.dumps(_without_none(config)))
    manifest = {**manifest, CONFIG_SUM: file_sum(draft / "config.toml")}
    number = 1
    while True:
        run = Run(draft.with_name(base if number == 1 else f"{base}-{number}"))
        write_sealed(draft / "run.json", {"id": run.id, **manifest})
        with explained(run.path):
            if not run.path.exists() and _rename(draft, run.path):
                sync_folder(run.path.parent)
                return run
        with suppress(JobError, MissingError):  # one that is damaged, or removed again meanwhile
            if not fresh and run.manifest()["key"] == manifest["key"]:
                return run
        number += 1


def _base(kind: str, key: str) -> str:
    """What the id of a run with this key begins with."""
    return f"{kind}-{key[:8]}"


def _rename(draft: Path, target: Path) -> bool:
    """Whether ``draft`` became ``target``; False when another process took the name in the meantime."""
    try:
        draft.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if value is not None}
    return {name: _without_none(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path, SCHEMA_VERSION, _removal(path))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"{path} is missing; `metavqa runs ls` lists what there is") from None


def _is_override(entry: Any) -> bool:
    changes = entry.get("changes") if isinstance(entry, dict) else None
    return isinstance(changes, dict) and all(isinstance(pair, list) and len(pair) == 2 for pair in changes.values())


def _removal(path: Path) -> str:
    return f"remove the run with `metavqa runs rm {path.parent.name}` and make it again"


def _ending(events_path: Path) -> RunState:
    """How the last process of a run that nobody holds ended, read off the end of its log."""
    for event in log.newest_first(events_path):
        if isinstance(event, RunInterrupted):
            return "interrupted"
        if isinstance(event, RunFailed):
            return "failed"
        if isinstance(event, RunStarted):
            break
    return "stale"
