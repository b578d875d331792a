"""The filter line of a list, as pure functions: text → ``Filter`` → yes or no for one run (or task: ``Grammar``).

``ldm smoke``           every word occurs in the id, kind, variant or dataset (upper and lower case are the same)
``kind:ldm``            the text occurs in that field; for a field that holds a number, it is that number
``accuracy>50``         ``= != > >= < <=``; ``=`` is exact for text, and as precise as typed for a number;
                        ``progress>50%`` (of the whole), ``age<2h`` (``s m h d``; seconds without)
``-task``, ``not task`` without it;  ``"two words"`` keeps spaces, signs and a leading minus
``a b | c``             (a and b) or c
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from metavqa_cli.schema.errors import UsageError

TEXTS = ("id", "kind", "variant", "dataset", "state", "parents", "message")
NUMBERS = ("accuracy", "step", "total_steps", "progress", "seed", "age")
FIELDS = (*TEXTS, *NUMBERS)
ALIASES = {"run": "id", "metric": "accuracy", "steps": "total_steps", "parent": "parents"}
WORD_FIELDS = ("id", "kind", "variant", "dataset")
WHOLE = ("step", "total_steps", "seed")
PLAIN: dict[str, float] = {"": 1}
PER_CENT: dict[str, float] = {"": 0.01, "%": 0.01}
TIMES: dict[str, float] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip


@dataclass(frozen=True)
class Grammar:
    """Which fields there are: texts and numbers, those that a word without a field is looked for in, other names of
    fields, numbers without a fraction, and for numbers with units those and an example."""

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    words: tuple[str, ...]
    aliases: Mapping[str, str]
    whole: tuple[str, ...]
    units: Mapping[str, tuple[Mapping[str, float], str]]

    @property
    def fields(self) -> tuple[str, ...]:
        return (*self.texts, *self.numbers)


RUNS = Grammar(
    TEXTS, NUMBERS, WORD_FIELDS, ALIASES, WHOLE, {"progress": (PER_CENT, "50%"), "age": (TIMES, "2h")}
)  # fmt: skip

TERM = re.compile(
    r"""(?P<or>\|) | (?P<minus>-*)
    (?:(?P<field>[^\s"|:=<>!-][^\s"|:=<>!]*)?\s*(?P<sign>:|!=|>=|<=|==|=|>|<)\s*)?
    (?:"(?P<quoted>[^"]*)" | (?P<bare>[^\s"|]+))?""",
    re.VERBOSE,
)
NUMBER = re.compile(r"([+-]?\d{1,300}(?:\.(\d{0,300}))?(?:e[+-]?\d{1,4})?)\s*([%smhd]?)", re.ASCII | re.IGNORECASE)

Sign = Literal[":", "=", "!=", ">", ">=", "<", "<="]


class FilterError(UsageError):
    """The text is no filter; ``position`` is the character (from 0) that the person should look at."""

    def __init__(self, sentence: str, position: int) -> None:
        super().__init__(sentence)
        self.position = position


@dataclass(frozen=True)
class Number:
    """What was typed: its value in the field's unit, and the width that ``=`` allows on either side."""

    value: float
    tolerance: float


@dataclass(frozen=True)
class Term:
    """One condition. ``field`` None means any of ``words``; texts are casefolded."""

    field: str | None
    sign: Sign
    value: str | Number
    negated: bool = False
    words: tuple[str, ...] = WORD_FIELDS

    def __call__(self, run: Any) -> bool:
        """Whether ``run`` (a mapping or an object with the fields as attributes) meets the condition."""
        return self._holds(run) != self.negated

    def _holds(self, run: Any) -> bool:
        if isinstance(self.value, Number):
            return _compare(_value(run, self.field or ""), self.sign, self.value)
        if self.field is None:
            return any(self.value in _text(_value(run, name)) for name in self.words)
        found = _text(_value(run, self.field))
        return self.value in found if self.sign == ":" else (found == self.value) == (self.sign == "=")


@dataclass(frozen=True)
class Filter:
    """Alternatives of terms that must all hold. Without alternatives, every run is kept."""

    alternatives: tuple[tuple[Term, ...], ...] = ()

    def __call__(self, run: Any) -> bool:
        """Whether ``run`` is kept: a ``RunView``, or a mapping with (some of) ``FIELDS``; an absent field is empty."""
        return not self.alternatives or any(all(term(run) for term in terms) for terms in self.alternatives)


def parse(text: str, grammar: Grammar = RUNS) -> Filter:
    """The filter that ``text`` describes; ``FilterError`` says what is wrong, where, and what to type instead."""
    alternatives: list[list[Term]] = [[]]
    position, negated = _skip_space(text, 0), False
    while position < len(text):
        match = TERM.match(text, position)
        assert match is not None, "every part of TERM may be empty"
        if text[match.end() : match.end() + 1] == '"' and match["quoted"] is match["bare"] is match["or"] is None:
            raise FilterError(f"the quote at character {match.end() + 1} is not closed; add a second one", match.end())
        if match["or"]:
            _expect_term(alternatives[-1], negated, text, position)
            alternatives.append([])
        elif _is_not(match):
            negated = not negated
        else:
            alternatives[-1].append(_term(match, negated, grammar))
            negated = False
        position = _skip_space(text, match.end())
    if len(alternatives) > 1 or negated:
        _expect_term(alternatives[-1], negated, text, len(text))
    return Filter(tuple(tuple(terms) for terms in alternatives if terms))


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _is_not(match: re.Match[str]) -> bool:
    return match["sign"] is None and not match["minus"] and (match["bare"] or "").casefold() == "not"


def _expect_term(terms: list[Term], negated: bool, text: str, position: int) -> None:
    if negated or not terms:
        before = text[:position].rstrip()[-3:].strip() or "|"
        raise FilterError(f"a term is missing at character {position + 1}, beside {before!r}; type one", position)


def _term(match: re.Match[str], negated: bool, grammar: Grammar) -> Term:
    quoted, bare = match["quoted"], match["bare"]
    negated = negated != bool(len(match["minus"]) % 2)
    if match["sign"] is not None:
        return _comparison(match, negated, grammar)
    if quoted is None and bare is None:
        raise FilterError(f"a word or a field is missing after {match[0]!r}; type one", match.end())
    return Term(None, ":", (bare if quoted is None else quoted).casefold(), negated, grammar.words)


def _comparison(match: re.Match[str], negated: bool, grammar: Grammar) -> Term:
    field = _field(match, grammar)
    sign: Any = "=" if match["sign"] == "==" else match["sign"]
    quoted, bare = match["quoted"], match["bare"]
    if quoted is None and bare is None:
        kind = "number" if field in grammar.numbers else "text"
        raise FilterError(f"a {kind} is missing after {match[0].strip()!r}; type one", match.end())
    value = bare if quoted is None else quoted
    start = match.start("bare" if quoted is None else "quoted")
    if field in grammar.numbers:
        return Term(field, "=" if sign == ":" else sign, _number(field, value, start, grammar), negated)
    if sign in ORDERS:
        raise FilterError(f"{field} is a text, which {sign} does not compare; use : = or !=", match.start("sign"))
    return Term(field, sign, value.casefold(), negated)


def _field(match: re.Match[str], grammar: Grammar) -> str:
    typed = match["field"]
    if typed is None:
        start = match.start("sign")
        raise FilterError(f"a field is missing before {match['sign']!r}; there are {', '.join(grammar.fields)}", start)
    name = grammar.aliases.get(typed.casefold(), typed.casefold())
    if name not in grammar.fields:
        near = get_close_matches(name, [*grammar.fields, *grammar.aliases], n=1, cutoff=0.0)[0]
        quote = 'put it in "quotes" to search for it as it stands'
        raise FilterError(f"there is no field {typed!r}; did you mean {near}? Or {quote}", match.start("field"))
    return name


def _number(field: str, text: str, position: int, grammar: Grammar) -> Number:
    match = NUMBER.fullmatch(text.strip())
    units, example = grammar.units.get(field, (PLAIN, "50"))
    unit = units.get(match[3].casefold()) if match else None
    value = _literal(match[1]) if match else math.nan
    if match is None or unit is None or not math.isfinite(value):
        raise FilterError(f"{field} is a number, which {text!r} is not; type one like {example}", position)
    return Number(value * unit, 0.0 if field in grammar.whole else 0.5 * 10.0 ** -len(match[2] or "") * unit)


def _literal(text: str) -> float:
    """An int where it can be: a seed may have more digits than a float."""
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def _compare(found: Any, sign: Sign, typed: Number) -> bool:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return sign == "!="
    if sign in ORDERS:
        return ORDERS[sign](found, typed.value)
    equal = found == typed.value or abs(found - typed.value) < typed.tolerance
    return equal == (sign == "=")


def _value(run: Any, field: str) -> Any:
    if not isinstance(run, Mapping):
        return getattr(run, field, None)
    names = (field, *(alias for alias, name in ALIASES.items() if name == field))
    return next((run[name] for name in names if run.get(name) is not None), None)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, tuple | list):
        return " ".join(_text(part) for part in value)
    return "" if value is None else str(value).casefold()
