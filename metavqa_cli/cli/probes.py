"""`metavqa eval identify | novelty`: what generated and fine-tuned weights tell about their questions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.options import (
    ConfigOption,
    FormatOption,
    JsonOption,
    PresetOption,
    SetOption,
    chosen_format,
)
from metavqa_cli.cli.session import DatasetOption, DeviceOption, PrecisionOption, finish, open_job
from metavqa_cli.cli.tables import PATIENCE, SeedsOption, SharesOption, usual_shares
from metavqa_cli.schema.ranges import name_list, seed_list, share_list

if TYPE_CHECKING:
    from metavqa_cli.engine.session import Session

OnOption = Annotated[
    list[str] | None, typer.Option("--on", help="Generators: hnet, hvae, task; may be repeated, or a,b,c.")
]
IDENTIFY_COLUMNS = (
    "on", "descriptors", "candidates", "top1", "top1_sd", "top1_low", "top1_high", "chance1", "top5", "top5_sd",
    "top5_low", "top5_high", "chance5", "tasks", "seeds",
)  # fmt: skip
NOVELTY_COLUMNS = (
    "on", "descriptors", "row", "distance", "distance_sd", "relative", "relative_sd", "latent_distance",
    "latent_distance_sd", "latent_relative", "latent_relative_sd", "error_overlap", "error_overlap_sd", "accuracy",
    "accuracy_sd", "gammas", "sampler", "weights", "members", "tasks", "seeds",
)  # fmt: skip


def identify(
    on: OnOption = None,
    seeds: SeedsOption = "1",
    descriptors: SharesOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """How often HyperCLIP names the question of fine-tuned weights, among 10, 100 and all test questions (Fig. 3)."""
    shown, names = chosen_format(format, json), name_list(on) or ["task"]
    seed_numbers, asked = seed_list(seeds), share_list(descriptors)
    session = _session(preset, config, set, dataset, device, precision)
    from metavqa_cli.engine.identify import measured, subjects

    rows = finish(measured(session, subjects(names, seed_numbers, asked or usual_shares(session, 1.0))))
    console.narrate(
        "how often the right test question is the first, or in the first five, of all candidates, in per cent: mean "
        f"over {rows[0]['tasks']} tasks and all sets of candidates ± s.d. over {_seeds(rows)}; 95 % interval over tasks"
    )
    if shown in ("json", "jsonl", "csv"):
        console.emit(rows, shown, IDENTIFY_COLUMNS if shown == "csv" else None)
        return
    console.emit([
        {"on": row["on"], "questions": f"{100 * row['descriptors']:g} %", "candidates": row["candidates"],
         **{column: value for top in (1, 5) for column, value in (
             (f"top-{top}", _spread(row, f"top{top}", 2)),
             (f"interval {top}", f"[{row[f'top{top}_low']:.1f}, {row[f'top{top}_high']:.1f}]"),
             (f"chance {top}", f"{row[f'chance{top}']:.2f}"))}}
        for row in rows
    ], shown)  # fmt: skip


def novelty(
    on: OnOption = None,
    seeds: SeedsOption = "1",
    descriptors: SharesOption = None,
    dataset: DatasetOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    preset: PresetOption = "tiny",
    config: ConfigOption = None,
    set: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Are generated weights memorised? Their distance to training weights, and the errors that both share."""
    shown, names = chosen_format(format, json), name_list(on) or ["task"]
    seed_numbers, asked = seed_list(seeds), share_list(descriptors)
    session = _session(preset, config, set, dataset, device, precision)
    from metavqa_cli.engine.identify import subjects
    from metavqa_cli.engine.novelty import measured, verdicts

    rows = finish(measured(session, subjects(names, seed_numbers, asked or usual_shares(session, 1.0))))
    gammas = {row["on"]: (row["sampler"], dict.fromkeys(row["gammas"])) for row in rows if row["gammas"]}
    drawn = [f"{on}: {how}, validated γ = {', '.join(f'{g:g}' for g in each)}" for on, (how, each) in gammas.items()]
    console.narrate(
        f"median distance to the nearest of {rows[0]['members']} training tasks' weights, alone and relative to "
        "leave-one-out; overlap (IoU) of the errors with those weights', and accuracy, in per cent over "
        f"{rows[0]['tasks']} test tasks, ± s.d. over {_seeds(rows)}; {'; '.join(drawn)}"
    )
    if shown in ("json", "jsonl", "csv"):
        console.emit(rows, shown, NOVELTY_COLUMNS if shown == "csv" else None)
    else:
        console.emit([
            {"on": row["on"], "questions": f"{100 * row['descriptors']:g} %", "weights": row["row"],
             "distance": _spread(row, "distance", 3), "relative": _spread(row, "relative", 2),
             "latent distance": _spread(row, "latent_distance", 3),
             "latent relative": _spread(row, "latent_relative", 2),
             "error overlap": _spread(row, "error_overlap", 1), "accuracy": _spread(row, "accuracy", 2)}
            for row in rows
        ], shown)  # fmt: skip
    for sentence in verdicts(rows):
        console.narrate(sentence)


def _session(
    preset: str, config: Path | None, set: list[str] | None, dataset: str | None, device: str | None,
    precision: str | None,
) -> "Session":  # fmt: skip
    from dataclasses import replace

    flags = {"dataset.name": dataset, "runtime.device": device, "runtime.precision": precision}
    return replace(open_job("eval", preset, config, set, flags), patience=PATIENCE)


def _spread(row: dict[str, Any], name: str, digits: int) -> str:
    """ "12.34 ± 0.56", without the s.d. of a single seed; "" for what does not exist."""
    if row[name] is None:
        return ""
    sd = "" if row[f"{name}_sd"] is None else f" ± {row[f'{name}_sd']:.{digits}f}"
    return f"{row[name]:.{digits}f}{sd}"


def _seeds(rows: list[dict[str, Any]]) -> str:
    count = len(rows[0]["seeds"])
    return f"{count} seed{'' if count == 1 else 's'}"
