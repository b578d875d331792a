"""Words that several errors share."""

from collections.abc import Sequence

NAMED = 3  # things that a sentence names


def some(names: Sequence[str]) -> str:
    """``'a', 'b', 'c' and 5 more``."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more
