"""VQA's kinds of question: the 64 openings by which its makers sort questions, and the rest."""

import re

NONE_OF_THE_ABOVE = "none of the above"
KINDS = frozenset({
    "are", "are the", "are there", "are there any", "are these", "are they",
    "can you", "could", "do", "do you", "does the", "does this", "has",
    "how", "how many", "how many people are", "how many people are in",
    "is", "is he", "is it", "is that a", "is the", "is the man", "is the person", "is the woman",
    "is there", "is there a", "is this", "is this a", "is this an", "is this person", "was",
    "what", "what animal is", "what are", "what are the", "what brand",
    "what color", "what color are the", "what color is", "what color is the",
    "what does the", "what is", "what is in the", "what is on the", "what is the", "what is the color of the",
    "what is the man", "what is the name", "what is the person", "what is the woman", "what is this",
    "what kind of", "what number is", "what room is", "what sport is", "what time", "what type of",
    "where are the", "where is the", "which", "who is", "why", "why is the",
})  # fmt: skip
LONGEST = max(len(kind.split()) for kind in KINDS)
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


def kind_of(question: str) -> str:
    """The longest opening of ``question``, in whole words, that is a kind; else ``none of the above``."""
    words = WORD.findall(question.lower())[:LONGEST]
    openings = (" ".join(words[:length]) for length in range(len(words), 0, -1))
    return next((opening for opening in openings if opening in KINDS), NONE_OF_THE_ABOVE)
