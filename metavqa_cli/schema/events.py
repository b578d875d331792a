"""Facts that engine verbs yield while they work, named in the past tense.

``store`` appends them to a run's ``events.jsonl``, ``cli/console.py`` renders them, the dashboard tails the files.
Every event is a frozen dataclass of plain JSON values; ``to_record`` and ``from_record`` are exact inverses.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, get_origin

from metavqa_cli.schema.strict import check_depth


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class RunStarted(Event):
    """A run began, or went on after an interruption (``resumed_at`` > 0 is the step it went on from)."""

    run: str
    kind: str
    total_steps: int
    resumed_at: int = 0


@dataclass(frozen=True)
class StepLogged(Event):
    """Training metrics at one step: ``loss``, ``lr``, ``grad_norm``, ``tasks_per_s`` and the method's own."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class ValidationMeasured(Event):
    """Metrics on the validation tasks at one step. ``best`` says that this is the best so far."""

    step: int
    metrics: dict[str, float]
    best: bool = False


@dataclass(frozen=True)
class TrainingDiverged(Event):
    """Since ``step`` the loss, now ``loss``, is far above where it began and its ``lowest``; the training goes on."""

    step: int
    loss: float
    lowest: float
    way_out: str = ""


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """The run can be resumed from this step."""

    step: int


@dataclass(frozen=True)
class ProgressMade(Event):
    """``done`` of ``total`` units of a named phase ("drawing images", "adapting tasks") are finished."""

    phase: str
    done: int
    total: int
    unit: str = "it"


@dataclass(frozen=True)
class Narrated(Event):
    """One sentence for the person watching."""

    message: str


@dataclass(frozen=True)
class Reused(Event):
    """A finished artefact with the same configuration was found and not made again."""

    kind: str
    name: str


@dataclass(frozen=True)
class DatasetBuilt(Event):
    """A dataset is complete on disk."""

    name: str
    path: str
    summary: dict[str, Any]


@dataclass(frozen=True)
class RunFinished(Event):
    """The run is complete; ``result`` is what ``result.json`` holds."""

    run: str
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunInterrupted(Event):
    """The run was stopped by the user; ``step`` is the last one in the log."""

    run: str
    step: int


@dataclass(frozen=True)
class RunFailed(Event):
    """The run ended with an error; ``message`` is what the user saw."""

    run: str
    message: str


EVENTS: dict[str, type[Event]] = {
    event.__name__: event
    for event in (
        RunStarted, StepLogged, ValidationMeasured, TrainingDiverged, CheckpointSaved, ProgressMade, Narrated, Reused,
        DatasetBuilt, RunFinished, RunInterrupted, RunFailed,
    )
}  # fmt: skip
TYPES: dict[str, dict[str, Any]] = {
    name: {part: get_origin(of.type) or of.type for part, of in kind.__dataclass_fields__.items()}
    for name, kind in EVENTS.items()
}
LARGEST_STEP = 2**53  # as far as a float counts


def divergence_text(event: TrainingDiverged) -> str:
    """What a person reads of it."""
    text = f"the training diverges: since step {event.step} its loss has grown to {event.loss:.4g}"
    return f"{text} (lowest: {event.lowest:.4g})"


def to_record(event: Event) -> dict[str, Any]:
    """The event as one JSON object with its class name under ``event``."""
    return {"event": type(event).__name__, **asdict(event)}


def from_record(record: dict[str, Any]) -> Event | None:
    """The event that ``record`` describes, or None for a kind that this version does not know."""
    kind = EVENTS.get(record.get("event", ""))
    if kind is None:
        return None
    known = {name: value for name, value in record.items() if name in kind.__dataclass_fields__}
    return kind(**known)


def is_sound(record: Any) -> bool:
    """Whether a record has the types of its event, so that what is built from it can be trusted. ``ValueError``,
    ``TypeError`` or ``KeyError`` where not even that can be told."""
    types = TYPES.get(record["event"])
    if types is None:
        return False
    for name, of in types.items():
        if name in record and not _is_of(record[name], of):
            return False
    return abs(record.get("step", 0)) < LARGEST_STEP and _are_numbers(record.get("metrics", {}).values())


def _is_of(value: Any, of: Any) -> bool:
    """``ValueError`` for an object that is nested too deeply."""
    if of is dict and isinstance(value, dict):
        check_depth(value)
    return isinstance(value, of) and (of is not int or abs(value) < LARGEST_STEP)


def _are_numbers(values: Iterable[Any]) -> bool:
    kinds = {*map(type, values)}
    return kinds <= {float} or (kinds <= {float, int} and all(map(_is_small, values)))


def _is_small(value: float) -> bool:
    return isinstance(value, float) or abs(value) < LARGEST_STEP
