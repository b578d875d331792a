"""Reading a made VQA v2 of the real size into tasks: seconds and memory. ``python -m tests.bench.reading [QUESTIONS]``.

443,757 and 214,354 questions of the released texts with ten annotators each, as the real files have them, about 0.6 GB
of JSON in a temporary folder. Beside it, in processes of their own, what ``json.load`` of the same files costs.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.full_size import memory_mb, run
from tests.bench.stand_in import RELEASE

SPLITS = {"train2014": (443_757, 82_783), "val2014": (214_354, 40_504)}  # questions, images
CODE = "import sys; from tests.bench import reading; reading.measure(sys.argv[1], sys.argv[2])"


def make(folder: Path, share: float) -> None:
    """Write question and annotation files with ``share`` of the real number of questions."""
    texts = [*json.loads((RELEASE / "prompt_meta.json").read_text("utf-8"))]
    answers = [f"answer {i}" for i in range(500)]
    rng, number = random.Random(0), 0
    for split, (questions, images) in SPLITS.items():
        asked, said = [], []
        for _ in range(round(questions * share)):
            number, image = number + 1, rng.randrange(images)
            answer = answers[min(499, int(rng.expovariate(0.05)))]
            asked.append({"image_id": image, "question": rng.choice(texts), "question_id": number})
            said.append({
                "question_type": "none of the above", "multiple_choice_answer": answer, "image_id": image,
                "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)],
                "answer_type": rng.choice(("other", "number", "yes/no")), "question_id": number,
            })  # fmt: skip
        for name, key, records in (("OpenEnded_mscoco_{}_questions", "questions", asked),
                                   ("mscoco_{}_annotations", "annotations", said)):  # fmt: skip
            path = folder / f"v2_{name.format(split)}.json"
            path.write_text(json.dumps({"data_subtype": split, key: records}))


def measure(how: str, folder: str) -> None:
    """Read the files in this process and print CPU seconds and peak memory."""
    before, begun = memory_mb("VmRSS"), time.process_time()
    if how == "metavqa":
        from metavqa_cli.schema.config import Dataset
        from metavqa_cli.tasks.sources import vqa2

        tasks = len(vqa2.read(Dataset(source="vqa2", path=folder, tasks_only=True)).tasks.tasks)
    else:
        tasks = len([json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))])
    peak = memory_mb("VmHWM")
    print(json.dumps({"cpu_s": round(time.process_time() - begun, 1), "added_mb": round(peak - before),
                      "found": tasks}))  # fmt: skip


def main() -> None:
    """Print both readings."""
    if not RELEASE.is_dir():
        sys.exit(f"the released Meta-VQA files are not in {RELEASE}")
    share = int(sys.argv[1]) / sum(questions for questions, _ in SPLITS.values()) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), share)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        found = {how: json.loads(run([sys.executable, "-c", CODE, how, folder])) for how in ("metavqa", "json.load")}
    print(json.dumps({"json_mb": round(size / 1e6), **found}, indent=2))


if __name__ == "__main__":
    main()
