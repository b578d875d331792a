"""Judged images as text: ranked answers with bars beside zero-shot CLIP's. Pure functions of results and a width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, overload

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from metavqa_cli.tui.look import Look
from metavqa_cli.tui.results import Result

if TYPE_CHECKING:
    from metavqa_cli.engine.classifier import Judgement

EIGHTHS = " ▏▎▍▌▋▊▉"
SHOWN_ANSWERS = 5  # of each image
INDENT, NUMBER = 2, 6  # columns before an answer, and of " 0.81 "
LEAST = 28  # columns that a result is laid out in, at least
TITLES, SHORT_TITLES = ("generated", "zero-shot CLIP"), ("ours", "CLIP")


def bar(share: float, width: int, ascii: bool = False) -> str:
    """``share`` (0 to 1) of ``width`` columns as a bar, with spaces after it: eighths of a column, or whole ``#``."""
    share = min(1.0, max(0.0, share))
    if ascii:
        return ("#" * round(share * width)).ljust(width)
    eighths = round(share * width * 8)
    return ("█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")).ljust(width)


def changes(before: Result, after: Result) -> dict[str, str]:
    """The images of both whose first answer is another one now, with what it was."""
    now = after.tops
    return {image: top for image, top in before.tops.items() if image in now and now[image] != top}


def cut(text: str, width: int, look: Look) -> str:
    """``text`` in exactly ``width`` columns, with dots where something is left out."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    dots = look.pick("…", "..")
    return set_cell_size(set_cell_size(text, max(0, width - len(dots))).rstrip() + dots, width)


@dataclass(frozen=True)
class Columns:
    """How many columns the answers have, and each of the two bars."""

    answer: int
    bar: int


def columns(answers: Sequence[str], width: int) -> Columns:
    """The columns of ``answers`` with two numbers and two bars each, in ``width``."""
    longest = max((cell_len(answer) for answer in answers), default=0)
    answer = max(4, min(longest, width // 3))
    return Columns(answer, max(1, (width - INDENT - answer) // 2 - NUMBER))


def header_text(widths: Columns, look: Look) -> Text:
    """What the two columns of bars are."""
    each = NUMBER + widths.bar
    titles = TITLES if cell_len(TITLES[1]) < each else SHORT_TITLES
    names = "".join(f" {cut(name, each - 1, look)}" for name in titles)
    return Text(" " * (INDENT + widths.answer) + names, "dim")


def judgement_lines(
    judgement: "Judgement", width: int, widths: Columns, look: Look, was: str | None = None
) -> list[Text]:
    """One image: its name and first answer (and what that ``was``), each answer with both probabilities, a free line.

    ``lines_of`` many, for every image of a classifier.
    """
    clip = dict(judgement.clip)
    lines = [_title(judgement, width, look, was)]
    for number, (answer, ours) in enumerate(judgement.ranked[:SHOWN_ANSWERS]):
        name = cut(look.text(answer), widths.answer, look)
        ours_bar, clip_bar = (bar(share, widths.bar, look.ascii) for share in (ours, clip[answer]))
        styled = ((name, "" if number else "bold"), (ours_bar, "green" if number else "bold green"), (clip_bar, "cyan"))
        shares = (" " * INDENT, f" {ours:.2f} ", f" {clip[answer]:.2f} ")
        lines.append(Text.assemble(*(part for pair in zip(shares, styled, strict=True) for part in pair)))
    left = len(judgement.ranked) - SHOWN_ANSWERS
    if left > 0:
        lines.append(Text(f"{' ' * INDENT}and {left} less probable answer{'s' * (left > 1)}", "dim"))
    return [*lines, Text()]


def lines_of(answers: int) -> int:
    """How many lines an image has, of a classifier with so many answers."""
    return 2 + min(answers, SHOWN_ANSWERS) + (answers > SHOWN_ANSWERS)


def _title(judgement: "Judgement", width: int, look: Look, was: str | None) -> Text:
    top, clip = judgement.ranked[0][0], judgement.clip[0][0]
    says = look.text(top) if was is None else f"{look.text(was)} {look.pick('→', '->')} {look.text(top)}, changed"
    if clip != top:
        says += f" (CLIP: {look.text(clip)})"
    name = look.text(Path(judgement.image).name)
    name = cut(name, min(cell_len(name), max(width // 3, width - 2 - cell_len(says))), look)
    says = cut(says, min(cell_len(says), width - 2 - cell_len(name)), look)
    return Text.assemble((name, "bold underline"), (f": {says}", "bold" if was is not None else ""))


def head_text(result: Result, look: Look, before: Result | None = None) -> Text:
    """Question and choices, and how much is other than ``before``."""
    text = Text(look.text(result.answer.classifier.question), "bold").append(
        f"\n{look.text(result.how)}", "dim not bold"
    )
    if before is not None:
        text.append(f"\n{look.text(comparison(before, result))}", "bold")
    return text


def warnings_text(result: Result, look: Look) -> Text:
    """What a person should know before trusting the answers, and which images were not judged; a sentence a line."""
    return Text("\n".join(f"! {look.text(warning)}" for warning in result.warnings), "yellow")


def near_text(result: Result, look: Look) -> Text:
    """The nearest training questions with their cosines."""
    near = [f"{look.text(one.question)} {one.similarity:.2f}" for one in result.answer.nearest]
    return Text(f"nearest training questions: {'; '.join(near)}" if near else "", "dim")


def comparison(before: Result, after: Result) -> str:
    """How many first answers are others than ``before``, in a sentence."""
    shared = before.tops.keys() & after.tops.keys()
    if not shared:
        return "no image was judged before"
    since = differences(before, after)
    return f"{len(changes(before, after))} of {len(shared)} first answers changed{f' with {since}' if since else ''}"


def differences(before: Result, after: Result) -> str:
    """What was chosen otherwise, old and new: "γ 1 → 1.25"."""
    one, two = (choices(result) for result in (before, after))
    return ", ".join(f"{name} {one[name]} → {value}" for name, value in two.items() if one[name] != value)


def choices(result: Result) -> Mapping[str, str]:
    """What a result was made with, by name."""
    made = result.answer.classifier
    return {
        "question": repr(made.question), "run": result.run, "γ": f"{made.gamma:g}", "sampler": made.sampler["sampler"],
        "steps": str(made.sampler["steps"]), "samples": str(made.sampler["samples"]), "seed": str(made.seed),
        "template": repr(made.template), "answers": ", ".join(made.answers),
    }  # fmt: skip


class ResultLines(Sequence[Text]):
    """A whole result in ``width`` columns (at least ``LEAST``), its changes against ``before`` marked.

    Lines of images are made when they are asked for: there may be thousands. ``brief``: with a short head, and what
    else is known of the result at the end.
    """

    def __init__(
        self, result: Result, width: int, look: Look, before: Result | None = None, *, brief: bool = False
    ) -> None:
        self.result, self.width, self.look = result, max(LEAST, width), look
        made, judged = result.answer.classifier, result.answer.judgements
        self._changed = {} if before is None else changes(before, result)
        self._widths = columns([look.text(answer) for answer in made.answers], self.width)
        self._each = lines_of(len(made.answers))
        made_of = Text(f"[{look.text(made.template)}] {look.text(result.run)}; {result.times}", "dim")
        more = [*self._folded(made_of), *self._folded(warnings_text(result, look))]
        nothing = self._folded(Text("no image was judged: choose some, then ask again"))
        self._head = [*self._folded(head_text(result, look, before)), *([] if brief else more), Text()]
        self._head += [header_text(self._widths, look)] if judged else [*nothing, Text()]
        self._tail = [*(more if brief else []), *self._folded(near_text(result, look))]
        self._made: dict[int, list[Text]] = {}

    def _folded(self, text: Text) -> list[Text]:
        return wrapped(text, self.width)

    def __len__(self) -> int:
        return len(self._head) + self._each * len(self.result.answer.judgements) + len(self._tail)

    @overload
    def __getitem__(self, at: int) -> Text: ...

    @overload
    def __getitem__(self, at: slice) -> list[Text]: ...

    def __getitem__(self, at: int | slice) -> Text | list[Text]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        if at < len(self._head):
            return self._head[at]
        image, line = divmod(at - len(self._head), self._each)
        if image >= len(self.result.answer.judgements):
            return self._tail[at - len(self)]
        return self._image(image)[line]

    def _image(self, number: int) -> list[Text]:
        if number not in self._made:
            judgement = self.result.answer.judgements[number]
            was = self._changed.get(judgement.image)
            self._made[number] = judgement_lines(judgement, self.width, self._widths, self.look, was)
        return self._made[number]


def wrapped(text: Text, width: int) -> list[Text]:
    """``text`` folded into lines of ``width`` columns; no line of no text."""
    return list(text.wrap(_console(), width)) if text else []


@cache
def _console() -> Console:
    """What rich folds text with; nothing is printed."""
    return Console(file=StringIO())


def history_line(result: Result, look: Look, pinned: bool, width: int) -> str:
    """A result in one line: pin, number, γ, question and how many images."""
    made = result.answer.classifier
    mark = look.pick("◆", "p") if pinned else " "
    end = f" {len(result.answer.judgements)} img"
    start = look.text(f"{mark}{result.number:>3} γ {made.gamma:<5g}")
    return start + cut(f" {look.text(made.question)}", max(4, width - cell_len(start) - len(end)), look) + end
