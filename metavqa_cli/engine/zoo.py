"""`metavqa train zoo`: one classifier for each training task, fine-tuned from an initialisation (Appendix A.7.1)."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.diagnosis import check_weights
from metavqa_cli.engine.lineage import find_parent
from metavqa_cli.engine.measure import batch_accuracies, layout_of, parts_of
from metavqa_cli.engine.models import load_model, save_model
from metavqa_cli.engine.perform import perform, started
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.world import here
from metavqa_cli.methods.few_shot import adapt_weights
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.schema.events import Event, Narrated, ProgressMade
from metavqa_cli.store.runs import Run

INITIALISATIONS = ("multitask", "mnet-maml", "mnet-fomaml")  # baselines that are nothing but a W


def newest_init(session: Session, chosen: str | None = None) -> Run:
    """The chosen, or the newest fitting, initialisation. ``MissingError`` says how to train one."""
    method, network = session.config.zoo.init, session.config.base_network.model_dump(mode="json")

    def match(run: Run) -> bool:
        config = run.config()
        same = config["base_network"] == network
        return same if chosen else same and run.manifest().get("variant") == method

    hint = f"train one with `metavqa train baseline --method {method}`, or add --with-parents"
    run = find_parent(session, "baseline", chosen, match, hint)
    if run is not None and run.manifest().get("variant") not in INITIALISATIONS:
        raise UsageError(f"run {run.id} ({run.manifest().get('variant')}) is no initialisation; {hint}")
    if run is None:
        raise MissingError(
            f"there is no finished {method} initialisation for dataset {session.config.dataset.name!r}; {hint}"
        )
    return run


def build_zoo(session: Session, init: Run) -> Iterator[Event]:
    """Fine-tune the initialisation on every training (and validation) task; ends with ``RunFinished``."""
    yield from perform(session, "zoo", {"init": init}, {}, partial(_build_zoo, session, init))


def _build_zoo(session: Session, init: Run, run: Run) -> Iterator[Event | dict[str, Any]]:
    config, layout, scale = session.config, layout_of(session), session.config.base_network.logit_scale
    dataset = open_dataset(session.workspace, config.dataset.name)
    base = load_model(init, session.device).tensors["W"]
    world = here()
    yield started(run, 0)
    tensors, result = {"base": base}, {}
    for split in ("train", "validation"):
        arena = dataset.arena(split, session.device)
        weights = torch.zeros(len(arena), layout.size, device=session.device)
        before, after = torch.zeros(2, len(arena), device=session.device)
        done = 0
        for rows in world.dealt(parts_of(arena.pairs, layout.size)):
            support, query = arena.select(rows).random_support(config.seed)
            tuned = adapt_weights(layout, base, support, config.zoo.steps, config.zoo.lr, scale)
            weights[rows], after[rows] = tuned, batch_accuracies(layout, tuned, query, scale)
            before[rows] = batch_accuracies(layout, base.expand(len(rows), -1), query, scale)
            done = min(done + world.size * len(rows), len(arena))
            yield ProgressMade(f"fine-tuning {split} tasks", done, len(arena), "tasks")
        weights, before, after = map(world.summed, (weights, before, after))
        check_weights(weights, arena.questions, "the fine-tuned weights", "lower zoo.lr")
        tensors[split] = weights
        result[split] = {"before": 100 * float(before.mean()), "after": 100 * float(after.mean())}
    save_model(run, session, tensors, {"layout": layout.to_dict()})
    yield Narrated("fine-tuned classifiers on their own held-out pairs: "
                   f"{result['train']['before']:.1f} % before, {result['train']['after']:.1f} % after")  # fmt: skip
    yield result


def newest_zoo(session: Session, init: Run) -> Run:
    """The zoo made from ``init`` with the configured steps and rate. ``MissingError`` says how to build one."""
    wanted = session.config.zoo.model_dump(mode="json")

    def match(run: Run) -> bool:
        return run.manifest()["parents"].get("init") == init.id and run.config()["zoo"] == wanted

    hint = "build one with `metavqa train zoo`, or add --with-parents"
    run = find_parent(session, "zoo", None, match, hint)
    if run is None:
        raise MissingError(f"there is no zoo of classifiers fine-tuned from {init.id}; {hint}")
    return run
