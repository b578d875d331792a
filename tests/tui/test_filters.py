"""What a person types into the filter line keeps the runs that the words say, or is refused with a sentence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.errors import UsageError
from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.filters import FIELDS, ORDERS, Filter, FilterError, parse

LDM: dict[str, Any] = {
    "id": "ldm-63ebcf0d", "kind": "ldm", "variant": "task", "dataset": "vqa train", "state": "finished",
    "parents": (("generator", "hvae-39436143"),), "message": None, "accuracy": 52.54, "step": 1000,
    "total_steps": 2000, "progress": 0.5, "seed": 1, "age": 7200.0,
}  # fmt: skip
ZOO: dict[str, Any] = {
    "id": "zoo-bea0a9b0", "kind": "zoo", "variant": None, "dataset": "smoke", "state": "failed",
    "parents": (("init", "baseline-5d7fe8f9"),), "message": "out of memory", "accuracy": None, "step": None,
    "total_steps": None, "progress": 0.0, "seed": 2**62 + 1, "age": 30.0,
}  # fmt: skip
VIEW = RunView(
    "ldm-63ebcf0d", Path("runs/ldm-63ebcf0d"), "ldm", "task", "finished", 1000, 2000, 0.5, "accuracy", 52.54,
    1000.0, 5000.0, (("generator", "hvae-39436143"),), "vqa train", 1, None, 8200.0,
)  # fmt: skip

KEPT = [
    ("", "LZ"), ("   ", "LZ"), ("ldm", "L"), ("LDM", "L"), ("63eb", "L"), ("smoke", "Z"), ("task", "L"),
    ("vqa train", "L"), ('"vqa train"', "L"), ('"train vqa"', ""), ("train vqa", "L"), ("finished", ""),
    ("kind:zoo", "Z"), ("kind:z", "Z"), ("kind=z", ""), ("kind=ZOO", "Z"), ("kind==zoo", "Z"), ("kind != zoo", "L"),
    ("state:fin", "L"), ("state!=failed", "L"), ("variant!=task", "Z"), ('dataset:"vqa t"', "L"), ('dataset:"a v"', ""),
    ("parents:hvae", "L"), ("parent:init", "Z"), ("message:memory", "Z"), ("run:zoo", "Z"),
    ("accuracy>50", "L"), ("accuracy > 52.5", "L"), ("accuracy>52.54", ""), ("accuracy>=52.54", "L"),
    ("accuracy<60", "L"), ("accuracy=52.5", "L"), ("accuracy=53", "L"), ("accuracy=52", ""), ("accuracy=52.4", ""),
    ("accuracy!=53", "Z"), ("accuracy:52.5", "L"), ("metric>50", "L"), ("Accuracy>5e1", "L"), ("accuracy>-1", "L"),
    ("seed=1", "L"), ("seed:1", "L"), ("seed=4611686018427387905", "Z"), ("seed=4611686018427387904", ""),
    ("step>=1000", "L"), ("step>1000", ""), ("step<1", ""), ("step=1000", "L"), ("steps=2000", "L"),
    ("progress>=50%", "L"), ("progress>49", "L"), ("progress=50", "L"), ("progress<1", "Z"),
    ("age<1h", "Z"), ("age>1h", "L"), ("age=2h", "L"), ("age<=30", "Z"), ("age<1d", "LZ"), ("age>2m", "L"),
    ("-ldm", "Z"), ("not ldm", "Z"), ("NOT not ldm", "L"), ("--ldm", "L"), ("not -ldm", "L"), ('-"vqa train"', "Z"),
    ("-kind:ldm", "Z"), ("-accuracy>50", "Z"), ("not accuracy<50", "LZ"), ('"-ldm"', ""), ('"not"', ""),
    ("ldm zoo", ""), ("ldm | zoo", "LZ"), ("ldm|smoke", "LZ"), ("ldm -task | zoo", "Z"), ("zoo | ldm accuracy>90", "Z"),
    ('""', "LZ"), ('kind:""', "LZ"), ("nothing|like|this", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kept"), KEPT)
def test_the_filter_keeps_what_its_words_say(text: str, kept: str) -> None:
    keep = parse(text)
    assert "".join(letter for letter, run in (("L", LDM), ("Z", ZOO)) if keep(run)) == kept
    assert keep(VIEW) == keep(LDM)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("acuracy>50", 0, r"no field 'acuracy'; did you mean accuracy\? Or put it in \"quotes\""),
        ("ldm  knd:zoo", 5, "no field 'knd'; did you mean kind"),
        ("12:30", 0, "no field '12'"),
        ("accuracy>", 9, "a number is missing after 'accuracy>'"),
        ("ldm kind:", 9, "a text is missing after 'kind:'"),
        ("kind:|ldm", 5, "a text is missing after 'kind:'"),
        ("accuracy>high", 9, r"accuracy is a number, which 'high' is not; type one like 50"),
        ("accuracy>nan", 9, "is a number, which 'nan' is not"),
        ("accuracy>1e999", 9, "is a number"),
        ("accuracy>5%", 9, "is a number"),
        ("age<2w", 4, "type one like 2h"),
        ("seed=" + "9" * 5000, 5, "is a number"),
        ("kind>ldm", 4, r"kind is a text, which > does not compare; use : = or !="),
        ("ldm >5", 0, "no field 'ldm'"),
        (":ldm", 0, "a field is missing before ':'; there are id, kind"),
        ('ldm "vqa tr', 4, "the quote at character 5 is not closed"),
        ('kind:"l', 5, "the quote at character 6 is not closed"),
        ("ldm |", 5, "a term is missing at character 6, beside '|'"),
        ("| ldm", 0, "a term is missing at character 1"),
        ("ldm || zoo", 5, "a term is missing at character 6"),
        ("ldm not", 7, "a term is missing at character 8, beside 'not'"),
        ("not | ldm", 4, "a term is missing at character 5"),
        ("ldm -", 5, "a word or a field is missing after '-'"),
    ],
)
def test_what_is_no_filter_is_refused_at_its_place_with_a_way_out(text: str, position: int, words: str) -> None:
    with pytest.raises(FilterError, match=words) as raised:
        parse(text)
    assert raised.value.position == position
    assert isinstance(raised.value, UsageError)


TYPED = st.lists(
    st.sampled_from([*FIELDS, ":", "=", "!=", ">", ">=", "<", "|", "-", "not", '"', " ", "ldm", "5", "1e9", "%", "é"])
    | st.text(max_size=4),
    max_size=12,
).map("".join)


@given(TYPED)
def test_whatever_is_typed_is_a_filter_or_a_filter_error_inside_the_text(text: str) -> None:
    try:
        keep = parse(text)
    except FilterError as error:
        assert 0 <= error.position <= len(text) and "\n" not in str(error).replace(text, "")
    else:
        assert all(isinstance(keep(run), bool) for run in (LDM, ZOO, VIEW, {}))


ANYTHING = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
TERMS = st.sampled_from(["ldm", "kind:zoo", "accuracy>50", "seed=1", "step>=1000", "state!=failed", "age<2h", '"a b"'])


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_an_empty_filter_keeps_whatever_there_is(run: dict[str, Any]) -> None:
    assert Filter()(run) and parse("")(run) and parse(" \t")(run)


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING), TERMS, TERMS)
def test_terms_combine_as_logic_says(run: dict[str, Any], one: str, two: str) -> None:
    first, second = parse(one)(run), parse(two)(run)
    assert parse(f"{one} {two}")(run) == (first and second)
    assert parse(f"{one} | {two}")(run) == (first or second)
    assert parse(f"-{one}")(run) == parse(f"not {one}")(run) == (not first)


@given(st.integers(-9999, 9999), st.integers(-9999, 9999), st.sampled_from(sorted(ORDERS)))
def test_comparisons_are_those_of_numbers(found: int, typed: int, sign: str) -> None:
    assert parse(f"step {sign} {typed}")({"step": found}) == ORDERS[sign](found, typed)
    assert parse(f"step={typed}")({"step": found}) == (found == typed)
    assert parse(f"step!={typed}")({"step": found}) == (found != typed)


def test_a_mapping_as_the_runs_command_lists_it_can_be_filtered() -> None:
    listed = {"run": "ldm-1", "kind": "ldm", "state": "stale", "dataset": "smoke", "parents": {"generator": "hvae-2"}}
    assert parse("ldm-1 parents:hvae id:ldm state=stale")(listed)
    assert not parse("variant:task")(listed)
