"""Task-loss generator: one latent for each training task and their decoder, trained together on the tasks' own loss.

Not in the paper. Separately fine-tuned weights carry much that no question explains; latents trained through one
decoder carry what the tasks share.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from metavqa_cli.base_network.adapter import answer_logits, task_accuracy, task_loss
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.tasks.batches import TaskBatch


class TaskLatents(nn.Module):
    """Latent means ``mu`` [N, L], drawn from N(0, ``init_std``²), and the decoder that all tasks share."""

    def __init__(self, n_tasks: int, decoder: Hypernetwork, init_std: float, generator: torch.Generator | None) -> None:
        super().__init__()
        self.latent, self.decoder = decoder.latent, decoder
        device = "meta" if generator is None else generator.device
        self.mu = nn.Parameter(torch.empty(n_tasks, decoder.latent, dtype=decoder.base.dtype, device=device))
        nn.init.normal_(self.mu, std=init_std, generator=generator)

    def decode(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch params"]:
        """The weights of each latent."""
        return self.decoder(z)


def task_latent_loss(
    model: TaskLatents,
    indices: Int64[Tensor, " task"],
    batch: TaskBatch,
    layout: WeightLayout,
    logit_scale: float,
    noise: Float[Tensor, "task latent"],
    z_penalty: float,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over tasks of cross-entropy at z = μ_i + ``noise``, plus ``z_penalty``·‖μ_i‖².

    ``indices`` says which row of ``mu`` each task of ``batch`` owns. Metrics: ``loss``, ``accuracy``, ``z_norm`` (‖μ‖).
    """
    mu = model.mu[indices]
    logits = answer_logits(layout, model.decode(mu + noise), batch, logit_scale)
    cross_entropy = task_loss(logits, batch.labels, batch.example_mask)
    loss = (cross_entropy + z_penalty * mu.square().sum(-1)).mean()
    accuracy = task_accuracy(logits, batch.labels, batch.example_mask).mean()
    metrics = {"loss": loss, "accuracy": accuracy, "z_norm": mu.norm(dim=-1).mean()}
    return loss, {name: value.detach() for name, value in metrics.items()}
