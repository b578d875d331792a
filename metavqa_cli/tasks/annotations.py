"""What VQA's annotators said of each pair: kept beside the tasks for soft accuracy and for results in VQA's format.

``annotations.jsonl`` has a line ``{"question": …, "pairs": [[image, question id, {answer: people}], …]}`` for each
task, in the order of ``tasks.jsonl``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from metavqa_cli.schema.errors import JobError
from metavqa_cli.store.atomic import write_text


class Annotation(NamedTuple):
    """The number of a (question, image) in VQA, and how many of its annotators gave each answer (raw text)."""

    question_id: int
    human: dict[str, int]


Annotations = Mapping[str, Mapping[str, Annotation]]  # question -> image -> annotation


def dump_annotations(path: Path, annotations: Annotations) -> None:
    """Write ``annotations`` atomically, in their order."""
    lines = [
        {"question": question, "pairs": [[image, *annotation] for image, annotation in pairs.items()]}
        for question, pairs in annotations.items()
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def load_annotations(path: Path) -> Annotations | None:
    """What ``dump_annotations`` wrote; None when the dataset's source had none. ``JobError`` naming a damaged line."""
    if not path.is_file():
        return None
    found: dict[str, dict[str, Annotation]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            record = json.loads(line)
            found[record["question"]] = {image: Annotation(int(n), dict(human)) for image, n, human in record["pairs"]}
        except (ValueError, TypeError, KeyError) as error:
            raise JobError(
                f"{path}, line {number} is damaged ({error}); build the dataset again with --force"
            ) from None
    return found
