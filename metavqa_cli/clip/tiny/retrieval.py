"""How well the shipped tiny CLIP matches held-out scenes with their captions.

    python -m metavqa_cli.clip.tiny.retrieval

prints JSON: for batches of 256 scenes that no training stream contains, the share of images whose own caption is
nearest and of captions whose own image is nearest, averaged, in per cent.
"""

import json
import sys

import torch

from metavqa_cli.clip.encoder import TINY, ClipEncoder, load_encoder
from metavqa_cli.clip.tiny.data import TEST_STREAM, PairBatches, normalise

BATCH = 256


@torch.inference_mode()
def retrieval(encoder: ClipEncoder, batches: int, plain: bool) -> list[float]:
    """The accuracy of each batch, in per cent, with ``plain`` captions or as they come in training."""
    data = PairBatches(batches, BATCH, encoder.identity["image_size"], seed=1, stream=TEST_STREAM, plain=plain)
    found = []
    for i in range(batches):
        pixels, captions = data[i]
        images = encoder.model.encode_image(normalise(pixels).to(encoder.device), normalize=True)
        similarity = images @ encoder.encode_text(captions).T
        target = torch.arange(BATCH, device=similarity.device)
        hits = [(s.argmax(1) == target).float().mean().item() for s in (similarity, similarity.T)]
        found.append(50 * sum(hits))
    return found


def main() -> None:
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    encoder = load_encoder(TINY, torch.device("cpu"))
    measured = {name: retrieval(encoder, batches, plain) for name, plain in (("plain", True), ("mixed", False))}
    report = {name: {"mean": round(sum(v) / len(v), 2), "lowest": round(min(v), 2)} for name, v in measured.items()}
    print(json.dumps({"batch": BATCH, "batches": batches, "retrieval_per_cent": report}))


if __name__ == "__main__":
    main()
