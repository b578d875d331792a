"""Reads a typed question: cleans the text, finds the wh-clause, and cuts it into wh-phrase, verb and the rest."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from metavqa_cli.tasks.prompts.phrases import Words, opens_noun_phrase
from metavqa_cli.tasks.prompts.words import (
    ATTRIBUTES,
    AUXILIARIES,
    CONTRACTED_BE,
    PARTITIVES,
    PREPOSITIONS,
    QUESTION_OPENERS,
    WH_WORDS,
    is_finite,
)

SLOT = "{}"
MAX_WORDS = 40  # the longest released question has 11
_MAX_CHARS = 20 * MAX_WORDS

_PLAIN = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc`\u00b4", "'") | dict.fromkeys("\u2010\u2011\u2013\u2014", "-"))
_SENTENCE_END = re.compile(r"[.!?;:]+(?:\s|$)")
_TOKEN = re.compile(r"\d+(?:[.:]\d+)+|[^\W_]+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|[^\W_]+|['&%$/-]")
_CONTRACTED = {f"{wh}s": (wh, "'s") for wh in ("what", "who", "where", "how")}  # "whats the man doing"


@dataclass(frozen=True)
class Question:
    """A wh-question cut at its verb.

    "What color hat is the man wearing?" has ``wh="what"``, ``noun=("color", "hat")``, ``verb="is"`` and
    ``rest=("the", "man", "wearing")``. ``fronted`` is the preposition of "In what room…". ``verb`` is empty when the
    clause has no auxiliary; then ``rest`` starts with the full verb, or is empty.
    """

    fronted: Words
    wh: str
    noun: Words
    verb: str
    rest: Words

    @property
    def counts(self) -> bool:
        """Whether it asks "how many" or "how much"."""
        return self.wh == "how" and self.noun[:1] in {("many",), ("much",)}

    @property
    def asks_adverb(self) -> bool:
        """Whether the answer is a place, time, reason, manner or degree: never a subject or an object."""
        degree = self.wh == "how" and not self.counts
        return degree or self.wh in {"where", "when", "why"} or bool(self.fronted)

    @property
    def slot(self) -> Words:
        """What stands for the wh-phrase: ``{} hat`` for "what color hat", ``{} of room`` for "what kind of room"."""
        if self.wh == "why":
            return ("because", SLOT)
        if self.wh == "how" and self.noun == ("old",):
            return (SLOT, "years", "old")
        keeps_noun = self.counts or (self.wh != "how" and _qualifies(self.noun))
        return (*self.fronted, SLOT, *self.noun[1:]) if keeps_noun else (*self.fronted, SLOT)


def _qualifies(noun: Words) -> bool:
    """Whether the answer stands for the first word only: "color | hat", "kind | of room", "side | of the road"."""
    if noun[1:2] == ("of",):
        return noun[0] in PARTITIVES or opens_noun_phrase(noun[2:])
    return len(noun) > 1 and noun[0] in ATTRIBUTES and noun[1] not in PREPOSITIONS


def clauses(text: str) -> Iterator[Words]:
    """Token sequences that may be the question, best first; nothing when the text holds no English wh-question.

    A clause starts with a wh-word (or preposition + wh-word) at the start of a sentence or after a comma. What
    follows its first comma ("…, red or blue?") is left out if there is a verb before it.
    """
    for sentence in _SENTENCE_END.split(_clean(text)):
        parts = [_tokens(part) for part in sentence.split(",")]
        for first, part in enumerate(parts):
            if not _starts_question(part):
                continue
            if len(parts) > 1 and not AUXILIARIES.union(CONTRACTED_BE).isdisjoint(part):
                yield part
            yield tuple(token for later in parts[first:] for token in later)


def _clean(text: str) -> str:
    """Lower case, straight quotes, single spaces, nothing invisible; empty when too long or not in the Latin script."""
    text = " ".join(text.split())
    if len(text) > _MAX_CHARS:
        return ""
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN).lower()
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return "" if any(char.isalpha() and not _is_latin(char) for char in text) else text


def _is_latin(char: str) -> bool:
    return char < "\u0250" or unicodedata.name(char, "").startswith("LATIN")


def _tokens(text: str) -> Words:
    """Words as the release writes them: ``man's t-shirt`` is ``man 's t - shirt``. Braces and quotes are dropped."""
    tokens = [token for word in _TOKEN.findall(text) for token in _CONTRACTED.get(word, (word,))]
    while tokens and tokens[0] in QUESTION_OPENERS:
        del tokens[0]
    while tokens and (tokens[-1] == "please" or not any(map(str.isalnum, tokens[-1]))):
        del tokens[-1]
    return tuple(tokens)


def _starts_question(tokens: Words) -> bool:
    fronted = len(tokens) > 1 and tokens[0] in PREPOSITIONS and tokens[1] in WH_WORDS
    return fronted or (bool(tokens) and tokens[0] in WH_WORDS)


def read(clause: Words) -> Question | None:
    """Cuts one of :func:`clauses` into its parts; None for a bare wh-word, two questions, a long text."""
    fronted = clause[:1] if clause[0] in PREPOSITIONS else ()
    wh, *words = clause[len(fronted) :]
    words[:1] = [CONTRACTED_BE.get(word, word) for word in words[:1]]
    asked_twice = not {"what", "which", "how", "why"}.isdisjoint(words)
    if not 0 < len(words) <= MAX_WORDS or asked_twice or words[0] in {"about", "come"}:
        return None
    cut = _verb_index(wh, words)
    has_auxiliary = cut < len(words) and words[cut] in AUXILIARIES
    noun, subject = _split_uninverted(tuple(words[:cut]))
    verb = words[cut] if has_auxiliary else ""
    predicate = words[cut + 1 :] if has_auxiliary else words[cut:]
    return Question(fronted, wh, noun, verb, (*subject, *predicate))


def _verb_index(wh: str, words: list[str]) -> int:
    """Where the wh-phrase ends: at the first auxiliary, else at a full verb, else at the end."""
    auxiliaries = (i for i, word in enumerate(words) if word in AUXILIARIES)
    verbs = (i for i, word in enumerate(words) if is_finite(word))
    return next(auxiliaries, 0 if wh == "who" else next(verbs, len(words)))


def _split_uninverted(words: Words) -> tuple[Words, Words]:
    """The parts "color" and "the jacket" of "What color the jacket is?", whose subject already precedes its verb."""
    for index in range(len(words)):
        if opens_noun_phrase(words[index:]) and (index == 0 or words[index - 1] not in PREPOSITIONS):
            return words[:index], words[index:]
    return words, ()
