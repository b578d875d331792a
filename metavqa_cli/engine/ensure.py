"""What a job is made from: find it, or (``--with-parents``) make it, in the order data, W, zoo, generator, HyperLDM.

Each ``ensure_…`` is a generator of events that returns a run, for use with ``yield from``.
"""

from collections.abc import Generator, Iterator

from metavqa_cli.engine.build import build_dataset
from metavqa_cli.engine.diffusion import newest_ldm, train_ldm
from metavqa_cli.engine.generators import newest_generator, train_generator
from metavqa_cli.engine.lineage import find_parent
from metavqa_cli.engine.pretrain import build_zoo, newest_baseline, train_baseline
from metavqa_cli.engine.session import Session
from metavqa_cli.schema.config import Objective
from metavqa_cli.schema.events import Event, RunFinished
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run

OBJECTIVES: tuple[Objective, ...] = ("weights", "task")
Ensured = Generator[Event, None, Run]


def finished_run(session: Session, events: Iterator[Event]) -> Ensured:
    """Pass ``events`` on and return the run that they finish."""
    name = ""
    for event in events:
        if isinstance(event, RunFinished):
            name = event.run
        yield event
    return runs.get(session.workspace, name)


def ensured_dataset(session: Session, with_parents: bool) -> Generator[Event, None, None]:
    """The configured dataset, built when it is missing and ``with_parents``."""
    if with_parents:
        yield from build_dataset(session.unforced())


def ensure_init(session: Session, chosen: str | None, with_parents: bool) -> Ensured:
    """The initialisation W, from the configured method."""
    if with_parents and chosen is None:
        yield from ensured_dataset(session, True)
        return (yield from finished_run(session, train_baseline(session.unforced())))
    return newest_baseline(session, chosen)


def ensure_zoo(session: Session, init: Run, with_parents: bool) -> Generator[Event, None, None]:
    """The zoo of ``init``, which the paper's objective learns from; nothing to do for the other."""
    if with_parents and session.config.hvae.objective == "weights":
        yield from build_zoo(session.unforced(), init)


def ensure_generator(session: Session, chosen: str | None, with_parents: bool, objective: str | None = None) -> Ensured:
    """The generator of the configured objective; without ``with_parents`` the newest, of ``objective`` if given."""
    if with_parents and chosen is None:
        init = yield from ensure_init(session, None, True)
        yield from ensure_zoo(session, init, True)
        return (yield from finished_run(session, train_generator(session.unforced(), init)))
    return newest_generator(session, objective or session.config.hvae.objective, chosen)


def made_ldm(session: Session) -> Ensured:
    """HyperLDM on the generator of the configured objective, with everything that it is made from."""
    generator = yield from ensure_generator(session, None, True)
    return (yield from finished_run(session, train_ldm(session.unforced(), generator)))


def newest_ldms(session: Session) -> list[Run]:
    """The newest HyperLDM of each objective, rather of this seed; ``MissingError`` when there is none at all."""
    found = [
        newest_ldm(session, objective, own_seed_first=True) for objective in OBJECTIVES if _has_ldm(session, objective)
    ]
    return found or [newest_ldm(session)]


def _has_ldm(session: Session, objective: str) -> bool:
    def match(run: Run) -> bool:
        return run.manifest().get("variant") == objective

    return find_parent(session, "ldm", None, match, "") is not None
