"""CLIP's byte pairs for the built-in model: the tokens of open_clip's tokenizer, without importing open_clip.

That import takes longer than torch's own. What is read of open_clip is its list of merges (49k lines), when the first
word is met.
"""

import gzip
import html
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import chain, count, islice, pairwise
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from metavqa_cli.schema.errors import MissingError

MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
# The marks of a text: after 256 bytes, 256 bytes that end a word, and 48,894 merges come these two.
START, END = 49406, 49407
MERGES = START - 2 * 256
ENDING = "</w>"
MARKS = {"<start_of_text>": START, "<end_of_text>": END}
SUFFIXES = "|".join([*MARKS, *(f"'{each}" for each in ("s", "t", "re", "ve", "m", "ll", "d"))])
WORDS = re.compile(rf"{SUFFIXES}|[a-z]+|[0-9]|[^\sa-z0-9]+")  # of lower-case ASCII


class Tokenizer:
    """Texts to token ids [text, context_length], padded with 0; a longer one is cut and still ends with its mark."""

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def encode(self, text: str) -> list[int]:
        """All tokens of ``text``, without the marks of its start and end."""
        return list(chain.from_iterable(_tokens(word) for word in _words(text)))

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "text context"]:
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            tokens = [START, *self.encode(text)[: self.context_length - 2], END]
            row[: len(tokens)] = torch.tensor(tokens)
        return rows


def _words(text: str) -> list[str]:
    """What merges never cross, in lower case. Plain ASCII has nothing to mend, so needs no library to mend it."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return WORDS.findall(text.lower())
    import ftfy
    import regex

    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    pattern = rf"{SUFFIXES}|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+"
    return list(regex.findall(pattern, " ".join(mended.split()).lower(), regex.IGNORECASE))


@lru_cache(65_536)
def _tokens(word: str) -> tuple[int, ...]:
    """Byte-pair encoding: the pair of neighbours that is first in the list of merges becomes one, and again."""
    if word in MARKS:
        return (MARKS[word],)
    ranks, ids = _ranks(), dict(_single())
    characters = [_characters()[byte] for byte in word.encode()]
    parts = [*characters[:-1], characters[-1] + ENDING]
    while len(parts) > 1:
        best = min(map(" ".join, pairwise(parts)), key=lambda pair: ranks.get(pair, MERGES))
        if best not in ranks:
            break
        parts = _merged(parts, best)
        ids[best.replace(" ", "")] = len(_single()) + ranks[best]
    return tuple(ids[part] for part in parts)


def _merged(parts: Sequence[str], pair: str) -> list[str]:
    """``parts`` with each occurrence of ``pair``, from the left, made one."""
    left, right = pair.split(" ")
    merged: list[str] = []
    skipped = True  # whether the part before this one is taken already
    for before, part in pairwise(["", *parts]):
        if not skipped and (before, part) == (left, right):
            merged[-1] += part
            skipped = True
        else:
            merged.append(part)
            skipped = False
    return merged


@cache
def _characters() -> tuple[str, ...]:
    """A printable character for each byte: its own where it has one, else one from 256 up."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = count(256)
    return tuple(chr(byte if byte in own else next(others)) for byte in range(256))


@cache
def _single() -> dict[str, int]:
    """The tokens of single bytes, within a word and at its end."""
    characters = sorted(_characters())
    return {symbol: token for token, symbol in enumerate([*characters, *(each + ENDING for each in characters)])}


@cache
def _ranks() -> dict[str, int]:
    """The place of each pair in the list of merges. ``MissingError`` without open_clip's file."""
    spec = find_spec("open_clip")  # where it is; nothing is imported
    folder = Path(spec.origin).parent if spec and spec.origin else Path("open_clip")
    try:
        with gzip.open(folder / MERGES_FILE, "rt", encoding="utf-8", newline="\n") as lines:
            return {line.rstrip("\n"): rank for rank, line in enumerate(islice(lines, 1, MERGES + 1))}
    except (OSError, EOFError, ValueError) as error:
        raise MissingError(
            f"open_clip's vocabulary {folder / MERGES_FILE} cannot be read ({error}); install open_clip_torch again"
        ) from None
