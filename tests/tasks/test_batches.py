"""Selecting tasks keeps them whole and drops only padding."""

import torch

from tests.base_network.examples import random_batch


def test_select_keeps_the_order_and_trims_to_the_largest() -> None:
    batch = random_batch([2, 7, 3], [5, 2, 4], embed=4)
    chosen = batch.select(torch.tensor([2, 0]))
    assert chosen.n_tasks == 2
    assert chosen.x.shape == (2, 3, 4)
    assert chosen.answers.shape == (2, 5, 4)
    for new, old in enumerate([2, 0]):
        assert torch.equal(chosen.x[new], batch.x[old, :3])
        assert torch.equal(chosen.labels[new], batch.labels[old, :3])
        assert torch.equal(chosen.answers[new], batch.answers[old])
        assert torch.equal(chosen.example_mask[new].sum(), batch.example_mask[old].sum())
        assert torch.equal(chosen.answer_mask[new], batch.answer_mask[old])


def test_to_moves_every_tensor() -> None:
    moved = random_batch([2], [2], embed=4).to("meta")
    tensors = (moved.x, moved.labels, moved.example_mask, moved.answers, moved.answer_mask)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
