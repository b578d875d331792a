"""Best of N: of several latents sampled for a question, the ones whose weights HyperCLIP finds closest to it.

Not in the paper, which uses HyperCLIP for gradients (Section 4.2) and for task inference (Fig. 3) only.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from metavqa_cli.guidance.hyperclip import Decode, HyperCLIP, similarity


@torch.no_grad()
def best_latents(
    model: HyperCLIP,
    decode: Decode,
    z: Float[Tensor, "sample batch latent"],
    e: Float[Tensor, "batch embed"],
    keep: int = 1,
) -> Float[Tensor, "batch latent"]:
    """For each question, the mean of its ``keep`` latents with the highest cos(CLIP_H(h(z)), e).

    Decodes one sample of each question at a time: weights of all of them at once need ``sample`` times the memory.
    Raises ValueError unless 1 ≤ ``keep`` ≤ the number of samples.
    """
    if not 1 <= keep <= len(z):
        raise ValueError(f"cannot keep the best {keep} of {len(z)} latents a question; choose from 1 to {len(z)}")
    similarities = torch.stack([similarity(model, decode(sample), e) for sample in z])
    chosen = similarities.topk(keep, dim=0).indices[..., None].expand(-1, -1, z.shape[-1])
    return z.gather(0, chosen).mean(0)
