"""One task in words and bars, as a pure function of its width."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from metavqa_cli.engine.contact import Tally, tally
from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.look import Look
from metavqa_cli.tui.pictures import cut, fold
from metavqa_cli.tui.task_list import LETTERS
from metavqa_cli.tui.task_methods import Method

NOVELTIES = {
    "wording": "a new wording", "combination": "a new combination of known kinds", "family": "a new family",
}  # fmt: skip
NOT_MEASURED = "Only test tasks are measured; this one is for {}."
NOTHING_MEASURED = "No evaluation or cell of this dataset is finished: `metavqa eval` measures its newest runs."
HUES = "#5b8def", "#d9822b"  # support, query; to be seen on dark and on light
FEW_PAIRS = 30  # below which a task's accuracy is said to be rough


def details(task: Task, number: int, methods: Sequence[Method], width: int, look: Look) -> Text:
    """Question, statement, where it stands, what the methods got right of it, and its answers as bars.

    ``number`` is its place in the file.
    """
    parts = [
        Text(look.text(task.question), "bold"),
        Text(look.text(f"Statement: {task.template}"), "dim"),
        Text(look.text(_standing(task))),
        Text(""),
        *_accuracies(task, number, methods, width, look),
        Text(""),
        *_answers(task, width, look),
    ]
    return Text("\n").join(parts)


def _standing(task: Task) -> str:
    novelty = f" · {NOVELTIES.get(task.novelty, task.novelty)}" if task.novelty else ""
    return f"{task.split} · family {task.family or 'unknown'}{novelty}"


def _answers(task: Task, width: int, look: Look) -> list[Text]:
    """A line for each answer: its support and its query pairs as bars with numbers."""
    rows = tally(task)
    support, query = sum(row.support for row in rows), sum(row.query for row in rows)
    label = min(max((cell_len(look.text(row.answer)) for row in rows), default=0), max(6, width // 3))
    room = max(4, width - label - 12)
    most = max((row.total for row in rows), default=1) or 1
    signs = look.pick("█", "#"), look.pick("▒", "=")
    head = Text(f"{len(rows)} answers in {support} support ", "bold")
    head.append(signs[0], HUES[0]).append(f" + {query} query ").append(signs[1], HUES[1]).append(" images")
    return [head, *(_answer(row, label, room, most, signs, look) for row in rows)]


def _answer(row: Tally, label: int, room: int, most: int, signs: tuple[str, str], look: Look) -> Text:
    lengths = [max(1, round(count * room / most)) if count else 0 for count in (row.support, row.query)]
    text = cut(look.text(row.answer), label)
    line = Text(text + " " * (label - cell_len(text) + 1), no_wrap=True)
    line.append(signs[0] * lengths[0], HUES[0])
    line.append(signs[1] * lengths[1], HUES[1])
    return line.append(f" {row.support} + {row.query}")


def _accuracies(task: Task, number: int, methods: Sequence[Method], width: int, look: Look) -> list[Text]:
    """A line for each shown method, and how much such a number can say."""
    pairs = len(task.query)
    if task.split != "test":
        return [Text(NOT_MEASURED.format("validation" if task.split == "validation" else "training"), "dim")]
    if not methods:
        return [Text(NOTHING_MEASURED, "dim")]
    chance = 100 / max(1, len(task.answers))
    rough = "; few pairs, so these numbers are rough" if pairs < FEW_PAIRS else ""
    lines = [Text(f"Right of {pairs} query pairs, in %", "bold")]
    for letter, method in zip(LETTERS, methods, strict=False):
        lines += _accuracy(letter, method.title, method.accuracies.get(number), width, look)
    lines.append(Text(f"Chance is {chance:.1f}. One pair is {100 / max(1, pairs):.1f} points{rough}.", "dim"))
    return lines


def _accuracy(letter: str, title: str, accuracy: float | None, width: int, look: Look) -> list[Text]:
    """The bar with its number, then the method's name, folded under it where that needs more than a line."""
    if accuracy is None:
        return [Text(look.text(f"{letter}  not measured  {title}"))]
    room = 10 if width >= 46 else 5
    filled = round(room * accuracy / 100)
    bar = look.pick("█", "#") * filled + look.pick("░", ".") * (room - filled)
    name = fold(look.text(title), max(8, width - room - 10)) or [""]
    lines = [Text(f"{letter} {accuracy:5.1f} {bar} {name[0]}", no_wrap=True)]
    return [*lines, *(Text(f"{' ' * (room + 9)}{more}", no_wrap=True) for more in name[1:])]
