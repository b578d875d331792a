"""What a training step and a sampling step cost at least: operations of matrix products, and bytes of memory traffic.

An operation is a multiplication or an addition. Bytes count what has to pass between a card's memory and its cores
when each kernel reads its operands once and writes its results once, as ``engine.loop`` launches them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from metavqa_cli.engine.precision import Arithmetic
from metavqa_cli.guidance.hyperldm import SE_REDUCTION

FLOAT = 4  # bytes of an fp32 value
ADAM = 7 * FLOAT  # reads parameter, gradient and two moments; writes parameter and moments
CLIP = 3 * FLOAT  # reads the gradient for its norm, then reads and writes it
EMA = 3 * FLOAT  # reads average and parameter, writes the average
PRODUCTS = {"fp32": 3 * FLOAT, "tf32": 3 * FLOAT, "bf16": 4 * FLOAT + 2}
"""Of a weight: read forward, read backward, its gradient written; in bf16 also cast (read 4, write 2, then 2 + 2 read),
and its gradient written and read in 2 before it is written in 4."""


@dataclass(frozen=True)
class Cost:
    """Operations and bytes, of a step or of many."""

    operations: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.operations + other.operations, self.bytes + other.bytes)

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.operations * times, self.bytes * times)

    def seconds(self, rate: float, bandwidth: float) -> float:
        """The least time at ``rate`` operations and ``bandwidth`` bytes a second, when one overlaps the other."""
        return max(self.operations / rate, self.bytes / bandwidth)


def update_bytes(parameters: int, how: Arithmetic, ema: bool) -> float:
    """Traffic of the parameters in one training step: products, clipping, AdamW and their average."""
    return float(parameters * (PRODUCTS[how] + CLIP + ADAM + EMA * ema))


def denoiser_weights(latent: int, embed: int, hidden: Sequence[int], time_dim: int) -> int:
    """Weights (without biases) of HyperLDM's denoiser: each is used once for a row."""
    condition, total = embed + time_dim, 0
    for n_in, n_out in zip([latent, *hidden[:-1]], hidden, strict=True):
        squeezed = max(n_out // SE_REDUCTION, 4)
        total += (n_in + condition) * n_out + 2 * n_out * squeezed + (n_in * n_out if n_in != n_out else 0)
    return total + (hidden[-1] + condition) * latent


def sampling_cost(weights: int, rows: int, steps: int, both: bool, how: Arithmetic) -> Cost:
    """``steps`` calls of the denoiser on ``rows`` latents; ``both``: with and without the question in one call."""
    width = 2 if how == "bf16" else FLOAT
    return Cost(2.0 * weights * rows * (1 + both), float(weights * width)) * steps
