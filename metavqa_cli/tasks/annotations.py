"""What VQA's annotators said of each pair: kept beside the tasks for soft accuracy and for results in VQA's format.

``annotations.jsonl`` has a line ``{"question": …, "pairs": [[image, question id, {answer: people}], …]}`` for each
task, in the order of ``tasks.jsonl``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.strict import parse_line
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
            record = parse_line(line)
            found[_text(record["question"])] = {
                _text(image): Annotation(_count(n), {_text(answer): _count(people) for answer, people in human.items()})
                for image, n, human in record["pairs"]
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JobError(
                f"{path}, line {number} is damaged ({error}); build the dataset again with --force"
            ) from None
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError("a whole number from 0 is expected")
    return value
