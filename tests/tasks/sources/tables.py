"""What the tests of the readers share."""

from collections.abc import Callable
from typing import Any

import pytest

from metavqa_cli.schema.errors import MetaVQAError


def broken(error: type[MetaVQAError], action: Callable[[], Any]) -> str:
    """The text of the error that ``action`` must raise: one line, with a way out."""
    with pytest.raises(error) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text and len(text) < 1000
    return text
