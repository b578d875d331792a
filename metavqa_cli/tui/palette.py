"""The colours of lines in charts."""

# Of the same brightness, so that they can be read on dark and on light, and told apart by most colour-blind eyes.
COLORS = ("#3fa7e0", "#e08a1e", "#1fae7a", "#d9559b", "#8f83ec", "#a8982a", "#e0603f", "#7f9099")


def color_of(line: int) -> str:
    """The colour of the ``line``-th line; with more lines than colours they come round again."""
    return COLORS[line % len(COLORS)]
