"""Which HyperLDM answers questions, and in which configuration. Without torch: choosing takes no model."""

from typing import TYPE_CHECKING, Any

from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace

if TYPE_CHECKING:
    from metavqa_cli.schema.config import Config


def named_ldm(workspace: Workspace, model: str, dataset: str | None) -> Run:
    """The HyperLDM with this id (or beginning of one). ``UsageError`` when it is something else, or on other data."""
    run = runs.get(workspace, model)
    made_from = run.manifest()["dataset"]["name"]
    if run.kind != "ldm":
        raise UsageError(f"run {run.id} is of kind {run.kind}, not ldm; `metavqa runs ls` lists all runs")
    if dataset not in (None, made_from):
        raise UsageError(f"run {run.id} was made from the dataset {made_from!r}, not {dataset!r}; leave --dataset out")
    return run


def newest_ldm(workspace: Workspace, config: "Config", dataset: str | None) -> Run:
    """The newest finished HyperLDM, on ``dataset`` if given, rather one trained as configured: a table trains others.

    ``MissingError`` says how to train one.
    """
    values = config.model_dump(mode="json")
    run = runs.newest(
        workspace, "ldm", match=lambda run: dataset in (None, run.manifest()["dataset"]["name"]),
        rather=lambda run: runs.agrees(run, values, ("questions", "ldm")),
    )  # fmt: skip
    if run is None:
        where = f"in {workspace.root}" if dataset is None else f"for the dataset {dataset!r}"
        way_out = "train one with `metavqa train ldm --with-parents`, or run `metavqa quickstart`"
        raise MissingError(f"there is no finished HyperLDM {where}; {way_out}")
    return run


def own_config(run: Run) -> dict[str, Any]:
    """The configuration that ``run`` was made with, except where it ran."""
    from metavqa_cli.schema.layers import validate

    values = {name: value for name, value in run.config().items() if name != "runtime"}
    return validate(values).model_dump(exclude={"runtime"})  # complete: a None is absent from the file
