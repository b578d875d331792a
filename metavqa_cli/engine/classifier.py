"""A generated classifier as one self-describing file, and judging images with it. Needs only the CLIP model besides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.base_network.adapter import answer_logits
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.clip.encoder import TINY, ClipEncoder
from metavqa_cli.engine.request import check_answers, check_gamma
from metavqa_cli.methods.zero_shot import zero_shot_weights
from metavqa_cli.schema.errors import JobError, UsageError
from metavqa_cli.schema.strict import check_types
from metavqa_cli.schema.text import neutral
from metavqa_cli.store.sealed import refuse_newer
from metavqa_cli.store.tensors import load_tensors, save_tensors
from metavqa_cli.tasks.batches import TaskBatch
from metavqa_cli.tasks.prompts import check_template, fill

KIND, VERSION = "classifier", 1
LARGEST_SCALE = 1e6  # of cosines; CLIP learns 100


@dataclass(frozen=True, eq=False)
class Classifier:
    """Weights [P] of the base network for one question, with everything needed to use them."""

    weights: Tensor
    layout: WeightLayout
    question: str
    answers: tuple[str, ...]
    template: str
    logit_scale: float
    encoder: dict[str, Any]
    gamma: float
    seed: int
    sampler: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    def statements(self) -> list[str]:
        return [fill(self.template, answer) for answer in self.answers]


HEADER_TYPES: dict[str, type | tuple[type, ...]] = {
    "question": str, "answers": list, "template": str, "logit_scale": (int, float), "encoder": dict,
    "gamma": (int, float), "seed": int, "sampler": dict, "runs": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """Answers with their probabilities for one image, best first; ``clip`` is plain zero-shot CLIP's opinion."""

    image: str
    ranked: tuple[tuple[str, float], ...]
    clip: tuple[tuple[str, float], ...]


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write the classifier as one safetensors file, atomically."""
    fields = {name: getattr(classifier, name) for name in HEADER_TYPES} | {"answers": list(classifier.answers)}
    header = {"kind": KIND, "version": VERSION, "layout": classifier.layout.to_dict(), **fields}
    save_tensors(path, {"weights": classifier.weights}, header)


def load_classifier(path: Path) -> Classifier:
    """Read a classifier file. ``JobError`` when it is something else, damaged, or of another layout."""
    remedy = "generate it again with `metavqa generate`"
    tensors, header = load_tensors(path, remedy=remedy)
    if header.get("kind") == KIND:
        refuse_newer(path, header.get("version"), VERSION, None)
    if header.get("kind") != KIND or header.get("version") != VERSION:
        found = header["kind"] if isinstance(header.get("kind"), str) else "unknown"
        version = header.get("version") if isinstance(header.get("version"), int) else None
        raise JobError(
            f"{path} holds a {neutral(found[:40], one_line=True)} of version {version}, not a classifier; {remedy}"
        )
    try:
        return _parse(tensors["weights"], header)
    except (KeyError, ValueError, TypeError, UsageError) as error:
        raise JobError(f"{path} is not a valid classifier ({error}); {remedy}") from None


def _parse(weights: Tensor, header: dict[str, Any]) -> Classifier:
    """The classifier; a built-in exception or ``UsageError`` when it makes no sense, for its header is not trusted."""
    for name, kind in HEADER_TYPES.items():
        if not isinstance(header[name], kind) or isinstance(header[name], bool):
            raise TypeError(f"{name} is {repr(header[name])[:60]}")
    check_types(header["encoder"], {"model": str})
    check_types(header["runs"], dict.fromkeys(header["runs"], str))
    layout = WeightLayout.from_dict(header["layout"])
    if weights.shape != (layout.size,):
        raise ValueError(f"{tuple(weights.shape)} weights do not fit the layout {header['layout']}")
    known = {name: header[name] for name in HEADER_TYPES}
    if not all(isinstance(answer, str) for answer in known["answers"]):
        raise TypeError("an answer is no text")
    known["answers"] = check_answers(known["answers"])
    check_template(known["template"])
    check_gamma(known["gamma"])
    if not 0 < known["logit_scale"] <= LARGEST_SCALE or known["seed"] < 0:
        raise ValueError(f"logit_scale {known['logit_scale']} or seed {known['seed']} is none")
    return Classifier(weights=weights.float(), layout=layout, **known)


NAMES = {"model", "open_clip"}
"""Parts of an encoder's identity that only say where it came from; ``weights`` is the hash of what it is."""


def check_encoder(recorded: dict[str, Any], encoder: ClipEncoder, what: str) -> None:
    """Refuse ``what`` ("the run ldm-1f00") when it was made with another CLIP model's embeddings. ``UsageError``."""
    names = sorted({*recorded, *encoder.identity} - NAMES)
    differing = [name for name in names if recorded.get(name) != encoder.identity.get(name)]
    if differing == ["weights"] and recorded.get("model") == encoder.name == TINY:
        raise UsageError(f"{what} was made with the built-in CLIP model of another version of metavqa; make it again")
    if differing:
        found = "; ".join(
            f"{name}: {recorded.get(name)!r} there, {encoder.identity.get(name)!r} here" for name in differing
        )
        raise UsageError(f"{what} was made with another CLIP model ({found}); choose that with --clip")


@torch.no_grad()
def judge(classifier: Classifier, encoder: ClipEncoder, names: Sequence[str], x: Tensor) -> list[Judgement]:
    """Judge images by their unit-norm embeddings ``x`` [image, E]; ``names`` are shown with the results."""
    statements = encoder.encode_text(classifier.statements())
    ours = probabilities(classifier, classifier.weights[None].to(x.device), x, statements)
    plain = probabilities(classifier, zero_shot_weights(classifier.layout, 1, x.device), x, statements)
    return [
        Judgement(name, rank(classifier.answers, ours[i]), rank(classifier.answers, plain[i]))
        for i, name in enumerate(names)
    ]


def probabilities(classifier: Classifier, weights: Tensor, x: Tensor, statements: Tensor) -> Tensor:
    """Softmax over the answers [image, answer] of the base network with ``weights`` [1, P]. ``JobError`` when the
    weights are so large that there is none."""
    n, device = len(x), x.device
    batch = TaskBatch(
        x=x[None],
        labels=torch.zeros(1, n, dtype=torch.int64, device=device),
        example_mask=torch.ones(1, n, dtype=torch.bool, device=device),
        answers=statements[None],
        answer_mask=torch.ones(1, len(statements), dtype=torch.bool, device=device),
    )
    found = answer_logits(classifier.layout, weights, batch, classifier.logit_scale)[0].softmax(-1)
    if not found.isfinite().all():
        raise JobError("the classifier's weights lead to numbers that are not finite; generate it again")
    return found


def rank(answers: Sequence[str], values: Tensor) -> tuple[tuple[str, float], ...]:
    order = values.argsort(descending=True, stable=True).tolist()
    return tuple((answers[i], float(values[i])) for i in order)


def as_record(judgement: Judgement) -> dict[str, Any]:
    """The judgement as stable JSON keys."""
    return {
        "image": judgement.image,
        "answer": judgement.ranked[0][0],
        "probability": round(judgement.ranked[0][1], 6),
        "ranked": [{"answer": answer, "probability": round(p, 6)} for answer, p in judgement.ranked],
        "clip_answer": judgement.clip[0][0],
        "clip": [{"answer": answer, "probability": round(p, 6)} for answer, p in judgement.clip],
    }
