"""Where runs differ: configuration, parents, dataset and result. Shared by `metavqa runs diff` and the dashboard."""

from collections.abc import Sequence
from typing import Any

from metavqa_cli.schema.layers import flatten
from metavqa_cli.store.runs import Run

Row = dict[str, Any]


def differences(chosen: Sequence[Run]) -> list[Row]:
    """A row for each dotted key whose value is not the same in all runs: ``key`` and a value under each run's id.

    None where a run has no such key. Errors as ``Run.manifest`` and ``Run.config``.
    """
    flat = [dict(flatten(_comparable(run))) for run in chosen]
    return [
        {"key": key, **{run.id: values.get(key) for run, values in zip(chosen, flat, strict=True)}}
        for key in dict.fromkeys(key for values in flat for key in values)
        if any(values.get(key) != flat[0].get(key) for values in flat)
    ]


def _comparable(run: Run) -> dict[str, Any]:
    manifest = run.manifest()
    names = ("kind", "variant", "parents", "dataset")
    return {
        **{name: manifest.get(name) for name in names}, "config": run.config(), "overrides": overrides_text(run),
        "result": run.result(),
    }  # fmt: skip


def overrides_text(run: Run) -> str | None:
    """What was overridden in ``run`` and at which step; None if nothing was."""
    return "; ".join(f"at step {entry['step']}: {_changed(entry['changes'])}" for entry in run.overrides()) or None


def _changed(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key} from {old} to {new}" for key, (old, new) in changes.items())
