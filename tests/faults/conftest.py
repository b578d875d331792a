"""What the long forms count, printed when they end."""

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

Tally = Counter[tuple[str, str, str]]


@pytest.fixture(scope="session")
def tally() -> Iterator[Tally]:
    """(command, fault, outcome) -> how often; printed at the end of the session."""
    counted: Tally = Counter()
    yield counted
    sys.__stderr__.write(as_table(counted))  # pytest has its own


def as_table(counted: Tally) -> str:
    """By command and by fault: tried, survived, lost."""
    lines = [f"\n{'':38}{'tried':>8}{'survived':>10}{'lost':>6}"]
    for part in (0, 1):
        for name in dict.fromkeys(key[part] for key in counted):
            lines.append(_line(name, {key: n for key, n in counted.items() if key[part] == name}))
    return "\n".join([*lines, _line("all", counted)]) + "\n"


def _line(name: str, counted: "Tally | dict[tuple[str, str, str], int]") -> str:
    outcome = {each: sum(n for key, n in counted.items() if key[2] == each) for each in ("survived", "lost")}
    return f"{name:38}{sum(outcome.values()):8}{outcome['survived']:10}{outcome['lost']:6}"
