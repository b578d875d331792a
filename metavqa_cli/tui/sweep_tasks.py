"""One task at one γ, and the list to choose it from, as pure functions: what was answered, and what changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from metavqa_cli.tui.look import Look

if TYPE_CHECKING:
    from metavqa_cli.engine.curves import Point
    from metavqa_cli.engine.judgements import Judgement, Verdict
    from metavqa_cli.engine.swept import Swept

Order = Literal["file", "change", "worst", "best"]
ORDERS: dict[Order, str] = {
    "file": "as in the dataset", "change": "most changed first", "worst": "worst first", "best": "best first",
}  # fmt: skip
ROOMY, WIDE = 56, 72  # columns of a line from which images are named, and with their folder
SAME = 0.05  # points: smaller changes are none
CHANGES = ("now right", "now a tie", "still a tie", "now wrong", "still wrong")


@dataclass(frozen=True)
class TaskLine:
    """A test task: its place in ``Swept.tasks``, and its accuracy at this γ and at the one before, in per cent."""

    number: int
    question: str
    family: str
    now: float
    before: float | None

    @property
    def change(self) -> float:
        return 0.0 if self.before is None else self.now - self.before


@dataclass(frozen=True)
class JudgedImage:
    """A query image at this γ: what was answered, and in words what was otherwise at the γ before."""

    image: str
    right: str
    answer: str
    share: float
    verdict: "Verdict"
    changed: str

    def mark(self, look: Look) -> str:
        """Right, a tie with the right answer, or wrong, as a sign; ASCII has none that look like these."""
        return {"right": look.pick("✓", "+"), "tie": "=", "wrong": look.pick("✗", "-")}[self.verdict]


def accuracies_at(point: "Point | None") -> list[float]:
    """Accuracy in per cent of every task, mean over the seeds; none without a point."""
    if point is None:
        return []
    rows = [one.accuracies.tolist() for one in point.measured]
    return [100 * sum(values) / len(values) for values in zip(*rows, strict=True)]


def task_lines(
    swept: "Swept", now: "Point | None", before: "Point | None", *, family: str = "", words: str = "",
    order: Order = "file",
) -> list[TaskLine]:  # fmt: skip
    """The test tasks of ``family`` ("": all) in whose question or family every one of ``words`` occurs, in an order."""
    here, there = accuracies_at(now), accuracies_at(before)
    wanted = words.casefold().split()
    lines = [
        TaskLine(number, task.question, task.family, here[number], there[number] if there else None)
        for number, task in enumerate(swept.tasks)
        if here and family in ("", task.family) and _has(f"{task.question} {task.family}", wanted)
    ]
    keys = {"file": lambda line: 0.0, "change": lambda line: -abs(line.change), "worst": lambda line: line.now,
            "best": lambda line: -line.now}  # fmt: skip
    return sorted(lines, key=keys[order])


def _has(text: str, wanted: Sequence[str]) -> bool:
    found = text.casefold()
    return all(word in found for word in wanted)


def change_text(line: TaskLine, look: Look) -> str:
    """ "+8.3", with a sign; "=" for none."""
    if line.before is None:
        return ""
    return "=" if abs(line.change) < SAME else f"{line.change:+.1f}"


def judged_images(now: Sequence["Judgement"], before: Iterable["Judgement"]) -> list[JudgedImage]:
    """What was answered to each query image, and how that differs from ``before``."""
    earlier = {one.image: one for one in before}
    changed = {one.image: _changed(one, earlier.get(one.image)) for one in now}
    return [JudgedImage(one.image, one.right, one.answer, one.share, one.verdict, changed[one.image]) for one in now]


def _changed(now: "Judgement", before: "Judgement | None") -> str:
    if before is None or before.answer == now.answer:
        return ""
    still = now.verdict == before.verdict
    return f"{'still' if still else 'now'} {'a ' * (now.verdict == 'tie')}{now.verdict}, was {before.answer}"


def tally(images: "Iterable[JudgedImage | Judgement]") -> str:
    """ "4 of 6 right, 1 tie": how many images got the right answer most often, and how many as often as another."""
    verdicts = [one.verdict for one in images]
    ties = verdicts.count("tie")
    told = f", {ties} tie{'s' * (ties != 1)}" if ties else ""
    return f"{verdicts.count('right')} of {len(verdicts)} right{told}"


def image_lines(images: Sequence[JudgedImage], since: float | None, width: int, look: Look) -> list[str]:
    """A line for each image: sign, right answer, answer with its share, what changed ``since`` that γ, and its name.

    Where there is little room, names are cut to their ends, which tell them apart, or left out.
    """
    answers = [[look.text(text) for text in (one.right, one.answer)] for one in images]
    names = [look.text(one.image if width >= WIDE else one.image.rpartition("/")[2]) for one in images]
    right, answer = (
        _width([pair[at] for pair in answers], least, max(least, width // part))
        for at, least, part in ((0, 5, 5), (1, 6, 4))  # a tie names two answers
    )
    name = _width(names, 5, width // 5) if width >= ROOMY else 0
    rest = max(0, width - right - answer - name - 12 - (name > 0))
    title = "" if since is None else f"since γ = {since:g}"
    head = f"  {'right':{right}}  {'answer':{answer}} share  {title:{rest}} {'image' if name else ''}"
    return [head[:width].rstrip()] + [
        f"{one.mark(look)} {_fit(pair[0], right)}  {_fit(pair[1], answer)} {100 * one.share:3.0f} %  "
        f"{_fit(look.text(one.changed), rest)} {label[-name:] if name else ''}".rstrip()
        for one, pair, label in zip(images, answers, names, strict=True)
    ]


def _width(texts: Sequence[str], least: int, most: int) -> int:
    from rich.cells import cell_len

    return min(most, max([least, *map(cell_len, texts)]))


def _fit(text: str, width: int) -> str:
    from rich.cells import set_cell_size

    from metavqa_cli.tui.pictures import cut

    return set_cell_size(cut(text, width) if width > 3 else text, width)


def summary(line: TaskLine, now: Sequence[JudgedImage], here: "Point", there: "Point | None") -> list[str]:
    """The task in two lines: its question, and how many of its images are answered rightly here and one γ before.

    The accuracy is of all samples, the count of the answers that most of them gave.
    """
    told = f"γ = {here.gamma:g}: {line.now:.1f} %"
    if there is not None:
        told += f" ({line.change:+.1f} from γ = {there.gamma:g}{', other seeds' * (there.seeds != here.seeds)})"
    told += f", {count(len(here.seeds), 'seed')}"
    if now:
        told += f"; {tally(now)}"
        told += f", {sum(bool(one.changed) for one in now)} changed" if there is not None else ""
    return [f"{line.question}{f'  [{line.family}]' if line.family else ''}", told]


def tasks_words(here: "Point | None", there: "Point | None", order: Order) -> str:
    """What the numbers of the list are of, and its order."""
    parts = (
        [f"mean over {count(len(here.seeds), 'seed')}"] if here and len(here.seeds) > 1 else ["one seed"] * bool(here)
    )
    if here and there and here.seeds != there.seeds:
        parts.append("change from other seeds")
    return " · ".join([*parts, ORDERS[order]])


def count(number: int, what: str) -> str:
    """ "1 seed", "2 seeds"."""
    return f"{number} {what}{'s' * (number != 1)}"
