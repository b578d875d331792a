"""The tests' own promise: a wrong type in a call to the package is an error, and an int may stand for a float."""

import pytest
from jaxtyping import TypeCheckError

from metavqa_cli.cli.progress import duration
from metavqa_cli.schema.layers import parse_set


def test_a_wrong_type_is_an_error() -> None:
    with pytest.raises(TypeCheckError):
        parse_set(3)  # type: ignore[arg-type]


def test_an_int_may_stand_for_a_float() -> None:
    assert duration(8) == "8 s"
