"""The packaged tiny CLIP as a folder that open_clip reads: what the built-in model is compared with."""

import json
from pathlib import Path

from safetensors.torch import save_file

from metavqa_cli.clip.tiny.package import CONFIG_PATH, PREPROCESSING, restore

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


def as_open_clip(package: Path, folder: Path) -> str:
    """Write the model of ``package`` to ``folder``; returns its ``local-dir:`` name."""
    folder.mkdir()
    save_file(restore(package), folder / WEIGHTS)
    config = {"model_cfg": json.loads((package / CONFIG_PATH.name).read_text()), "preprocess_cfg": PREPROCESSING}
    (folder / CONFIG).write_text(json.dumps(config))
    return f"local-dir:{folder}"
