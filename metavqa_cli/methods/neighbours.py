"""Controls that remember: the weights of training tasks whose questions are near (not in the paper)."""

from jaxtyping import Float
from torch import Tensor


def nearest(
    cosines: Float[Tensor, "task known"], weights: Float[Tensor, "known params"]
) -> Float[Tensor, "task params"]:
    """The weights of the training question with the highest cosine."""
    return weights[cosines.argmax(1)]


def kernel_average(
    cosines: Float[Tensor, "task known"], weights: Float[Tensor, "known params"], width: float
) -> Float[Tensor, "task params"]:
    """Nadaraya-Watson: training weights averaged with kernel exp(cosine/``width``), normalised over the known ones."""
    return (cosines / width).softmax(-1) @ weights
