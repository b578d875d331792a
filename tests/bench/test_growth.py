"""``pytest -m bench``: time grows no faster than tasks, images, answers and parameters, and a batch not at all."""

import pytest

from tests.bench.growth import results


@pytest.mark.bench
def test_exponents_are_within_their_limits() -> None:
    found = results(short=True)
    assert len(found) == 11
    assert all(each.value is not None and each.limit is not None and each.value <= each.limit for each in found), found
