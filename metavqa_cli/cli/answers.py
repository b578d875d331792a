"""How answered questions and judged images are printed."""

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.console import Format
from metavqa_cli.schema.errors import JobError, MetaVQAError

if TYPE_CHECKING:
    from metavqa_cli.engine.ask import Answer
    from metavqa_cli.engine.classifier import Judgement

SHOWN = 5  # ranked answers a person sees for each image
COLUMNS = ("image", "answer", "probability", "ranked", "zero-shot CLIP")


class Printer:
    """Prints the answers of one command, each when it comes; those to ``many`` questions are one document."""

    def __init__(self, format: Format, many: bool) -> None:
        self.format, self.many = format, many
        self.is_table = format in ("csv", "markdown") or (format == "auto" and not console.is_terminal("stdout"))
        self.shown = 0

    def __enter__(self) -> "Printer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Complete the document, also when work ends after some answers."""
        if kind is None or self.shown:
            self._close()

    def show(self, answer: "Answer") -> None:
        """Print one answer."""
        for warning in answer.warnings:
            console.warn(warning)
        self._narrate(answer)
        if self.format == "json" and self.many:
            console.emit_item(as_record(answer), first=not self.shown)
        elif self.format in ("json", "jsonl"):
            console.emit(as_record(answer), self.format)
        elif self.is_table and self.many:
            found = [{"question": answer.classifier.question, **row} for row in rows(answer.judgements)]
            console.emit(found, self.format, ("question", *COLUMNS), titles=not self.shown)
        else:
            console.emit(rows(answer.judgements), self.format, COLUMNS)
        self.shown += 1
        sys.stdout.flush()  # whoever types questions into a pipe waits for each answer

    def _close(self) -> None:
        if self.format == "json" and self.many:
            console.emit_end(empty=not self.shown)
        elif self.is_table and self.many and not self.shown:
            console.emit([], self.format, ("question", *COLUMNS))

    def _narrate(self, answer: "Answer") -> None:
        if self.format in ("json", "jsonl"):
            return
        made = answer.classifier
        times = ", ".join(f"{phase} {ms:.0f} ms" for phase, ms in answer.milliseconds.items())
        how = f"{made.sampler['sampler']}, {made.sampler['steps']} steps, samples {made.sampler['samples']}"
        console.narrate(f"{made.question}  [{made.template}]  gamma {made.gamma:g}; {how}; {times}")
        if answer.nearest:
            near = "; ".join(f"{n.question} ({n.similarity:.2f})" for n in answer.nearest)
            console.narrate(f"nearest training questions: {near}")


def as_record(answer: "Answer") -> dict[str, Any]:
    """The answer as stable JSON keys."""
    from metavqa_cli.engine.classifier import as_record as judgement_record

    made = answer.classifier
    return {
        "question": made.question, "template": made.template, "gamma": made.gamma, "seed": made.seed,
        "sampler": made.sampler, "runs": made.runs, "answers": list(made.answers),
        "milliseconds": answer.milliseconds, "warnings": answer.warnings,
        "nearest": [{"question": n.question, "similarity": round(n.similarity, 4)} for n in answer.nearest],
        "images": [judgement_record(judgement) for judgement in answer.judgements],
    }  # fmt: skip


def print_judgements(judgements: "Sequence[Judgement]", format: Format) -> None:
    """Images with their ranked answers."""
    from metavqa_cli.engine.classifier import as_record as judgement_record

    if format in ("json", "jsonl"):
        console.emit([judgement_record(judgement) for judgement in judgements], format)
    else:
        console.emit(rows(judgements), format, COLUMNS)


def rows(judgements: "Sequence[Judgement]") -> list[dict[str, str]]:
    """What a person sees of each image."""
    return [
        {"image": judgement.image, "answer": judgement.ranked[0][0], "probability": f"{judgement.ranked[0][1]:.3f}",
         "ranked": ranked(judgement.ranked), "zero-shot CLIP": ranked(judgement.clip[:2])}
        for judgement in judgements
    ]  # fmt: skip


def ranked(pairs: Sequence[tuple[str, float]]) -> str:
    """The first few answers with their probabilities."""
    return ", ".join(f"{answer} {probability:.2f}" for answer, probability in pairs[:SHOWN])


def raise_for(errors: Sequence[MetaVQAError], anything_done: bool, said: Collection[type[MetaVQAError]] = ()) -> None:
    """After the good ones were judged: every bad one in a sentence, and exit code 1 (their own if none was good).

    Of errors that were printed before, the kinds are ``said``.
    """
    for error in errors:
        console.fail(str(error), error)
    kinds = {*said, *(type(error) for error in errors)}
    if kinds:
        alone = not anything_done and len(kinds) == 1
        raise typer.Exit(kinds.pop().exit_code if alone else JobError.exit_code)
