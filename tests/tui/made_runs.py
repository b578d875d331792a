"""Runs made by hand for tests of the dashboard: views without files, and folders with fixed times and ids."""

import json
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from metavqa_cli.schema.events import Event, to_record
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.feed import RunView

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=timezone.utc).timestamp()
HOUR = 3600.0
CONFIG = 'seed = 0\n\n[dataset]\nname = "scenes"\n\n[ldm]\nepochs = 60\n'


def view(run: str = "ldm-aaaa1111", **changes: Any) -> RunView:
    """A finished run as the dashboard knows it, with ``changes``."""
    usual: dict[str, Any] = {
        "path": Path("runs") / run, "kind": "ldm", "variant": "task", "state": "finished", "step": 1000,
        "total_steps": 1000, "progress": 1.0, "metric_name": "val", "accuracy": 52.5, "created": NOW - HOUR,
        "updated": NOW - 60, "parents": (), "dataset": "scenes", "seed": 0, "message": None, "read_at": NOW,
    }  # fmt: skip
    return RunView(run, **{**usual, **changes})


def made(
    workspace: Workspace,
    run: str,
    *,
    events: Iterable[Event] = (),
    parents: dict[str, str] | None = None,
    result: dict[str, Any] | None = None,
    config: str = CONFIG,
    age: float = HOUR,
    dataset: str = "scenes",
    **extra: Any,
) -> Path:
    """The folder of a run ``kind-key``, begun ``age`` seconds before ``NOW`` and last written a minute before."""
    folder = workspace.runs_dir / run
    folder.mkdir(parents=True)
    created = datetime.fromtimestamp(NOW - age, timezone.utc).isoformat(timespec="microseconds")
    kind, key = run.rsplit("-", 1)
    manifest = {
        "id": run, "kind": kind, "key": key, "parents": parents or {},
        "dataset": {"name": dataset, "fingerprint": "f00"}, "created": created, "schema_version": 1, **extra,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(manifest), "utf-8")
    (folder / "config.toml").write_text(config, "utf-8")
    lines = "".join(f"{json.dumps(to_record(event))}\n" for event in events)
    (folder / "events.jsonl").write_text(lines, "utf-8")
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result), "utf-8")
    for path in folder.iterdir():
        os.utime(path, (NOW - 60, NOW - 60))
    return folder
