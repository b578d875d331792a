"""A dataset of the real shape without real images: the released tasks, with seeded random unit vectors as features."""

import json
from pathlib import Path

import numpy as np

from metavqa_cli.engine.build import build_dataset
from metavqa_cli.engine.dataset import DatasetFolder
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.verify import describe_files
from metavqa_cli.schema.config import Config
from metavqa_cli.store.atomic import write_json
from metavqa_cli.store.features import write_features
from metavqa_cli.store.shards import SHARD, shard_names, slices, write_shard
from metavqa_cli.store.workspace import Workspace

RELEASE = Path(__file__).parents[3] / "shared" / "meta-vqa"
EMBED = 768
IDENTITY = {"model": "stand-in", "weights": "seed 0", "embed": EMBED, "dtype": "float32"}


def make_stand_in(workspace: Workspace, name: str = "stand-in") -> DatasetFolder:
    """Write the dataset ``name``: tasks from the release through the ordinary build, features drawn here."""
    config = Config.model_validate(
        {"dataset": {"name": name, "source": "hyperclip", "path": str(RELEASE), "tasks_only": True}}
    )
    for _ in build_dataset(Session(workspace, config)):
        pass
    folder = DatasetFolder(workspace.dataset_dir(name))
    rng, images, texts = np.random.default_rng(0), folder.tasks.image_ids(), folder.tasks.texts()
    features = folder.path / "features"
    for k, (file, ids) in enumerate(zip(shard_names("images", len(images)), slices(images), strict=True)):
        write_shard(features / file, ids, _unit(rng, len(ids)), encoder=IDENTITY, first=k * SHARD, total=len(images))
    write_features(features / "texts.safetensors", texts, _unit(rng, len(texts)), {"encoder": IDENTITY})
    manifest = json.loads((folder.path / "dataset.json").read_text())
    write_json(folder.path / "dataset.json", {**manifest, "encoder": IDENTITY, "files": describe_files(folder.path)})
    return DatasetFolder(folder.path)


def _unit(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.standard_normal((count, EMBED), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
