"""Lists as people type them: seeds, guidance scales, shares, shards. Every mistake is one sentence."""

import math
from collections.abc import Sequence

from metavqa_cli.schema.errors import UsageError

MOST = 1_000  # values in one list; more is a slip of the keyboard


def seed_list(text: str) -> list[int]:
    """``"5"`` is the seeds 0 to 4; ``"0,3"`` (or ``"3,"``) are these."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and len(part) < 19 for part in parts):
        raise UsageError(f"--seeds takes how many (5), or which ones (0,3); found {text!r}")
    numbers = [int(part) for part in parts]
    if "," in text:
        return list(dict.fromkeys(numbers))
    if not 1 <= numbers[0] <= MOST:
        raise UsageError(f"--seeds takes 1 to {MOST} seeds; found {text!r} (one seed alone is {text},)")
    return list(range(numbers[0]))


def gamma_list(texts: Sequence[str]) -> list[float]:
    """Guidance scales: ``"0:3:0.25"`` is from 0 to 3, both included, in steps of 0.25; ``"1,1.5"`` and ``"2"`` too."""
    found = [value for text in texts for part in text.split(",") for value in _gammas(part.strip(), text)]
    return list(dict.fromkeys(found))


def _gammas(part: str, text: str) -> list[float]:
    numbers = [_number(number, text) for number in part.split(":")]
    if len(numbers) == 1:
        return numbers
    if len(numbers) != 3:
        raise UsageError(f"--gamma takes a number, a list (1,1.5) or FROM:TO:STEP (0:3:0.25); found {text!r}")
    first, last, step = numbers
    if step <= 0 or last < first:
        raise UsageError(f"--gamma {text}: FROM:TO:STEP needs a step above 0 and TO not below FROM, as in 0:3:0.25")
    steps = (last - first) / step * (1 + 1e-9)
    if steps >= MOST:
        raise UsageError(f"--gamma {text} is more than {MOST} guidance scales; take a larger step")
    return [round(first + step * i, 10) for i in range(math.floor(steps) + 1)]


def _number(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"--gamma takes numbers from 0 up, a list (1,1.5) or FROM:TO:STEP (0:3:0.25); found {text!r}")
    return value


def share_list(text: str | None) -> list[float] | None:
    """Shares of the descriptors, ``"0.1,0.5,1"``: each above 0 and at most 1; None for none."""
    if text is None:
        return None
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = [math.nan]
    if not all(0 < share <= 1 for share in shares):
        raise UsageError(f"--descriptors takes shares above 0 and up to 1, as in 0.1,0.5,1; found {text!r}")
    return sorted(set(shares))


def shard_of(text: str | None) -> tuple[int, int]:
    """``"2/8"`` as part and number of parts; the whole when there is none."""
    if text is None:
        return 1, 1
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts) <= MOST):
        raise UsageError(f"--shard takes PART/PARTS, from 1/8 to 8/8; found {text!r}")
    return int(part), int(parts)


def name_list(texts: Sequence[str] | None) -> list[str]:
    """Names from repeated and comma-separated options, each once. ``UsageError`` for an option without any."""
    if texts and not any(text.strip(" ,") for text in texts):
        raise UsageError("an option that takes names is empty; leave it out, or name some")
    return list(dict.fromkeys(name.strip() for text in texts or () for name in text.split(",") if name.strip()))
