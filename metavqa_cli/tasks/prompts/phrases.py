"""Finds where a subject ends and its predicate begins, and where in a predicate the answer belongs."""

from metavqa_cli.tasks.prompts.words import (
    ADJECTIVES,
    BASE_VERBS,
    BE,
    DEMONSTRATIVES,
    DETERMINERS,
    NEGATIONS,
    PLACE_ADVERBS,
    PREPOSITIONS,
    PRONOUNS,
    is_adverb,
    is_gerund,
    is_participle,
)

Words = tuple[str, ...]


def opens_noun_phrase(words: Words) -> bool:
    """Whether the first word can only begin a noun phrase: an article, a possessive, a pronoun."""
    return bool(words) and (words[0] in DETERMINERS or words[0] in PRONOUNS)


def opens_predicate(words: Words) -> bool:
    """Whether the words say something about a missing subject: "in the sky", "flying", "parked here", "taller"."""
    first, following = words[0], words[1:]
    if opens_noun_phrase(words):
        return False
    if is_gerund(first) or is_participle(first) or is_adverb(first):
        return True
    if first in PREPOSITIONS or first in PLACE_ADVERBS or first in NEGATIONS:
        return True
    covering = first.endswith("ing") and opens_noun_phrase(following)  # a noun elsewhere: "the building"
    described = first in ADJECTIVES and (not following or following[0] in PREPOSITIONS)
    return covering or described


def subject_length(words: Words, verbs: frozenset[str] = frozenset()) -> int:
    """Number of leading words that form the subject; ``len(words)`` when no predicate follows it.

    "the man on the left | wearing on his head", "the bed | made of", "the plate the food is on |". ``verbs`` are plain
    verb forms that may start the predicate, after "does" or "can".
    """
    if _is_pronoun(words, verbs):
        return 1
    if not BE.isdisjoint(words):  # a relative clause: "the plate the food is on"
        return len(words)
    noun_due = _needs_noun(words[0])
    for index in range(1, len(words)):
        if not noun_due and _starts_predicate(words[index:], verbs):
            return index
        noun_due = _needs_noun(words[index])
    return len(words)


def _needs_noun(word: str) -> bool:
    return word in DETERMINERS or word in PREPOSITIONS or word == "'s"


def _is_pronoun(words: Words, verbs: frozenset[str]) -> bool:
    """Whether the first word is a subject by itself: "he", or "this" in "this", "this in", "this called"."""
    first, following = words[0], words[1:]
    if first not in DEMONSTRATIVES:
        return first in PRONOUNS
    if not following or following[0] in PREPOSITIONS or following[0] in DETERMINERS:
        return True
    adjectival = is_gerund(following[0]) and not _ends_verb(following[1:])  # "this flying animal"
    return not adjectival and _starts_predicate(following, verbs)


def _starts_predicate(words: Words, verbs: frozenset[str]) -> bool:
    first, following = words[0], words[1:]
    if is_gerund(first):
        return not _leads_to_gerund(following)
    return first in verbs or (is_participle(first) and _ends_verb(following)) or is_stranded(words)


def _ends_verb(following: Words) -> bool:
    """Whether a verb form before ``following`` is a verb, not an adjective of the next noun ("striped shirt")."""
    if not following or opens_noun_phrase(following):
        return True
    return following[0] in PREPOSITIONS or following[0] == "place" or is_adverb(following[0])  # "taking place"


def _leads_to_gerund(following: Words) -> bool:
    """Whether a later verb is the real one: "a hat doing" behind "the man wearing"."""
    return len(following) > 1 and is_gerund(following[-1]) and not _needs_noun(following[-2])


def is_stranded(words: Words) -> bool:
    """Prepositions and particles without an object: "on", "out of", "next to", "in front of", "on top of"."""
    bare = all(word in PREPOSITIONS or word in {"front", "top", "back"} for word in words)
    return bare and words[0] in PREPOSITIONS and words[-1] in PREPOSITIONS


def place(slot: Words, predicate: Words) -> Words:
    """Puts the answer where the object of the predicate belongs.

    Behind the verb if a complete prepositional phrase follows ("wearing {} on his head"), else at the end ("is looking
    at {}", "is holding up {} fingers", "is made of {}").
    """
    verb = _object_verb(predicate)
    adjunct = predicate[verb + 1 :]
    if verb < 0 or not adjunct or adjunct[0] not in PREPOSITIONS or is_stranded(predicate[-1:]) or adjunct[0] == "like":
        return (*predicate, *slot)
    return (*predicate[: verb + 1], *slot, *adjunct)


def _object_verb(predicate: Words) -> int:
    """Index of the verb that takes the object, the last of "trying to catch"; -1 without an active verb."""
    if not predicate or not (is_gerund(predicate[0]) or predicate[0] in BASE_VERBS):
        return -1
    return 2 if predicate[1:2] == ("to",) and predicate[2:3] and predicate[2] in BASE_VERBS else 0
