"""The records in VQA v2's question and annotation files, each checked, with its place for the errors."""

from collections.abc import Collection, Iterator, Sequence
from sys import intern
from typing import Any, NamedTuple, NoReturn

from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.strict import kind
from metavqa_cli.tasks.sources.json_files import items, shown
from metavqa_cli.tasks.sources.material import Progress
from metavqa_cli.tasks.sources.packed import Source
from metavqa_cli.tasks.sources.texts import MAX_TEXT, check_length

Field = tuple[str, type, int]  # its key, its type, and the largest number or the greatest length
NUMBER: Field = ("question_id", int, 2**63 - 1)
IMAGE: Field = ("image_id", int, 10**12 - 1)  # an image's name has 12 digits
QUESTION: Field = ("question", str, MAX_TEXT)
TYPE: Field = ("answer_type", str, MAX_TEXT)
ANSWER: Field = ("multiple_choice_answer", str, MAX_TEXT)
KIND: Field = ("question_type", str, MAX_TEXT)


class Question(NamedTuple):
    """A question record, and where it stands."""

    place: str
    question_id: int
    image: int
    text: str


class Said(NamedTuple):
    """What an annotation record says, as far as it is used; ``answer`` is None for an unwanted type of answer."""

    image: int | None
    answer: str | None
    kind: str
    human: tuple[str, ...]


def read_annotations(
    source: Source, types: Collection[str], progress: Progress, header: dict[str, Any]
) -> dict[int, Said]:
    """What is said of each question id; the file's other values are put into ``header``.

    ``JobError`` naming the record for one that lacks something, or comes twice.
    """
    said: dict[int, Said] = {}
    for place, record in _records(source, "annotations", progress, header):
        number, answer_type = _values(record, (NUMBER, TYPE), place)
        if number in said:
            refuse(place, f"question_id {number} comes a second time", "each once")
        said[number] = _said(record, answer_type in types, place)
    return said


def read_questions(source: Source, progress: Progress, header: dict[str, Any]) -> Iterator[Question]:
    """The questions in file order; errors and ``header`` as in ``read_annotations``."""
    for place, record in _records(source, "questions", progress, header):
        number, image, text = _values(record, (NUMBER, IMAGE, QUESTION), place)
        yield Question(place, number, image, intern(text))


def refuse(place: str, found: str, expected: str) -> NoReturn:
    """The error of a record that is not as it should be."""
    raise JobError(f"{place}: {found}, expected {expected}; mend the file, or download it again")


def _records(source: Source, key: str, progress: Progress, header: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The objects in the list ``key``, each with its place."""
    found, file = False, str(source)
    for name, index, value in items(source, progress):
        if name != key:
            header.update({name: value} if index is None else {})
        elif index is None:
            refuse(file, f"{key!r} is {kind(value)}", "a list of records")
        else:
            found = True
            if index >= 0 and not isinstance(value, dict):
                refuse(f"{file}, {key}[{index}]", f"{kind(value)} stands there", "a record ({…})")
            if index >= 0:
                yield f"{file}, {key}[{index}]", value
    if not found:
        raise JobError(f"{file} has no list {key!r}, expected VQA's file of {key}; name the right file")


def _said(record: dict[str, Any], is_wanted: bool, place: str) -> Said:
    image = _values(record, (IMAGE,), place)[0] if "image_id" in record else None
    if not is_wanted:
        return Said(image, None, "", ())
    answer, *opening = _values(record, (ANSWER, KIND) if "question_type" in record else (ANSWER,), place)
    human = _human(record.get("answers", ()), place, record)
    return Said(image, intern(answer), intern(opening[0] if opening else ""), human)


def _human(answers: Any, place: str, record: dict[str, Any]) -> tuple[str, ...]:
    """The annotators' own answers."""
    try:
        texts = [one["answer"] for one in answers]
    except (TypeError, KeyError):
        texts = [None]
    if not {*map(type, texts)} <= {str}:
        refuse(f"{place} {_id(record)}", "'answers' is not a list of answers", 'one like [{"answer": "red"}, …]')
    if max(map(len, texts), default=0) > MAX_TEXT:
        check_length(max(texts, key=len), "answer of an annotator", f"{place} {_id(record)}")
    return tuple(map(intern, texts))


def _values(record: dict[str, Any], fields: Sequence[Field], place: str) -> list[Any]:
    """The values of ``fields``; hundreds of thousands of records pass here, and nearly all are right."""
    values: list[Any] = []
    for key, wanted, most in fields:
        value: Any = record.get(key)
        is_right = type(value) is wanted  # a bool is an int to isinstance
        size = (value if wanted is int else len(value)) if is_right else -1
        if not 0 <= size <= most:
            _explain(record, key, wanted, most, f"{place} {_id(record)}" if key != NUMBER[0] else place)
        values.append(value)
    return values


def _explain(record: dict[str, Any], key: str, wanted: type, most: int, place: str) -> NoReturn:
    """Say what is wrong with the value of ``key``."""
    if key not in record:
        refuse(place, f"{key!r} is missing", "it in every record")
    value = record[key]
    if wanted is str and isinstance(value, str):
        check_length(value, "answer" if key == ANSWER[0] else key.replace("_", " "), place)
    refuse(place, f"{key!r} is {shown(value)}", "a text" if wanted is str else f"a whole number from 0 to {most}")


def _id(record: dict[str, Any]) -> str:
    return f"(question_id {shown(record.get('question_id'))})"
