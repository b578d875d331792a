"""Zero weights answer as CLIP does."""

import torch

from metavqa_cli.base_network.adapter import answer_logits
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.methods.zero_shot import zero_shot_weights
from tests.base_network.examples import random_batch


def test_the_answer_is_the_nearest_text() -> None:
    layout, batch = WeightLayout(embed=6, hidden=4), random_batch([5, 3], [4, 2], 6, dtype=torch.float32)
    weights = zero_shot_weights(layout, 2)
    assert weights.shape == (2, layout.size)
    logits = answer_logits(layout, weights, batch, 30.0)
    for i, (n, a) in enumerate([(5, 4), (3, 2)]):
        nearest = torch.cdist(batch.x[i, :n], batch.answers[i, :a]).argmin(-1)
        assert torch.equal(logits[i, :n].argmax(-1), nearest)
