"""Every parser of the program with sound inputs from a finished workspace, and what must hold of what it gives."""

import io
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.cli.identify import _lines
from metavqa_cli.clip.images import open_image
from metavqa_cli.clip.inspection import MAX_PIXELS
from metavqa_cli.engine import archives, indexing
from metavqa_cli.engine.classifier import Classifier, load_classifier, probabilities, save_classifier
from metavqa_cli.engine.configuration import resolve_config
from metavqa_cli.engine.image_check import file_size
from metavqa_cli.engine.manifest import read_manifest
from metavqa_cli.schema.config import Config, Dataset
from metavqa_cli.schema.events import Event, to_record
from metavqa_cli.schema.layers import Layer, parse_set, resolve
from metavqa_cli.store import fetch, locks, log
from metavqa_cli.store.features import FeatureStore, write_features
from metavqa_cli.store.images import ImageFile, read_index
from metavqa_cli.store.runs import Run, list_runs
from metavqa_cli.store.sealed import seal
from metavqa_cli.store.tensors import check_tensors, load_arrays, load_tensors, read_header
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.annotations import load_annotations
from metavqa_cli.tasks.index import TaskFile
from metavqa_cli.tasks.sources import folder as table_source
from metavqa_cli.tasks.sources import hyperclip_release, vqa2
from metavqa_cli.tasks.sources.material import Material
from metavqa_cli.tasks.taskset import TaskSet, load_tasks
from metavqa_cli.tui import settings
from metavqa_cli.tui.feed import Curves
from metavqa_cli.tui.tail import Tail
from tests.fuzz import mutations
from tests.fuzz.harness import Parser
from tests.fuzz.mutations import image, lines, one_of, raw, table, tensors, toml, tree
from tests.made_vqa import annotation

Parse = Callable[[], object]
EMBED = 6


def parsers(workspace: Path, folder: Path) -> list[Parser]:
    """All parsers, each with a place of its own in ``folder``, which must be empty."""
    dataset = min(workspace.glob("datasets/*/dataset.json")).parent
    runs = list_runs(Workspace(workspace))
    made = [of_tensors, of_runs, of_datasets, of_sources, of_configs, of_pictures, of_notes]
    return [parser for make in made for parser in make(dataset, runs, folder)]


def sealed(data: bytes, rng: Random) -> bytes:
    """A sealed document changed and mostly sealed again, or made one of before there were seals."""
    value = json.loads(data)
    value.pop("sha256", None)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutations.changed(value, rng)
    if not isinstance(value, dict):
        return mutations.dumped(value, rng)
    if rng.random() < 0.5:
        value["schema_version"] = 1
        return mutations.dumped(value, rng)
    return seal(mutations.dumped(value, rng).removesuffix(b"}"))


def logged(data: bytes, rng: Random) -> bytes:
    """A log some of whose lines are changed, and mostly have the right checksum again."""
    bare = [line[: -log.CRC_BYTES] + b"}" if log.CRC.fullmatch(line[-log.CRC_BYTES :]) else line
            for line in data.splitlines()]  # fmt: skip
    rows = lines(b"\n".join(bare), rng).split(b"\n")
    return b"\n".join(log.sealed(row) if row.endswith(b"}") and rng.random() < 0.7 else row for row in rows)


# --- tensors ---


def of_tensors(dataset: Path, runs: list[Run], folder: Path) -> list[Parser]:
    models = sorted((run.model_path for run in runs if run.model_path.is_file()), key=lambda path: path.stat().st_size)
    seeds = [path.read_bytes() for path in models[:3]]
    model, measured = folder / "checkpoint/model.safetensors", folder / "arrays/measured.safetensors"
    classifier = folder / "classifier/car.safetensors"
    places(model, measured, classifier)
    return [
        Parser("checkpoint", model, seeds, one_of(tensors, raw, weights=(5, 1)), lambda: check_model(model),
               model.name),
        Parser("measured arrays", measured, seeds, one_of(tensors, raw, weights=(5, 1)),
               lambda: load_arrays(measured), measured.name),
        Parser("classifier file", classifier, [a_classifier(classifier)], one_of(tensors, raw, weights=(8, 1)),
               lambda: check_classifier(classifier), classifier.name),
    ]  # fmt: skip


def places(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)


def a_classifier(path: Path) -> bytes:
    layout = WeightLayout(EMBED, 2)
    weights = torch.randn(layout.size, generator=torch.Generator().manual_seed(0))
    made = Classifier(weights, layout, "What color is the car?", ("red", "blue"), "the car is {}", 30.0,
                      {"model": "tiny", "weights": "0", "embed": EMBED}, 1.5, 0, {"sampler": "ddim", "steps": 4},
                      {"ldm": "ldm-0", "generator": "hvae-0"})  # fmt: skip
    save_classifier(made, path)
    return path.read_bytes()


def check_model(path: Path) -> None:
    values, header = load_tensors(path)
    assert header == read_header(path) and isinstance(header, dict)
    assert all(value.isfinite().all() for value in values.values() if value.is_floating_point())
    check_tensors(path)


def check_classifier(path: Path) -> None:
    made = load_classifier(path)
    assert len(made.answers) >= 2 and all(made.statements())
    assert made.weights.shape == (made.layout.size,) and made.weights.isfinite().all()
    assert math.isfinite(made.gamma) and made.gamma >= 0 and made.seed >= 0
    x = torch.nn.functional.normalize(torch.ones(2, made.layout.embed), dim=-1)
    answers = x[:1].expand(len(made.answers), -1)
    assert torch.allclose(probabilities(made, made.weights[None], x, answers).sum(-1), torch.ones(2))


# --- runs ---


def of_runs(dataset: Path, runs: list[Run], folder: Path) -> list[Parser]:
    by_kind = {run.kind: run for run in runs}
    made: list[Parser] = []
    for name, file, parse in (
        ("run manifest", "run.json", check_manifest), ("result", "result.json", Run.result), ("run config",
        "config.toml", Run.config),
        ("event log", "events.jsonl", check_log),
    ):  # fmt: skip
        run = Run(folder / file.partition(".")[0] / "runs" / by_kind["ldm"].id)
        places(run.path / "x")
        old = {**by_kind["ldm"].manifest(), "schema_version": 1}
        old.pop("config_sha256", None)
        (run.path / "run.json").write_text(json.dumps(old))
        shutil.copy(by_kind["ldm"].path / "config.toml", run.path / "config.toml")
        whose = [by_kind["ldm"]] if file.endswith(".json") else [*by_kind.values()]  # a document names its run
        seeds = [head(one.path / file) for one in whose]
        mutate = {
            "config.toml": one_of(toml, raw, weights=(4, 1)),
            "events.jsonl": one_of(logged, lines, raw, weights=(4, 2, 1)),
        }
        made.append(Parser(name, run.path / file, seeds, mutate.get(file, one_of(sealed, raw, weights=(5, 1))),
                           partial(parse, run), "" if name == "event log" else run.id))  # fmt: skip
    return made


def head(path: Path, limit: int = 30) -> bytes:
    """The first lines of a log, or all of any other file."""
    data = path.read_bytes()
    return b"".join(data.splitlines(keepends=True)[:limit]) if path.suffix == ".jsonl" else data


def check_manifest(run: Run) -> None:
    manifest = run.manifest()
    assert isinstance(manifest["dataset"]["name"], str) and run.kind == manifest["kind"]
    assert all(isinstance(parent, str) for parent in manifest["parents"].values())
    assert isinstance(run.config(), dict) and isinstance(run.overrides(), list)
    assert list_runs(Workspace(run.path.parent.parent)) == [run]


def check_log(run: Run) -> None:
    tail = Tail(run.events_path)
    both = [*log.read(run.events_path)[0], *log.newest_first(run.events_path), *tail.poll()]
    assert all(isinstance(event, Event) for event in both)
    json.dumps([to_record(event) for event in both])
    Curves().absorb(both)
    assert run.state() in ("stale", "failed", "interrupted")


# --- datasets ---


def of_datasets(dataset: Path, runs: list[Run], folder: Path) -> list[Parser]:
    own, told = folder / "datasets" / dataset.name, folder / "told" / "datasets" / dataset.name / "dataset.json"
    for name in ("dataset.json", "tasks.jsonl", "features"):
        places(own / name)
        (shutil.copytree if (dataset / name).is_dir() else shutil.copy)(dataset / name, own / name)
    tasks, listed, said = (
        folder / "tasks/tasks.jsonl",
        folder / "listed/images.jsonl",
        folder / "said/annotations.jsonl",
    )
    features, index = folder / "features/world/features/images.safetensors", own / "tasks.index.safetensors"
    places(tasks, listed, said, features, index, told)
    index = index_of(own)
    write_features(
        features, list("abcde"), np.eye(5, 4, dtype=np.float32), {"encoder": {"model": "tiny"}, "broken": []}
    )
    pictures = b'{"roots": ["/a", "/b.zip"]}\n["x", 0, "x.png"]\n["y", 1, "in/y.png"]\n'
    notes = b'{"question": "Where?", "pairs": [["x", 7, {"here": 7, "there": 3}], ["y", 8, {"here": 10}]]}\n' * 2
    mutate = one_of(lines, raw, weights=(5, 1))
    return [
        Parser("dataset manifest", told, [(own / "dataset.json").read_bytes()], one_of(sealed, raw,
               weights=(5, 1)),
               lambda: check_dataset(told.parent), "dataset.json"),
        Parser("tasks.jsonl", tasks, [head(dataset / "tasks.jsonl", 4)], mutate, lambda: check_tasks(tasks),
               tasks.name),
        Parser("task index", index, [index.read_bytes()], one_of(tensors, raw, weights=(5, 1)),
               lambda: check_index(own, index), ""),
        Parser("features", features, [features.read_bytes()], one_of(tensors, raw, weights=(5, 1)),
               lambda: check_features(features), features.name),
        Parser("images.jsonl", listed, [pictures], mutate, lambda: check_places(listed), listed.name),
        Parser("annotations.jsonl", said, [notes], mutate, lambda: check_said(said), said.name),
    ]  # fmt: skip


def index_of(folder: Path) -> Path:
    """The index that opening the dataset writes."""
    indexing.open_tasks(folder)
    return folder / indexing.TASK_INDEX


def check_dataset(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert isinstance(manifest["fingerprint"], str) and isinstance(manifest["recipe"], dict)
    assert manifest["encoder"] is None or isinstance(manifest["encoder"], dict)


def check_tasks(path: Path) -> None:
    found = load_tasks(path)
    sound_tasks(found)
    short = load_tasks(path, examples=False)
    assert [task.question for task in short.tasks] == [task.question for task in found.tasks]


def sound_tasks(found: TaskSet) -> None:
    for task in found.tasks:
        labels = [label for _, label in (*task.support, *task.query)]
        assert all(type(label) is int and 0 <= label < len(task.answers) for label in labels)
        assert all(isinstance(text, str) for text in task.statements) and task.question.encode()
    json.dumps(found.summary())
    found.texts(), found.image_ids()


def check_index(folder: Path, path: Path) -> None:
    index = indexing._found(folder, indexing._wanted(folder))
    if index is None:
        return
    file = TaskFile(folder / "tasks.jsonl", index)
    for row in range(min(5, sum(index.counts.values()))):
        assert file.task(row).question and isinstance(index.question(row), str)


def check_features(path: Path) -> None:
    store = FeatureStore.open(path)
    rows = store.verified()
    assert len(rows) == len(store.ids) == len(store) and rows.ndim == 2
    assert np.isfinite(rows).all()


def check_places(path: Path) -> None:
    for name, file in read_index(path).items():
        assert isinstance(name, str) and isinstance(file, ImageFile) and isinstance(str(file), str)
        file_size(file.path)


def check_said(path: Path) -> None:
    for pairs in (load_annotations(path) or {}).values():
        assert all(
            type(said.question_id) is int and min(said.human.values(), default=0) >= 0 for said in pairs.values()
        )


# --- sources ---


def of_sources(dataset: Path, runs: list[Run], folder: Path) -> list[Parser]:
    asked, said = folder / "vqa/train2014_questions.json", folder / "vqa/train2014_annotations.json"
    train, csv, jsonl = folder / "release/meta_train.json", folder / "csv/table.csv", folder / "jsonl/table.jsonl"
    places(asked, train, csv, jsonl)
    questions, annotations = vqa_files()
    release = {f"What color is car {i}?": released(("red", "blue")) for i in range(3)}
    (train.parent / "meta_test.json").write_text(json.dumps({"How many are there?": released(("1", "2"))}))
    rows = [f"photos/{i}.jpg,What color is the car?,{('red', 'blue')[i % 2]}" for i in range(24)]
    objects = [json.dumps(dict(zip(("image", "question", "answer"), row.split(","), strict=True))) for row in rows]
    made = []
    for name, path, seed, mutate in (
        ("VQA questions", asked, questions, one_of(tree, raw, weights=(4, 1))),
        ("VQA annotations", said, annotations, one_of(tree, raw, weights=(4, 1))),
        ("Meta-VQA release", train, json.dumps(release).encode(), one_of(tree, raw, weights=(4, 1))),
        ("CSV table", csv, "\n".join(["image,question,answer", *rows]).encode(), table),
        ("JSONL table", jsonl, "\n".join(objects).encode(), one_of(lines, raw, weights=(4, 1))),
    ):
        made.append(Parser(name, path, [seed], mutate, reader(name, path, questions, annotations), ""))
    return made


def vqa_files() -> tuple[bytes, bytes]:
    things = ("car", "dog", "hat", "cup")
    asked = [
        {"question_id": i, "image_id": i // 4, "question": f"What color is the {things[i % 4]}?"} for i in range(4, 84)
    ]
    said = [annotation(i, i // 4, ("red", "blue")[i // 4 % 2], "other", "what color is the") for i in range(4, 84)]
    return json.dumps({"questions": asked}).encode(), json.dumps({"annotations": said}).encode()


def released(answers: tuple[str, ...]) -> dict[str, Any]:
    def pairs(first: int) -> list[list[str]]:
        return [[f"COCO_train2014_{first + 9 * k + i:012d}", a] for k, a in enumerate(answers) for i in range(3)]

    return {"train": pairs(0), "test": pairs(100), "answers": list(answers)}


def reader(name: str, path: Path, questions: bytes, annotations: bytes) -> Parse:
    options: dict[str, Any] = {"name": "x", "tasks_only": True, "min_pairs": 4, "path": str(path.parent)}
    if name.startswith("VQA"):
        two = {"question_files": (str(path.with_name("train2014_questions.json")),),
               "annotation_files": (str(path.with_name("train2014_annotations.json")),)}  # fmt: skip
        other, content = ("annotations", annotations) if "questions" in name else ("questions", questions)
        source = Dataset(source="vqa2", **options, **two)

        def read_both() -> None:
            path.with_name(f"train2014_{other}.json").write_bytes(content)
            sound_material(vqa2.read(source))

        return read_both
    if name.startswith("Meta"):
        source = Dataset(source="hyperclip", **options)
        return lambda: sound_material(hyperclip_release.read(source))
    source = Dataset(source="folder", **options)
    return lambda: sound_material(table_source.read(source))


def sound_material(found: Material) -> None:
    sound_tasks(found.tasks)
    assert found.tasks.tasks and all(isinstance(note, str) for note in found.notes)


# --- configuration ---


def of_configs(dataset: Path, runs: list[Run], folder: Path) -> list[Parser]:
    given, typed, asked = folder / "config/given.toml", folder / "set/typed", folder / "asked/questions.txt"
    places(given, typed, asked)
    seeds = [(run.path / "config.toml").read_bytes() for run in runs[:2]]
    words = [b"ldm.hidden=[512,1024,512]", b"seed=1", b"clip.model=tiny", b"ldm.gamma=none"]
    return [
        Parser("config TOML", given, seeds, one_of(toml, raw, weights=(5, 1)), lambda: sound_config(given),
               given.name, True),
        Parser("--set", typed, words, one_of(raw, toml, weights=(1, 1)), lambda: sound_set(typed), "", True),
        Parser("questions file", asked, [b"What color is the car?\nHow many are there?\n"], raw,
               lambda: _lines(asked), asked.name),
    ]  # fmt: skip


def sound_config(path: Path) -> None:
    config = resolve_config(config_file=path).config
    assert isinstance(config, Config) and Config.model_validate(config.model_dump()) == config


def sound_set(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    assert isinstance(resolve([Layer("--set", parse_set(text))]).config, Config)


# --- pictures ---


def of_pictures(dataset: Path, runs: list[Run], folder: Path) -> list[Parser]:
    path = folder / "pictures" / "picture"
    places(path)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("RGB", "PNG", {}), ("P", "PNG", {}), ("I;16", "PNG", {}), ("RGBA", "PNG", {}), ("RGB", "JPEG", {}),
        ("L", "JPEG", {"progressive": True}), ("CMYK", "JPEG", {}), ("P", "GIF", {}), ("RGB", "WEBP", {}),
        ("RGBA", "WEBP", {"lossless": True}), ("RGB", "BMP", {}), ("1", "BMP", {}), ("RGB", "TIFF", {}), ("L", "PPM",
        {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("L", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("F", "TIFF", {}), ("RGB", "PPM", {}), ("RGB", "TIFF", {"compression": "jpeg"}),
    ]  # fmt: skip
    return [
        Parser(f"image {kind}", path.with_name(f"a.{kind.lower()}"),
               [encoded(mode, kind, options) for mode, name, options in kinds if name == kind],
               image, partial(sound_picture, path.with_name(f"a.{kind.lower()}")), f"a.{kind.lower()}")
        for kind in sorted({kind for _, kind, _ in kinds})
    ]  # fmt: skip


def encoded(mode: str, kind: str, options: dict[str, Any]) -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (24, 32), np.uint16))
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    (wide if mode == "I;16" else noise.convert(mode)).save(
        file, kind, **options, **({"exif": exif} if kind == "JPEG" else {})
    )
    return file.getvalue()


def sound_picture(path: Path) -> None:
    found = open_image(path)
    assert found.mode == "RGB" and 0 < found.width * found.height <= MAX_PIXELS
    found.resize((8, 8)).tobytes()


# --- notes that the program leaves for itself ---


def of_notes(dataset: Path, runs: list[Run], folder: Path) -> list[Parser]:
    sums, mine = folder / "sums/checksums.json", folder / "mine/settings.json"
    owner, part = folder / "owner/run.lock.json", folder / "part/a.part.json"
    places(sums, mine, owner, part)
    mutate = one_of(tree, raw, weights=(4, 1))
    return [
        Parser("checksums.json", sums, [b'{"a.zip": {"bytes": 3, "sha256": "abc"}}'], mutate,
               lambda: archives.read_checksums(sums.parent), sums.name),
        Parser("dashboard settings", mine, [b'{"theme": "x", "pinned": {"/w": ["ldm-0"]}, "marked": {}}'],
               mutate, lambda: sound_settings(mine), mine.name),
        Parser("lock owner", owner, [b'{"pid": 1, "host": "h", "since": 1.5}'], mutate,
               lambda: str(locks.read_owner(owner.with_suffix(""))), ""),
        Parser("download note", part, [b'{"url": "https://a", "validator": "v", "bytes": 3}'], mutate,
               lambda: fetch._noted_validator(fetch._read_note(part)), ""),
    ]  # fmt: skip


def sound_settings(path: Path) -> None:
    found, trouble = settings.load(path)
    assert isinstance(found.theme, str) and (trouble is None or "\n" not in trouble)
