"""The flat vector and its parts are the same numbers, and a wrong length is never cut or padded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metavqa_cli.base_network.layout import WeightLayout
from tests.base_network.examples import random_weights

LAYOUT = WeightLayout(embed=5, hidden=3)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([(), (2,), (2, 3)]))
def test_flatten_inverts_unflatten(embed: int, hidden: int, leading: tuple[int, ...]) -> None:
    layout = WeightLayout(embed, hidden)
    weights = torch.arange(torch.Size((*leading, layout.size)).numel()).float().view(*leading, layout.size)
    assert torch.equal(layout.flatten(layout.unflatten(weights)), weights)


def test_the_flat_order_is_that_of_the_release() -> None:
    parts = LAYOUT.unflatten(torch.arange(LAYOUT.size).float())
    assert [part.flatten()[0].item() for part in parts] == [0, 15, 30, 33]
    assert parts.W1[1, 0] == 5  # row by row
    assert WeightLayout(embed=768, hidden=256).size == 394_240


def test_the_parts_are_views() -> None:
    weights = torch.zeros(2, LAYOUT.size)
    LAYOUT.unflatten(weights).b2.fill_(1)
    assert weights.sum() == 2 * LAYOUT.embed


def test_a_wrong_length_names_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"39 values.*needs 38"):
        LAYOUT.unflatten(torch.zeros(39))


def test_a_part_of_another_shape_is_refused() -> None:
    parts = LAYOUT.unflatten(torch.zeros(LAYOUT.size))
    with pytest.raises(ValueError, match=r"b1 ends in shape \(5,\)"):
        LAYOUT.flatten(parts._replace(b1=parts.b2))


def test_the_record_is_inverted_and_names_the_arithmetic() -> None:
    record = LAYOUT.to_dict()
    assert WeightLayout.from_dict(record) == LAYOUT
    with pytest.raises(ValueError, match="another version"):
        WeightLayout.from_dict({**record, "fingerprint": "0123"})


def test_fingerprints_differ_where_the_meaning_of_a_position_differs() -> None:
    assert WeightLayout(4, 6).fingerprint == WeightLayout(4, 6).fingerprint
    assert len({WeightLayout(e, h).fingerprint for e in range(1, 5) for h in range(1, 5)}) == 16


def test_gradients_reach_every_position_once() -> None:
    weights = random_weights(2, LAYOUT.size).requires_grad_()
    sum(part.square().sum() for part in LAYOUT.unflatten(weights)).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(weights.grad, 2 * weights.detach())
