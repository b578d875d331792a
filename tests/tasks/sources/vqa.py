"""Small VQA v2 files, in any of the layouts in which people keep them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from metavqa_cli.schema.config import Dataset

TRAIN, VAL = "train2014", "val2014"
SPLITS = {TRAIN: "Train", VAL: "Val"}
JSON = {
    (what, split): f"v2_{'OpenEnded_' if what == 'questions' else ''}mscoco_{split}_{what}.json"
    for what in ("questions", "annotations")
    for split in SPLITS
}
ZIPS = {(what, split): f"v2_{what.capitalize()}_{SPLITS[split]}_mscoco.zip" for what, split in JSON}

Record = dict[str, Any]


def question(number: int, image: int, text: str) -> Record:
    return {"image_id": image, "question": text, "question_id": number}


def annotation(number: int, image: int, answer: str, kind: str = "what color is the", **more: Any) -> Record:
    human = [{"answer": said, "answer_confidence": "yes", "answer_id": i} for i, said in enumerate([answer, "so"], 1)]
    return {
        "question_type": kind, "multiple_choice_answer": answer, "answers": human, "image_id": image,
        "answer_type": "other", "question_id": number, **more,
    }  # fmt: skip


def documents(split: str, records: Iterable[tuple[Record, Record]]) -> dict[tuple[str, str], Any]:
    """The two files of a split, by (what, split)."""
    questions, annotations = zip(*records, strict=True)
    head = {"info": {"version": "2.0"}, "license": {"name": "CC"}, "data_subtype": split}
    return {
        ("questions", split): {**head, "task_type": "Open-Ended", "questions": list(questions)},
        ("annotations", split): {**head, "annotations": list(annotations)},
    }


def cars(split: str, first: int, count: int = 12) -> list[tuple[Record, Record]]:
    """``count`` images of red, green and blue cars, by turns."""
    answers = ("red", "blue", "green")
    return [
        (
            question(first * 1000 + i, first + i, "What color is the car?"),
            annotation(first * 1000 + i, first + i, answers[i % 3]),
        )
        for i in range(count)
    ]


def small() -> dict[tuple[str, str], Any]:
    """The four files of a VQA with one task: 24 images of cars."""
    return {**documents(TRAIN, cars(TRAIN, 100)), **documents(VAL, cars(VAL, 500))}


def write(folder: Path, files: Mapping[tuple[str, str], Any], places: Mapping[str, str] | None = None) -> Path:
    """Write files below ``folder``; ``places`` are the subfolders of questions and annotations."""
    for (what, split), document in files.items():
        path = folder / (places or {}).get(what, "") / JSON[what, split]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document), "utf-8")
    return folder


def write_zips(folder: Path, files: Mapping[tuple[str, str], Any]) -> Path:
    """Write each file in the archive in which it is published."""
    for key, document in files.items():
        write_zip(folder / ZIPS[key], {JSON[key]: json.dumps(document).encode()})
    return folder


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def config(folder: Path | str, **values: Any) -> Dataset:
    """The configuration of a build from the files in ``folder``."""
    return Dataset(**{"name": "x", "source": "vqa2", "path": str(folder), "tasks_only": True, **values})
