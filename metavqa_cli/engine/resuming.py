"""With which configuration an unfinished run goes on: its own, or with ``--override`` one that differs where it may.

What was overridden stands in the run's manifest (``overrides``), in its model's header, and in its key, so that no
command takes the run for one that was trained with either configuration from its first step to its last.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from metavqa_cli.engine.checkpoint import saved_step
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.layers import flatten
from metavqa_cli.store.runs import Run

PACE = ("epochs", "lr", "batch", "grad_clip")
CHANGEABLE: dict[str, tuple[str, ...]] = {
    "baseline": PACE,
    "hvae": (*PACE, "kl_weight"),
    "task_latents": (*PACE, "z_lr", "z_noise", "z_penalty", "weight_decay", "decay"),
    "ldm": (*PACE, "decay", "dropout", "z_noise", "ema"),
    "hyperclip": (*PACE, "z_noise"),
    "regression": (*PACE, "ema"),
    "questions": ("noise",),
}
"""What the next step may do otherwise than the last, by section. Everything else decides the shapes, what was learned
from, or how validations are measured, whose best would then be compared with what it cannot be compared with."""
Changes = dict[str, tuple[Any, Any]]  # dotted key: what it was, what it is to be


def differences(told: Mapping[str, Any], asked: Mapping[str, Any]) -> Changes:
    """Each dotted key whose value is not the same in both (nested) mappings."""
    one, two = dict(flatten(told)), dict(flatten(asked))
    keys = [name for name in dict.fromkeys([*one, *two]) if one.get(name) != two.get(name)]
    return {name: (one.get(name), two.get(name)) for name in keys}


def fixed(changes: Changes) -> list[str]:
    """The keys among ``changes`` that cannot be overridden."""
    return [name for name, values in changes.items() if not _may_change(name, *values)]


def _may_change(name: str, old: Any, new: Any) -> bool:
    section, _, field = name.partition(".")
    if field == "ema" and not (old and new):  # an average neither begins nor ends in the middle
        return False
    return field in CHANGEABLE.get(section, ())


def check_changes(run: Run, changes: Changes, override: bool) -> None:
    """``UsageError`` unless ``changes`` are wanted (``override``) and possible; it shows them, and the way out."""
    shown = "; ".join(f"{name} was {old} and is now {new}" for name, (old, new) in changes.items())
    where = f"run {run.id} cannot go on otherwise than it began ({shown or 'by another version'})"
    kept = fixed(changes)
    if not changes or (kept and not override):
        raise UsageError(f"{where}; leave those options out, or start a new run without --resume")
    if kept:
        section = kept[0].partition(".")[0]
        able = ", ".join(f"{section}.{field}" for field in CHANGEABLE.get(section, ()))
        raise UsageError(
            f"{where}; --override cannot change {', '.join(kept)}, which decides shapes, what is learned from, or how "
            f"it is measured{f' (it can change {able})' if able else ''}; start a new run without --resume"
        )
    if not override:
        raise UsageError(
            f"{where}; leave those options out, add --override to go on with them all the same, or start a new run "
            "without --resume"
        )


def plain_key(manifest: Mapping[str, Any]) -> str:
    """The key of a run that has been in the present configuration from its beginning."""
    overrides = manifest.get("overrides", [])
    return str(overrides[-1]["plain_key"] if overrides else manifest["key"])


def record_override(run: Run, changes: Changes, key: str) -> str:
    """Note in the manifest, under the run's lock, that it goes on with ``changes`` (whose plain key is ``key``).

    One atomic write: a run killed at any moment is in one configuration or in the other. Returns a sentence about it.
    """
    manifest, step = run.manifest(), max(0, saved_step(run))
    entry = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "step": step,
        "changes": {name: list(values) for name, values in changes.items()}, "plain_key": key,
    }  # fmt: skip
    history = json.dumps([manifest["key"], step, entry["changes"]], sort_keys=True, separators=(",", ":"))
    run.amend({
        "overrides": [*manifest.get("overrides", []), entry],
        "key": hashlib.sha256(history.encode()).hexdigest(),
    })  # fmt: skip
    shown = ", ".join(f"{name} = {new} in place of {old}" for name, (old, new) in changes.items())
    return f"goes on from step {step} with {shown}"


def identity(parent: Run) -> str:
    """What a run made from ``parent`` depends on: its id, which says all there is unless something was overridden."""
    manifest = parent.manifest()
    return f"{parent.id} overridden {manifest['key']}" if manifest.get("overrides") else parent.id
