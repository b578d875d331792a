"""What a job is made from: find it, or (``with_parents``) make it, in the order data, W, zoo, generator, guidance.

Each ``ensure_…`` and ``made_…`` is a generator of events that returns a run, for use with ``yield from``.
"""

from collections.abc import Generator, Iterator
from dataclasses import replace

from metavqa_cli.engine.baselines import train_baseline
from metavqa_cli.engine.build import build_dataset
from metavqa_cli.engine.contrast import train_hyperclip
from metavqa_cli.engine.diffusion import newest_ldm, train_ldm
from metavqa_cli.engine.generators import VARIANTS, newest_generator, train_generator
from metavqa_cli.engine.regression import train_regression
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.zoo import build_zoo, newest_init, newest_zoo
from metavqa_cli.schema.config import BaselineMethod
from metavqa_cli.schema.errors import MissingError
from metavqa_cli.schema.events import Event, RunFinished
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run

Ensured = Generator[Event, None, Run]
GENERATED = ("hvae", "task")  # generators whose HyperLDM is evaluated when none is named


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


def with_method(session: Session, method: BaselineMethod) -> Session:
    """The session of the job that trains the baseline ``method``."""
    baseline = session.config.baseline.model_copy(update={"method": method})
    return replace(session, config=session.config.model_copy(update={"baseline": baseline}))


def on_generator(session: Session, on: str) -> Session:
    """The session of the job that trains the generator ``on`` (hvae or task)."""
    hvae = session.config.hvae.model_copy(update={"objective": VARIANTS[on][1]})
    return replace(session, config=session.config.model_copy(update={"hvae": hvae}))


def made_baseline(session: Session, method: BaselineMethod) -> Ensured:
    """The baseline ``method``, trained if it is not there."""
    doing = with_method(session.unforced(), method)
    return (yield from finished_run(doing, train_baseline(doing)))


def ensure_init(session: Session, chosen: str | None, with_parents: bool) -> Ensured:
    """The initialisation W, from the method ``zoo.init``."""
    if with_parents and chosen is None:
        yield from ensured_dataset(session, True)
        return (yield from made_baseline(session, session.config.zoo.init))
    return newest_init(session, chosen)


def ensure_zoo(session: Session, init: Run, with_parents: bool) -> Ensured:
    """The zoo of ``init``."""
    if with_parents:
        return (yield from finished_run(session, build_zoo(session.unforced(), init)))
    return newest_zoo(session, init)


def ensure_generator(session: Session, on: str, chosen: str | None, with_parents: bool) -> Ensured:
    """The generator ``on`` (hnet, hvae or task); without ``with_parents`` the newest."""
    if not with_parents or chosen is not None:
        return newest_generator(session, on, chosen)
    if on == "hnet":
        yield from ensured_dataset(session, True)
        return (yield from made_baseline(session, "hnet-maml"))
    init = yield from ensure_init(session, None, True)
    if on == "hvae":
        yield from ensure_zoo(session, init, True)
    doing = on_generator(session.unforced(), on)
    return (yield from finished_run(doing, train_generator(doing, init)))


def usual_generator(session: Session) -> str:
    """The generator that is meant where none is named: the one of the configured objective."""
    return "hvae" if session.config.hvae.objective == "weights" else "task"


def made_ldm(session: Session, on: str) -> Ensured:
    """HyperLDM on the generator ``on``, with everything that it is made from."""
    generator = yield from ensure_generator(session, on, None, True)
    return (yield from finished_run(session, train_ldm(session.unforced(), generator)))


def made_hyperclip(session: Session, on: str) -> Ensured:
    """HyperCLIP for the generator ``on``, with everything that it is made from."""
    generator = yield from ensure_generator(session, on, None, True)
    return (yield from finished_run(session, train_hyperclip(session.unforced(), generator)))


def made_regression(session: Session, on: str) -> Ensured:
    """Regression to the latents of the generator ``on``, or to the weights of the ``zoo``."""
    if on == "zoo":
        init = yield from ensure_init(session, None, True)
        target = yield from ensure_zoo(session, init, True)
    else:
        target = yield from ensure_generator(session, on, None, True)
    return (yield from finished_run(session, train_regression(session.unforced(), target)))


def newest_ldms(session: Session) -> list[Run]:
    """The newest HyperLDM on each of the generators, rather of this seed; ``MissingError`` when there is none."""
    found = []
    for on in GENERATED:
        try:
            found.append(newest_ldm(session, on, own_seed_first=True))
        except MissingError:
            continue
    return found or [newest_ldm(session, usual_generator(session))]
