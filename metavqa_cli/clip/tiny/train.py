"""Train the tiny CLIP from scratch on captions of Scenes images, and package it.

    python -m metavqa_cli.clip.tiny.train --steps 4000 --out runs/tiny-clip
    python -m metavqa_cli.clip.tiny.train --steps 4000 --out runs/longer --start runs/tiny-clip/package --seed 2

Contrastive training (symmetric cross-entropy over the batch, learned temperature; Radford et al. 2021) of an
open_clip model described by ``tiny_clip.json``. Every evaluation is appended to ``OUT/log.jsonl``; ``OUT/last.pt``
allows the same command to go on where it stopped. At the end ``metavqa_cli.clip.tiny.package`` writes the fp16 weights
that ship, from the exponential moving average of the parameters.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP, get_tokenizer
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from metavqa_cli.clip.tiny.data import TEST_STREAM, PairBatches, loader, normalise, vocabulary
from metavqa_cli.clip.tiny.model import TinyClip
from metavqa_cli.clip.tiny.package import CONFIG_PATH, EMBEDDING, known_tokens, restore, write_package

MAX_LOGIT_SCALE = math.log(100.0)


def new_model(rows: int) -> CLIP:
    """The architecture of ``tiny_clip.json`` with ``rows`` token embeddings."""
    config = json.loads(CONFIG_PATH.read_text())
    return CLIP(config["embed_dim"], config["vision_cfg"], {**config["text_cfg"], "vocab_size": rows})


def word_loss(head: torch.nn.Linear, image: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between the words that a linear head reads from an image [batch, embed] and its caption's words.

    Caption words as classes teach an image tower faster than comparison within a small batch (SuperClass, Huang et al.
    2024). ``tokens`` [batch, context] are rows of the vocabulary; row 0 is padding and the last two are the marks.
    """
    target = torch.zeros(len(tokens), head.out_features, device=image.device).scatter_(1, tokens, 1.0)
    target[:, [0, -1, -2]] = 0
    return F.cross_entropy(head(image), target / target.sum(1, keepdim=True).clamp(min=1))


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """Symmetric cross-entropy between unit-norm embeddings [batch, embed]."""
    logits = logit_scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def retrieval_accuracy(model: CLIP | TinyClip, tokens: torch.Tensor, images: torch.Tensor) -> float:
    """Share of images whose own caption is nearest among all, in per cent, averaged with the other direction."""
    model.eval()
    similarity = model.encode_image(images, normalize=True) @ model.encode_text(tokens, normalize=True).T
    target = torch.arange(len(similarity), device=similarity.device)
    hits = [(s.argmax(1) == target).float().mean().item() for s in (similarity, similarity.T)]
    model.train()
    return 50 * sum(hits)


def copy_buffers(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Batch-norm statistics follow the model; averaging them with the parameters would lag behind."""
    for old, new in zip(target.buffers(), source.buffers(), strict=True):
        old.copy_(new)


def learning_rate(step: int, steps: int, peak: float, warmup: int, falling: float) -> float:
    """Warm up, stay, and fall linearly over the last share ``falling`` of the steps."""
    fall = min(1.0, (steps - step) / (falling * steps))
    return peak * min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * fall)


class Texts:
    """Captions to rows of the compact vocabulary ``ids`` [rows] (sorted, so that the end mark stays the largest)."""

    def __init__(self) -> None:
        context = json.loads(CONFIG_PATH.read_text())["text_cfg"]["context_length"]
        self.tokenizer = get_tokenizer("ViT-B-32", context_length=context)
        self.ids = vocabulary(self.tokenizer)

    def __call__(self, captions: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(captions)
        rows = torch.searchsorted(self.ids, tokens).clamp(max=len(self.ids) - 1)
        return torch.where(self.ids[rows] == tokens, rows, 0)


def held_out(batches: int, size: int, texts: Texts, device: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Test batches of 256 scenes that no training stream contains: (tokens, images)."""
    data = PairBatches(batches, 256, size, seed=1, stream=TEST_STREAM)
    return [
        (texts(text).to(device), normalise(pixels).to(device)) for pixels, text in (data[i] for i in range(batches))
    ]


def new_parts(args: argparse.Namespace, ids: torch.Tensor) -> dict[str, Any]:
    """What a step changes: the model of the tokens ``ids`` [rows], the word head, the average and the optimizer."""
    model = new_model(len(ids))
    if args.start:
        take_over(model, ids, Path(args.start))
    model = model.to(args.device, memory_format=torch.channels_last)
    head = torch.nn.Linear(model.text_projection.shape[1], len(ids)).to(args.device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
    parameters = [*model.parameters(), *head.parameters()]
    groups = [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": args.weight_decay},
              {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=True)
    return {"model": model, "head": head, "average": average, "optimizer": optimizer}


def take_over(model: CLIP, ids: torch.Tensor, package: Path) -> None:
    """Give ``model``, which has a row for each of the tokens ``ids`` [rows], the weights of a packaged model.

    Rows of tokens that the package does not know stay as they were initialised.
    """
    state, known = restore(package), known_tokens(package)
    rows = model.token_embedding.weight.detach().clone()
    for row, token in enumerate(ids.tolist()):
        if token in known:
            rows[row] = state[EMBEDDING][token]
    model.load_state_dict(state | {EMBEDDING: rows}, strict=True)


def train_step(
    parts: dict[str, Any], args: argparse.Namespace, step: int, images: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step, counted from 0, on a batch; returns its contrastive and its word loss."""
    model, head, optimizer = parts["model"], parts["head"], parts["optimizer"]
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, args.steps, args.lr, args.warmup, args.falling)
    image = model.encode_image(images)
    text = model.encode_text(tokens, normalize=True)
    words = word_loss(head, image, tokens)
    loss = contrastive_loss(F.normalize(image, dim=1), text, model.logit_scale.exp())
    optimizer.zero_grad(set_to_none=True)
    (loss + args.words * words).backward()
    torch.nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], args.grad_clip)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
    parts["average"].update_parameters(model)
    return loss.detach(), words.detach()


def train(args: argparse.Namespace) -> None:
    """Train ``args.steps`` batches, resuming from ``args.out`` when it holds an unfinished training."""
    torch.manual_seed(args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    texts = Texts()
    parts = new_parts(args, texts.ids)
    first = load_state(out / "last.pt", parts)
    size = json.loads(CONFIG_PATH.read_text("utf-8"))["vision_cfg"]["image_size"]
    tests = held_out(4, size, texts, args.device)
    start = time.perf_counter()
    batches = loader(PairBatches(args.steps, args.batch, size, args.seed, first=first), args.workers)
    for done, (pixels, captions) in enumerate(batches, first + 1):
        images = normalise(pixels).to(args.device, memory_format=torch.channels_last)
        loss, words = train_step(parts, args, done - 1, images, texts(captions).to(args.device))
        if done % args.every == 0 or done == args.steps:
            save_state(out / "last.pt", parts, done)
            rate = (done - first) * args.batch / (time.perf_counter() - start)
            row = {"step": done, "pairs": done * args.batch, "loss": loss.item(), "word_loss": words.item()}
            log(out / "log.jsonl", row | {"pairs_per_s": rate} | measure(parts, tests))
            write_package(parts["average"].module.state_dict(), texts.ids, out / "package")


def measure(parts: dict[str, Any], tests: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """Retrieval accuracy of the averaged model over the test batches, and the temperature."""
    average = parts["average"].module
    copy_buffers(parts["model"], average)
    accuracies = [retrieval_accuracy(average, *test) for test in tests]
    return {
        "retrieval_256": sum(accuracies) / len(accuracies),
        "logit_scale": parts["model"].logit_scale.exp().item(),
    }


def log(path: Path, row: dict[str, float]) -> None:
    """Append ``row`` to the log and print it."""
    line = json.dumps({key: round(value, 4) for key, value in row.items()})
    with path.open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")
    print(line, flush=True)


def load_state(path: Path, parts: dict[str, Any]) -> int:
    """Restore ``parts`` from ``path`` and return the step to go on from; 0 when there is nothing to resume."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def save_state(path: Path, parts: dict[str, Any], step: int) -> None:
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for the log, the state and the packaged weights")
    parser.add_argument("--start", help="folder of a packaged model to go on from; give another --seed")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--words", type=float, default=0.5, help="weight of the word loss")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--falling", type=float, default=0.25, help="share of the steps with a falling learning rate")
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--grad-clip", type=float, default=1.0)
    parser.add_argument("--every", type=int, default=200, help="steps between evaluations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes ahead")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
