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

ROOTS = [folder / "shared" / "meta-vqa" for folder in Path(__file__).parents[2:4]]  # in the checkout, or beside it
RELEASE = next((folder for folder in ROOTS if folder.is_dir()), ROOTS[-1])
EMBED = 768
IDENTITY = {"model": "stand-in", "weights": "seed 0", "embed": EMBED, "dtype": "float32"}


def make_stand_in(workspace: Workspace, name: str = "stand-in", embed: int = EMBED, match: str = "") -> DatasetFolder:
    """Write the dataset ``name``: tasks from the release through the ordinary build, features [embed] drawn here.

    ``match`` keeps only the questions in which that regular expression is found.
    """
    dataset = {"name": name, "source": "hyperclip", "path": str(RELEASE), "tasks_only": True, "match": match}
    config, identity = Config.model_validate({"dataset": dataset}), {**IDENTITY, "embed": embed}
    for _ in build_dataset(Session(workspace, config)):
        pass
    folder = DatasetFolder(workspace.dataset_dir(name))
    rng, images, texts = np.random.default_rng(0), folder.tasks.image_ids(), folder.tasks.texts()
    features = folder.path / "features"
    for k, (file, ids) in enumerate(zip(shard_names("images", len(images)), slices(images), strict=True)):
        write_shard(
            features / file, ids, _unit(rng, len(ids), embed), encoder=identity, first=k * SHARD, total=len(images)
        )
    write_features(features / "texts.safetensors", texts, _unit(rng, len(texts), embed), {"encoder": identity})
    manifest = json.loads((folder.path / "dataset.json").read_text())
    write_json(folder.path / "dataset.json", {**manifest, "encoder": identity, "files": describe_files(folder.path)})
    return DatasetFolder(folder.path)


def _unit(rng: np.random.Generator, count: int, embed: int) -> np.ndarray:
    rows = rng.standard_normal((count, embed), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
