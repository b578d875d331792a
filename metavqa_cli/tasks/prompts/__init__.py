"""Question to statement: "What color is the jacket?" becomes "the jacket is {}", to be filled with an answer.

Rules found from the 5,737 pairs that the paper's authors released, whose converter is not public. The output has that
converter's form (lower case, tokens apart: "the man 's hat is {}", "this is {} of room"), since the statements are
what CLIP is to see. Pure functions of their text; nothing here raises on a question.
"""

from dataclasses import dataclass

from metavqa_cli.schema.errors import UsageError
from metavqa_cli.tasks.prompts.reading import SLOT, clauses, read
from metavqa_cli.tasks.prompts.rules import RULES

NEUTRAL = "the answer is {}"


@dataclass(frozen=True)
class Template:
    """A statement with exactly one ``{}``, and the rule that made it ("neutral" for the fallback)."""

    text: str
    rule: str
    is_fallback: bool = False


def to_template(question: str) -> Template:
    """The statement template of a typed question; :data:`NEUTRAL` when no rule fits.

    Never raises and never interprets the text: braces in the question are dropped.
    """
    for clause in clauses(question):
        parsed = read(clause)
        if parsed is None:
            continue
        for rule in RULES:
            words = rule(parsed)
            if words is not None:
                return Template(" ".join(words), rule.__name__)
    return Template(NEUTRAL, "neutral", is_fallback=True)


def fill(template: str, answer: str) -> str:
    """The statement with ``answer`` in the slot, character for character. UsageError unless there is one slot."""
    before, after = check_template(template).split(SLOT)
    return before + answer + after


def check_template(text: str) -> str:
    """``text`` itself if it has exactly one ``{}``; UsageError otherwise."""
    slots = text.count(SLOT)
    if slots != 1:
        raise UsageError(
            f"the template {text!r} has {slots} places for the answer, expected exactly one {{}}; "
            'write for example "the car is {}"'
        )
    return text
