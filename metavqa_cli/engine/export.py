"""`metavqa dataset export`: the tasks of a dataset in the released form of Meta-VQA. Without torch."""

import json
from pathlib import Path

from metavqa_cli.engine.manifest import check_recorded, open_manifest
from metavqa_cli.engine.site import TASKS
from metavqa_cli.schema.errors import BusyError
from metavqa_cli.store.atomic import write_text
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.sources.hyperclip_release import PROMPTS, TEST, TRAIN, to_release
from metavqa_cli.tasks.taskset import load_tasks


def export_release(workspace: Workspace, name: str, out: Path, force: bool = False) -> list[Path]:
    """Write ``meta_train.json``, ``meta_test.json`` and ``prompt_meta.json`` to ``out``; returns their paths.

    Validation tasks are training tasks again, in their place. The bytes are those of the release where the tasks are.
    ``BusyError`` when a file is there (without ``force``).
    """
    folder, _ = open_manifest(workspace, name)
    check_recorded(folder, TASKS)
    tasks = load_tasks(folder / TASKS)
    train, test = to_release(tasks)
    prompts = {task.question: task.template for task in tasks.tasks}
    contents = {out / TRAIN: train, out / TEST: test, out / PROMPTS: prompts}
    for path in contents:
        if path.exists() and not force:
            raise BusyError(f"{path} exists; choose another --out, or replace it with --force")
    for path, content in contents.items():
        write_text(path, json.dumps(content))
    return list(contents)
