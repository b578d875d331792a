"""`metavqa identify`: which question does a classifier file answer?"""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.options import (
    ConfigOption,
    FormatOption,
    JsonOption,
    PresetOption,
    SetOption,
    chosen_format,
    complete_run,
    workspace,
)
from metavqa_cli.cli.session import ClipOption, DeviceOption, open_session
from metavqa_cli.engine.opening import own_config
from metavqa_cli.schema.errors import MissingError, UsageError

STDIN = Path("-")


def identify(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="A file that `metavqa generate` wrote.")],
    question: Annotated[list[str] | None, typer.Option("--question", help="A candidate; may be repeated.")] = None,
    questions: Annotated[
        Path | None, typer.Option("--questions", metavar="FILE", help="Candidates, one a line; - reads stdin.")
    ] = None,
    hyperclip: Annotated[
        str | None,
        typer.Option(
            "--hyperclip", metavar="RUN", autocompletion=complete_run,
            help="HyperCLIP run; the newest for the classifier's generator if not given.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many of the ranked questions are shown.")] = 5,
    clip: ClipOption = None,
    device: DeviceOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Find the question that a classifier answers, from its weights alone (Fig. 3 of the paper).

    The candidates are all questions of the dataset unless some are named.
    """
    if top < 1:
        raise UsageError(f"--top is {top}, but at least one question is to be shown; take 1 or more")
    shown = chosen_format(format, json)
    candidates = _candidates(question, questions)
    from metavqa_cli.engine.classifier import load_classifier
    from metavqa_cli.engine.identify import Identifier, hyperclip_for, known_questions

    made = load_classifier(weights)
    run = hyperclip_for(workspace(), made, hyperclip)
    session = open_session(
        preset, config, set, {"clip.model": clip, "runtime.device": device}, own=own_config(run)
    )  # fmt: skip
    identifier = Identifier(session, run)
    identifier.check(made, str(weights))
    ranked = identifier.rank(made.weights, known_questions(workspace(), run) if candidates is None else candidates)
    if made.runs.get("generator") not in (None, identifier.generator):
        console.warn(
            f"{run.id} learned from weights of {identifier.generator}, the classifier comes from "
            f"{made.runs['generator']}; what it says of other generators' weights is a guess"
        )
    console.narrate(
        f"{len(ranked)} candidate question{'' if len(ranked) == 1 else 's'}, by {run.id} "
        f"(HyperCLIP for {identifier.generator}, temperature {identifier.temperature:.1f})"
    )
    own = next((found.rank for found in ranked if found.question == made.question), None)
    place = "not among the candidates" if own is None else f"rank {own}"
    console.narrate(f"the file itself says: {made.question} ({place})")
    rows = [
        {"rank": found.rank, "question": found.question, "probability": round(found.probability, 6),
         "cosine": round(found.cosine, 6)}
        for found in ranked[:top]
    ]  # fmt: skip
    console.emit(rows, shown)


def _candidates(question: list[str] | None, file: Path | None) -> list[str] | None:
    """The named candidates, checked before anything heavy is loaded; None when none are named."""
    if question is None and file is None:
        return None
    from metavqa_cli.engine.request import check_question

    lines = [] if file is None else [line for line in _lines(file) if line.strip()]
    if file is not None and not lines:
        where = "on stdin" if file == STDIN else f"in {file}"
        raise UsageError(f"there is no question {where}; write one a line")
    return [check_question(text) for text in (*(question or ()), *lines)]


def _lines(file: Path) -> list[str]:
    if file == STDIN:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        return [] if sys.stdin is None else list(sys.stdin)  # None: closed by the shell
    try:
        return file.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise MissingError(f"{file} does not exist; write the questions to it, one a line") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text; write the questions to it, one a line") from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}; name a text file with a question a line") from None
