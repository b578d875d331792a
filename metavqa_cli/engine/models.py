"""The tensors that a run keeps, with a header that explains them and refuses what does not fit."""

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.lineage import check_finished
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.world import here
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import JobError
from metavqa_cli.store.runs import Run
from metavqa_cli.store.sealed import refuse_newer
from metavqa_cli.store.tensors import load_tensors, save_tensors

MODEL_VERSION = 2


@dataclass(frozen=True)
class Model:
    """The tensors of a finished run with the header that explains them."""

    run: Run
    tensors: dict[str, Tensor]
    header: dict[str, Any]


def save_measured(run: Run, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """What a measurement keeps beside its result, written by the first process."""
    if here().first:
        save_tensors(run.model_path, tensors, {"run": run.id, **header})


def save_model(run: Run, session: Session, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """``model.safetensors`` with everything needed to use it again and to refuse what does not fit."""
    if not here().first:
        return
    manifest = run.manifest()
    common = {
        "schema_version": MODEL_VERSION,
        "kind": run.kind,
        "run": run.id,
        "parents": manifest["parents"],
        "dataset": manifest["dataset"],
        "encoder": manifest["encoder"],
        "precision": manifest["precision"],
        "deterministic": manifest.get("deterministic", []),
        "overrides": manifest.get("overrides", []),
        "config": session.config.model_dump(mode="json"),
    }
    save_measured(run, tensors, {**common, **header})


def load_model(run: Run, device: torch.device) -> Model:
    """The model of a finished run on ``device``. ``MissingError`` when the run has not finished."""
    check_finished(run)
    tensors, header = load_tensors(run.model_path, remedy=f"train it again: `metavqa runs rm {run.id} --force`")
    run.own(run.model_path, header, f"train it again: `metavqa runs rm {run.id} --force`")
    refuse_newer(run.model_path, header.get("schema_version"), MODEL_VERSION, None)
    if header.get("schema_version") != MODEL_VERSION:
        raise JobError(
            f"{run.model_path} has version {header.get('schema_version')}, not {MODEL_VERSION}; "
            f"train it again (`metavqa runs rm {run.id} --force` removes it)"
        )
    return Model(run, {name: value.to(device) for name, value in tensors.items()}, header)


def trained_with(model: Model) -> Config:
    """The configuration that the model was trained with. ``JobError`` when another version wrote it."""
    try:
        return Config.model_validate(model.header["config"])
    except (KeyError, TypeError, ValidationError):
        path = model.run.model_path
        raise JobError(f"{path} was written by another version of metavqa; train it again") from None


def model_layout(model: Model) -> WeightLayout:
    """How the model's weights are arranged. ``JobError`` when that means something else to this version."""
    try:
        return WeightLayout.from_dict(model.header["layout"])
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"{model.run.model_path} cannot be used: {error}; train it again") from None
