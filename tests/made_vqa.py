"""A small VQA v2 as it is shipped: question and annotation zips and image zips, made in a folder."""

import io
import json
import random
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from PIL import Image, ImageDraw

THINGS = ("car", "dog", "hat", "cup", "bus", "cat", "kite", "boat", "sign", "shirt")
COLORS = ("red", "green", "blue", "white")
SPLITS = {"train2014": ("Train", 0), "val2014": ("Val", 500_000)}


def make_vqa(folder: Path, images: int = 40, seed: int = 0) -> Path:
    """Write six zips for ``images`` JPEGs a split, of each of which about ten questions of three kinds are asked."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, number = random.Random(seed), 0
    for split, (title, base) in SPLITS.items():
        questions: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        with ZipFile(folder / f"{split}.zip", "w") as archive:
            for i in range(1, images + 1):
                color = rng.choice(COLORS)
                archive.writestr(f"{split}/COCO_{split}_{base + i:012d}.jpg", picture(color, rng))
                for thing in THINGS:
                    for text, answer, answer_type, kind in (
                        (f"What color is the {thing}?", color, "other", "what color is the"),
                        (f"How many {thing}s are there?", str(rng.randrange(3)), "number", "how many"),
                        (f"Is there a {thing}?", rng.choice(("yes", "no")), "yes/no", "is there a"),
                    ):
                        if rng.random() < 0.4:
                            continue
                        number += 1
                        questions.append({"question_id": number, "image_id": base + i, "question": text})
                        annotations.append(annotation(number, base + i, answer, answer_type, kind))
        rng.shuffle(annotations)
        write_json(folder / f"v2_Questions_{title}_mscoco.zip", f"v2_OpenEnded_mscoco_{split}_questions.json",
                   {"data_subtype": split, "questions": questions})  # fmt: skip
        write_json(folder / f"v2_Annotations_{title}_mscoco.zip", f"v2_mscoco_{split}_annotations.json",
                   {"data_subtype": split, "annotations": annotations})  # fmt: skip
    return folder


def picture(color: str, rng: random.Random) -> bytes:
    """A small JPEG, mostly of one colour."""
    image = Image.new("RGB", rng.choice(((96, 64), (64, 96))), color)
    ImageDraw.Draw(image).ellipse((8, 8, 24, 30), fill=rng.choice(COLORS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def annotation(number: int, image: int, answer: str, answer_type: str, kind: str) -> dict[str, Any]:
    """Seven of ten people give ``answer``, three another one."""
    said = [answer] * 7 + ["something else"] * 3
    return {
        "question_id": number, "image_id": image, "question_type": kind, "answer_type": answer_type,
        "multiple_choice_answer": answer,
        "answers": [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(said, 1)],
    }  # fmt: skip


def write_json(path: Path, name: str, content: Any) -> None:
    """A zip with one JSON file."""
    with ZipFile(path, "w") as archive:
        archive.writestr(name, json.dumps(content))
