"""`metavqa eval table | sweep | controls | cell | methods`: the paper's tables and figures, and their controls."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.console import Format
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
from metavqa_cli.cli.session import DatasetOption, DeviceOption, PrecisionOption, SeedOption, finish, open_job
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.ranges import gamma_list, name_list, seed_list, shard_of, share_list

if TYPE_CHECKING:
    from metavqa_cli.engine.scores import CellSpec
    from metavqa_cli.engine.session import Session

PATIENCE = 24 * 3600.0  # seconds that a shard waits for a run that another one is making
CSV_COLUMNS = (
    "method", "label", "setting", "control", "descriptors", "gamma", "validated", "trust", "mean", "sd", "ci_low",
    "ci_high", "diff", "diff_low", "diff_high", "against", "closed", "drop", "drop_low", "drop_high", "wording",
    "combination", "family", "pooled", "unshared", "soft", "tasks", "seeds", "sampler",
)  # fmt: skip
MethodsOption = Annotated[
    list[str] | None, typer.Option("--method", "-m", help="Row of the table; may be repeated, or a,b,c.")
]
SeedsOption = Annotated[str, typer.Option("--seeds", help="How many seeds (5), or which ones (0,3).")]
SharesOption = Annotated[
    str | None, typer.Option("--descriptors", help="Shares of the training questions that are known, e.g. 0.1,0.5,1.")
]
ShardOption = Annotated[str | None, typer.Option("--shard", metavar="I/N", help="Only every N-th cell, from the I-th.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", file_okay=False, help="Folder for the table and figures as files.")
]
ByOption = Annotated[
    Literal["kind"] | None, typer.Option("--by", help="Rows for each kind of question in place of the whole.")
]
CellsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="CELL", autocompletion=complete_run, help="Finished cells; measured if none is named."),
]


def table(
    cells: CellsArgument = None,
    method: MethodsOption = None,
    seeds: SeedsOption = "1",
    descriptors: SharesOption = None,
    shard: ShardOption = None,
    against: Annotated[
        str, typer.Option("--against", metavar="METHOD[:GAMMA]", help="What the differences are to.")
    ] = "multitask",
    by_family: Annotated[
        bool, typer.Option("--by-family", help="Also by what is new in the task, and by family.")
    ] = False,
    by: ByOption = None,
    out: OutOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Tables 1 and 4 of the paper; trains and measures what is missing."""
    part, chosen = shard_of(shard), chosen_format(format, json)
    seed_numbers, asked = seed_list(seeds), share_list(descriptors)
    if by and by_family:
        raise UsageError("--by kind and --by-family are different tables; give one of them")
    if cells and (method or shard):
        raise UsageError("name finished cells, or what is to be measured (--method, --shard), not both")
    session = _session(preset, config, set, _dataset_of(cells) if cells and not dataset else dataset, device, precision)
    from metavqa_cli.engine.experiments import reference_specs, table_specs

    other, shares = _against(against), asked or usual_shares(session, 0.5, 1.0)
    specs = table_specs(name_list(method), seed_numbers, shares)
    if against != "multitask":
        specs = list(dict.fromkeys([*specs, *reference_specs(other, seed_numbers, shares)]))
    rows = _joined(session, cells, other) if cells else _measured(session, specs, part, other)
    if by == "kind":
        _print_kinds(rows, chosen)
    else:
        _print(rows, chosen, by_family)
    _write(rows, out, "table")


def sweep(
    gamma: Annotated[list[str] | None, typer.Option("--gamma", help="FROM:TO:STEP, or a list; may repeat.")] = None,
    method: MethodsOption = None,
    seeds: SeedsOption = "1",
    descriptors: SharesOption = None,
    shard: ShardOption = None,
    out: OutOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Accuracy against the guidance scale, and against the share of descriptors (Fig. 5 A and B)."""
    part, chosen = shard_of(shard), chosen_format(format, json)
    gammas, seed_numbers, asked = gamma_list(gamma or ["0:3:0.25"]), seed_list(seeds), share_list(descriptors)
    session = _session(preset, config, set, dataset, device, precision)
    from metavqa_cli.engine.experiments import sweep_specs

    shares = asked or usual_shares(session, 1.0)
    rows = _measured(session, sweep_specs(name_list(method) or ["task-ldm"], seed_numbers, shares, gammas), part)
    console.narrate("on the test tasks; the γ that is used elsewhere was chosen on the validation tasks")
    _print_sweep(rows, chosen)
    _write(rows, out, "sweep")


def controls(
    method: MethodsOption = None,
    seeds: SeedsOption = "1",
    descriptors: SharesOption = None,
    shard: ShardOption = None,
    out: OutOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Does the text matter? Other questions in place of the right ones, memories of training tasks, regressions."""
    part, chosen = shard_of(shard), chosen_format(format, json)
    seed_numbers, asked = seed_list(seeds), share_list(descriptors)
    session = _session(preset, config, set, dataset, device, precision)
    from metavqa_cli.engine.experiments import control_specs
    from metavqa_cli.engine.table import verdicts

    rows = _measured(session, control_specs(name_list(method), seed_numbers, asked or usual_shares(session, 1.0)), part)
    _print(rows, chosen, False)
    for sentence in verdicts(rows):
        console.narrate(sentence)
    _write(rows, out, "controls")


def cell(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="Row of the table (`metavqa eval methods`).")],
    gamma: Annotated[float | None, typer.Option("--gamma", help="Guidance scale; validated if not given.")] = None,
    descriptors: Annotated[float | None, typer.Option("--descriptors", help="Share of the questions known.")] = None,
    control: Annotated[
        str | None, typer.Option("--control", help="In place of the question: shuffled, empty, random-words or other.")
    ] = None,
    seed: SeedOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """One cell of the table: a job of its own, for shell loops and job arrays."""
    from metavqa_cli.engine.request import check_gamma
    from metavqa_cli.methods.registry import QUESTION_CONTROLS

    if gamma is not None:
        check_gamma(gamma)
    if control is not None and control not in QUESTION_CONTROLS:
        raise UsageError(f"--control takes {', '.join(QUESTION_CONTROLS)}; found {control!r}")
    asked = share_list(None if descriptors is None else str(descriptors))
    session = _session(preset, config, set, dataset, device, precision, {"seed": seed})
    from metavqa_cli.engine.scores import CellSpec
    from metavqa_cli.engine.sources import method_of

    row = method_of(method)
    if gamma is not None and (row.gammas is None or not row.zero_shot):
        raise UsageError(f"{method} has no guidance scale to set; leave --gamma out")
    if control is not None and not (row.conditional and row.zero_shot):
        raise UsageError(f"{method} has no question to replace before it sees labels; leave --control out")
    share = (asked or usual_shares(session, 1.0))[0] if row.conditional else 1.0
    spec = CellSpec(method, session.config.seed, share, gamma, control)
    _print(_measured(session, [spec], (1, 1)), chosen_format(format, json), False)


def methods(format: FormatOption = "auto", json: JsonOption = False) -> None:
    """The rows of the tables, and what each can do."""
    from metavqa_cli.methods.registry import BY_KEY

    rows = [
        {"method": row.key, "label": row.label, "from": row.role, "reads questions": row.conditional,
         "zero-shot": row.zero_shot, "few-shot adapts": row.few_shot, "guided": row.gammas is not None}
        for row in BY_KEY.values()
    ]  # fmt: skip
    console.emit(rows, chosen_format(format, json))


def _session(
    preset: str, config: Path | None, set: list[str] | None, dataset: str | None, device: str | None,
    precision: str | None, more: dict[str, Any] | None = None,
) -> "Session":  # fmt: skip
    from dataclasses import replace

    flags = {"dataset.name": dataset, "runtime.device": device, "runtime.precision": precision, **(more or {})}
    return replace(open_job("cell", preset, config, set, flags), patience=PATIENCE)


def usual_shares(session: "Session", *usual: float) -> list[float]:
    """The shares of descriptors when none is asked for: the configured one, if it hides questions."""
    configured = session.config.questions.descriptors
    return [configured] if configured < 1 else list(usual)


def _against(text: str) -> tuple[str, float | None]:
    """ "task-ldm:1.5" as method and γ. ``UsageError`` for what has no zero-shot row."""
    from metavqa_cli.engine.request import check_gamma
    from metavqa_cli.engine.sources import method_of

    key, colon, gamma = text.partition(":")
    method = method_of(key)
    if not method.zero_shot or (colon and method.gammas is None):
        raise UsageError(f"--against {text}: {key} has no {'guidance scale' if method.zero_shot else 'zero-shot row'}")
    try:
        return key, check_gamma(float(gamma)) if colon else None
    except ValueError:
        raise UsageError(f"--against takes a method, or METHOD:GAMMA; found {text!r}") from None


def _measured(
    session: "Session", specs: "Sequence[CellSpec]", part: tuple[int, int],
    against: tuple[str, float | None] = ("multitask", None),
) -> list[dict[str, Any]]:  # fmt: skip
    from metavqa_cli.engine.experiments import measured, shard

    chosen = shard(specs, *part)
    if not chosen:
        raise UsageError(f"there are {len(specs)} cells, so shard {part[0]}/{part[1]} is empty; take fewer shards")
    return finish(measured(session, chosen, against))


def _dataset_of(cells: "Sequence[str]") -> str:
    """The dataset that the first of the cells was measured on."""
    from metavqa_cli.store import runs

    return str(runs.get(workspace(), cells[0]).manifest()["dataset"]["name"])


def _joined(session: "Session", cells: Sequence[str], against: tuple[str, float | None]) -> list[dict[str, Any]]:
    from metavqa_cli.engine.cells import Bench, joined_cells
    from metavqa_cli.engine.table import MULTITASK, rows
    from metavqa_cli.store import runs

    chosen = list({run.id: run for run in (runs.get(workspace(), name) for name in cells)}.values())
    bench = Bench(session)
    scores = joined_cells(chosen, bench.dataset)
    found = rows(scores, bench.judged(), session.config.eval.bootstrap, against)
    if against != MULTITASK and not any(row["against"] for row in found):
        raise UsageError(f"none of the cells is {against[0]}, zero-shot, which --against names; add its cells")
    return found


def _print(rows: list[dict[str, Any]], format: Format, by_family: bool) -> None:
    from metavqa_cli.engine.table import breakdown, caption, pivot

    if format in ("json", "jsonl", "csv"):
        console.emit(rows, format, CSV_COLUMNS if format == "csv" else None)
        return
    console.narrate(caption(rows))
    for number, (setting, lines) in enumerate(sorted(pivot(rows).items(), key=lambda item: ORDER.index(item[0]))):
        if number:
            console.out("")
        if format == "markdown":
            console.out(f"{setting}\n")
        else:
            console.narrate(setting)
        console.emit(lines, format)
    if by_family:
        console.out("")
        console.emit(breakdown(rows), format)


ORDER = ("zero-shot", "few-shot", "control")


def _print_kinds(rows: list[dict[str, Any]], format: Format) -> None:
    """The rows for each kind of question."""
    from metavqa_cli.engine.table import by_kind

    found = by_kind(rows)
    if not found:
        raise UsageError("the source of this dataset tells no kinds of questions; leave --by kind out")
    samplers = dict.fromkeys(row["sampler"] for row in rows if row["sampler"])
    console.narrate("; ".join(["accuracy in per cent, mean over the tasks of each kind and over seeds", *samplers]))
    console.emit(found, format)


def _print_sweep(rows: list[dict[str, Any]], format: Format) -> None:
    from metavqa_cli.tui.plot import Level, Series, plot

    if format != "human" and not (format == "auto" and console.is_terminal("stdout")):
        columns = ("method", "descriptors", "gamma", "validated", "mean", "sd", "ci_low", "ci_high", "tasks", "seeds")
        shown = [row for row in rows if row["setting"] == "zero-shot" and row["gammas"]] if format != "json" else rows
        console.emit(shown, format, None if format in ("json", "jsonl") else columns)
        return
    swept: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["gammas"] and not row["validated"] and row["setting"] == "zero-shot":
            share = "" if row["descriptors"] == 1 else f" ({100 * row['descriptors']:g} % of the questions)"
            swept.setdefault(row["label"] + share, []).append(row)
    series = [
        Series(label, [row["gamma"] for row in found], [row["mean"] for row in found], [row["sd"] for row in found])
        for label, found in swept.items()
    ]
    levels = [Level(row["label"], row["mean"]) for row in rows
              if (row["method"], row["setting"]) in (("multitask", "zero-shot"), ("task", "few-shot"))]  # fmt: skip
    for line in plot(series, levels, width=min(100, console.console("stdout").width), ascii=console.style.ascii):
        console.out(line)
    for row in rows:
        if row["validated"] and row["setting"] == "zero-shot":
            chosen = ", ".join(f"{gamma:g}" for gamma in row["gammas"])
            console.narrate(f"{row['label']}: {row['mean']:.2f} at the validated γ ({chosen})")


def _write(rows: list[dict[str, Any]], out: Path | None, name: str) -> None:
    """The rows as JSON and CSV in the folder ``out``, and the figures that they can fill."""
    if out is None or console.style.process:  # another process writes it
        return
    import contextlib

    from metavqa_cli.engine.figures import descriptors_figure, gamma_figure, table_figure
    from metavqa_cli.store.atomic import write_json, write_text

    write_json(out / f"{name}.json", rows)
    write_text(out / f"{name}.csv", console.as_csv(rows, CSV_COLUMNS))
    drawn = []
    for figure, draw in (("gamma", gamma_figure), ("descriptors", descriptors_figure), ("differences", table_figure)):
        for suffix in ("svg", "png"):
            with contextlib.suppress(UsageError):  # a figure that these rows cannot fill
                draw(rows, out / f"{name}-{figure}.{suffix}")
                drawn.append(f"{name}-{figure}.{suffix}")
    console.narrate(f"wrote {name}.json, {name}.csv{''.join(f', {file}' for file in drawn)} to {out}")
