"""Whether the files of one run are what was written, and belong together. Without torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from metavqa_cli.schema.errors import MetaVQAError, MissingError
from metavqa_cli.store import log
from metavqa_cli.store.atomic import TEMPORARY
from metavqa_cli.store.container import SEAL
from metavqa_cli.store.log_check import LogState, examine
from metavqa_cli.store.runs import Run
from metavqa_cli.store.sealed import NewerError, is_sealed
from metavqa_cli.store.tensors import check_tensors, header_of, read_layout

Problem = Literal["damaged", "missing", "newer", "incomplete", "unsealed", "leftover", "torn"]
HARMLESS: frozenset[Problem] = frozenset({"unsealed", "leftover", "torn"})
LATER = "upgrade metavqa"
FILES = ("run.json", "config.toml", "events.jsonl", "model.safetensors", "state.safetensors", "result.json")


@dataclass(frozen=True)
class Finding:
    """An artefact that is not as it should be; the runs that depend on it; the way out.

    damaged: it is not what was written; missing: it was written and is not there; newer: only a later metavqa can read
    it; incomplete: the last event was not written. Harmless: unsealed: of a metavqa that wrote no checksums; leftover:
    of a process that was killed; torn: a line of a log of which a killed process wrote a part.
    """

    artefact: str
    problem: Problem
    detail: str
    remedy: str
    runs: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def is_bad(self) -> bool:
        return self.problem not in HARMLESS


def reason(error: Exception) -> str:
    """Why an artefact is damaged, in words."""
    return f"it cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


def audit_run(run: Run) -> Iterator[Finding]:
    """Everything about ``run`` that is not as it should be. A file that cannot be read is damaged."""
    again = f"restore it, or make the run again: `metavqa runs rm {run.id} --force`, and the command that made it"
    if odd := [path for path in (run.path / name for name in FILES) if path.exists() and not path.is_file()]:
        for path in odd:
            yield _finding(run, path.name, "damaged", "it is not a file", again)
        return
    if not (run.path / "run.json").is_file():
        yield _finding(run, "run.json", "missing", "the run cannot be told what it is", again)
        return
    whole: dict[str, Any] = {}

    def looked(name: str, look: Callable[[], object]) -> Iterator[Finding]:
        try:
            whole[name] = look()
        except NewerError as error:
            yield _finding(run, name, "newer", str(error), LATER)
        except MissingError as error:
            yield _finding(run, name, "missing", str(error), again)
        except (MetaVQAError, OSError) as error:
            yield _finding(run, name, "damaged", reason(error), again)

    yield from looked("run.json", run.manifest)
    if "run.json" in whole:
        yield from looked("config.toml", run.config)
    yield from looked("result.json", lambda: (run.result(), run.record()))
    for name, path in (("model.safetensors", run.model_path), ("state.safetensors", run.state_path)):
        if path.exists():
            yield from looked(name, lambda path=path: _own_tensors(run, path))  # type: ignore[misc]
    sealed = is_sealed(whole.get("run.json", {}))
    if sealed:
        yield from _record_differs(run, whole, again)
    yield from _log_differs(run, whole, sealed, again)
    yield from _leftovers(run)
    if "run.json" in whole and not sealed:
        detail = "written by a metavqa that made no checksums of all of it"
        yield _finding(run, "", "unsealed", detail, "none needed: what is made from now on has checksums")


def _finding(run: Run, name: str, problem: Problem, detail: str, remedy: str) -> Finding:
    return Finding(f"runs/{run.id}/{name}".rstrip("/"), problem, detail, remedy, path=run.path / name)


def _own_tensors(run: Run, path: Path) -> tuple[str | None, dict[str, Any]]:
    """The seal and the header of a sound tensor file of this run. Errors as ``check_tensors``."""
    check_tensors(path, remedy="make it again")
    layout = read_layout(path)
    header = header_of(path, layout)
    run.own(path, header, "make it again")
    return layout.metadata.get(SEAL), header


def _record_differs(run: Run, whole: dict[str, Any], again: str) -> Iterator[Finding]:
    """The model of a finished run is the one that it finished with."""
    result, record = whole.get("result.json", (None, None))
    name = "model.safetensors"
    if result is None or record is None:
        return
    there = run.model_path.exists()
    if record["model"] is not None and not there:
        yield _finding(run, name, "missing", "the run finished with it, and it is gone", again)
    elif there and name in whole and whole[name][0] != record["model"]:
        yield _finding(run, name, "damaged", "it is not the one that the run finished with", again)


def _log_differs(run: Run, whole: dict[str, Any], sealed: bool, again: str) -> Iterator[Finding]:
    name, path = "events.jsonl", run.events_path
    result, record = whole.get("result.json", (None, None))
    if record is not None:
        wanted = record["events"]
        if log.measure(path, wanted["bytes"]) != (wanted["bytes"], wanted["sha256"]):
            yield _finding(run, name, "damaged", "it is not the log that the run finished with", again)
            return
        yield from _end_differs(run, examine(path, wanted["bytes"]))
        return
    found = examine(path)
    numbers = found.damaged if sealed else ()
    if numbers:
        some = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
        yield _finding(run, name, "damaged", f"its checksum differs in line {some}, or it comes twice", again)
    elif sealed and found.unsealed:
        yield _finding(run, name, "damaged", f"{found.unsealed:,} of its lines have no checksum", again)
    if found.run not in (None, run.id):
        yield _finding(run, name, "damaged", f"it is the log of the run {found.run!r}", again)
    elif _is_cut(run, whole):
        detail = "lines that it had when the checkpoint was written are not there, or not in their place"
        yield _finding(run, name, "damaged", detail, "restore it, or leave it so: the run goes on without them")
    if result is None and not run.is_held():
        yield from _ending_differs(run, found, again)


def _is_cut(run: Run, whole: dict[str, Any]) -> bool:
    """Whether the log is not the one that a sound checkpoint vouches for, as those of earlier versions do not."""
    _, header = whole.get("state.safetensors", (None, {}))
    return "log" in header and not log.reaches(run.events_path, header["log"])


def _end_differs(run: Run, end: LogState) -> Iterator[Finding]:
    """After what a run finished with, the log has one line more, which says so."""
    if end.lines == 0 or (end.torn_end and end.lines == 1):
        detail = "its last line, which says that the run finished, is not there or not whole: it was cut, or the "
        detail += "process was killed just then"
        yield _finding(
            run, "events.jsonl", "incomplete", detail, "restore it, or leave it so: the result says the same"
        )
    elif end.lines != 1 or end.damaged or end.unsealed or not end.finished:
        remedy = f"restore it, or make the run again: `metavqa runs rm {run.id} --force`, and the command that made it"
        yield _finding(run, "events.jsonl", "damaged", "its end is not what was written", remedy)


def _ending_differs(run: Run, found: LogState, again: str) -> Iterator[Finding]:
    """A run without a result, of which the log knows that there is more, or that nobody is at."""
    if found.finished and not (run.path / "result.json").exists():
        yield _finding(run, "result.json", "missing", "the log says that the run finished, and it is gone", again)
    elif found.resumable and not run.state_path.exists():
        yield _finding(run, "state.safetensors", "missing", "the log says that there is a checkpoint", again)
    for number in found.torn:
        yield _finding(
            run, "events.jsonl", "torn", f"line {number} is a part of one: a process was killed", "none needed"
        )
    if found.torn_end:
        yield _finding(
            run, "events.jsonl", "torn", "its last line is a part of one: a process was killed", "none needed"
        )


def _leftovers(run: Run) -> Iterator[Finding]:
    if run.is_held():
        return
    for path in sorted(run.path.iterdir()):
        if path.name.startswith(TEMPORARY):
            yield _finding(run, path.name, "leftover", "a process was killed while it wrote", "metavqa verify --clean")
        elif path.name == "run.lock.json":
            yield _finding(
                run, path.name, "leftover", "the process that held the run is gone", "metavqa verify --clean"
            )
    if run.state_path.exists() and (run.path / "result.json").exists():
        yield _finding(run, run.state_path.name, "leftover", "the run has finished without needing it",
                       "metavqa verify --clean")  # fmt: skip
