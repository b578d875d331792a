"""VQA's soft accuracy: how far an answer agrees with those of the (usually ten) people who were asked.

The rule, the tables and the order of the steps are those of the evaluation code that VQA's authors publish
(PythonEvaluationTools/vqaEvaluation/vqaEval.py of GT-Vision-Lab/VQA, newest form), its oddities included: numbers are
comparable only when they were made by the same rule.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

ENOUGH = 3  # people who must agree with an answer for it to be wholly right
MARKS = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
MOST_PERIODS = 32  # only so many are removed: a slip of the official code, which gives a flag in place of a count
ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(number) for number, word in enumerate(NUMBERS)} | {"none": "0"}
SPELLED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in SPELLED.split()
    for place, letter in enumerate(word)
    if letter == "'"  # each is also known with one apostrophe left out
} | {"somebody'd": "somebodyd"}  # the other way round in the official table too


def cleaned(answer: str) -> str:
    """``answer`` on one line, without spaces around it."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)
def normalised(answer: str) -> str:
    """``answer`` as it is compared: without punctuation and articles, in lower case, number words as digits, and
    apostrophes where a contraction lacks one.

    A mark of punctuation becomes a space unless it stands beside one, or digits are grouped by a comma somewhere in the
    answer ("1,000"): then it only disappears. Periods disappear except before a digit.
    """
    joined = COMMA_IN_NUMBER.search(answer) is not None
    away = {ord(mark): "" if joined or f"{mark} " in answer or f" {mark}" in answer else " " for mark in MARKS}
    words = PERIOD.sub("", answer.translate(away), count=MOST_PERIODS).lower().split()
    digits = (DIGITS.get(word, word) for word in words)
    return " ".join(CONTRACTIONS.get(word, word) for word in digits if word not in ARTICLES)


def soft_accuracies(answers: Sequence[str], human: Mapping[str, int]) -> list[float]:
    """The soft accuracy, 0 to 1, of each of ``answers`` to one question about one image.

    ``human`` is how many people gave each answer. For each person left out, an answer scores the share of three others
    who gave it, at most 1; its soft accuracy is the mean of that over the people. Answers are normalised only where
    people disagree. ``ValueError`` when nobody answered.
    """
    said = Counter[str]()
    for text, people in human.items():
        said[cleaned(text)] += people
    total = sum(said.values())
    if total < 1:
        raise ValueError("soft accuracy needs the answer of at least one person")
    given = [cleaned(answer) for answer in answers]
    if len(+said) > 1:
        agreed = Counter[str]()
        for text, people in said.items():
            agreed[normalised(text)] += people
        said, given = agreed, [normalised(answer) for answer in given]
    return [_mean_over_people(said[answer], total) for answer in given]


def soft_accuracy(answer: str, human: Mapping[str, int]) -> float:
    """``soft_accuracies`` of one answer."""
    return soft_accuracies([answer], human)[0]


def _mean_over_people(agree: int, total: int) -> float:
    """Of ``total`` people ``agree`` gave the answer: leaving out one of them leaves one fewer who agrees."""
    return (agree * min(1.0, (agree - 1) / ENOUGH) + (total - agree) * min(1.0, agree / ENOUGH)) / total
