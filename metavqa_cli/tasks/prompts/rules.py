"""The table of rules: each turns one construction of the English wh-question into a statement with one slot."""

from collections.abc import Callable

from metavqa_cli.tasks.prompts.phrases import Words, opens_noun_phrase, opens_predicate, place, subject_length
from metavqa_cli.tasks.prompts.reading import SLOT, Question
from metavqa_cli.tasks.prompts.words import (
    BASE_VERBS,
    BE,
    DETERMINERS,
    DO,
    HAVE,
    KINDS,
    LINKING_VERBS,
    MODALS,
    NEGATIONS,
    PREPOSITIONS,
    is_gerund,
    is_participle,
)

Rule = Callable[[Question], Words | None]


def existential(question: Question) -> Words | None:
    """How many cars are there (in the picture)?: there are (in the picture) {} cars."""
    if question.verb not in {"are", "were"} or question.rest[:1] != ("there",) or question.wh == "why":
        return None
    return ("there", question.verb, *question.rest[1:], *question.slot)


def subject_asked(question: Question) -> Words | None:
    """What is in the sky?: {} is in the sky. The wh-phrase is itself the subject."""
    if question.asks_adverb or not question.rest or not _lacks_subject(question):
        return None
    return (*question.slot, *filter(None, [question.verb]), *question.rest)


def _lacks_subject(question: Question) -> bool:
    rest, verb = question.rest, question.verb
    if verb in BE:
        return opens_predicate(rest) or (question.counts and not opens_noun_phrase(rest))
    if verb in MODALS:
        return rest[0] in BASE_VERBS
    if verb in HAVE:
        return not (opens_noun_phrase(rest) and any(map(is_participle, rest)))
    return not verb


def inverted(question: Question) -> Words | None:
    """What color is the jacket?: the jacket is {}. What is he holding in his hand?: he is holding {} in his hand."""
    rest, verb = question.rest, question.verb
    if not rest or not verb or rest[0] in NEGATIONS:
        return None
    plain_verb_due = verb in DO | MODALS
    length = subject_length(rest, BASE_VERBS if plain_verb_due else frozenset())
    if length == len(rest) and (plain_verb_due or question.wh == "why"):
        length = _forced_predicate(rest)
    subject, predicate = rest[:length], rest[length:]
    if not subject:
        return None
    slot = ("by", SLOT) if _asks_manner(question, predicate) else question.slot
    auxiliary = () if verb in DO else (verb,)
    answered = (*predicate, *slot) if question.asks_adverb else place(slot, predicate)
    return (*subject, *auxiliary, *answered)


def _forced_predicate(rest: Words) -> int:
    """Where an unmarked predicate starts: at a preposition, else at the last word; 0 if no subject is left then."""
    after_noun = range(2, len(rest))
    index = next((index for index in after_noun if rest[index] in PREPOSITIONS), len(rest) - 1)
    return 0 if rest[index - 1] in DETERMINERS else index


def _asks_manner(question: Question, predicate: Words) -> bool:
    """How is the hair styled?, How do you flush it?; but not How does it look?, How old is it?."""
    if question.wh != "how" or question.noun or not predicate or predicate[0] in LINKING_VERBS:
        return False
    return question.verb in DO | MODALS or is_gerund(predicate[0]) or is_participle(predicate[0])


def verbless(question: Question) -> Words | None:
    """How many people in the boat?: {} people in the boat. What kind of cake?: {} cake."""
    slot = question.slot
    if question.verb or question.rest or slot[0] != SLOT or len(slot) == 1:
        return None
    if slot[1] == "of" and question.noun[0] in KINDS:
        return (SLOT, *slot[2:]) if len(slot) > 2 else None
    return slot


RULES: tuple[Rule, ...] = (existential, subject_asked, inverted, verbless)
