"""A γ between measured ones: the classifier of a task is generated and tested anew, in the thread that owns torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message
from textual.message_pump import MessagePump

from metavqa_cli.engine.request import Request
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.tasks.taskset import Task
from metavqa_cli.tui.asking import Asking, Cancelled, Checkpoint
from metavqa_cli.tui.beside import post
from metavqa_cli.tui.sweep_tasks import tally

if TYPE_CHECKING:
    from metavqa_cli.engine.ask import Asker
    from metavqa_cli.engine.curves import Curve, Point
    from metavqa_cli.engine.judgements import Judgement

STEP = 0.05  # of γ
PLAIN = ("hnet-ldm", "hvae-ldm", "task-ldm", "task-ldm-plain")  # guided by HyperLDM alone, as `metavqa ask` does it


@dataclass(frozen=True)
class Model:
    """The HyperLDM that a measured point was drawn from, the seed of its samples, and how they were drawn."""

    run: str
    seed: int
    sampler: str | None


@dataclass(frozen=True)
class Drawn:
    """What one sample answered to a task's query images at ``gamma``; shares are probabilities.

    ``sampler`` says how its latent was drawn, which is as the workspace is configured now.
    """

    question: str
    gamma: float
    run: str
    sampler: str
    judgements: "tuple[Judgement, ...]"


def model_of(curve: "Curve | None", point: "Point | None") -> Model:
    """What the first seed of a point was drawn from. ``UsageError`` for a method that is more than a HyperLDM, and
    for a point that does not tell which one."""
    if curve is None or point is None:
        raise UsageError("no curve is scrubbed, so there is no HyperLDM to generate with; n starts a sweep")
    if curve.method not in PLAIN:
        raise UsageError(f"{curve.label} is not a HyperLDM alone; m chooses one of {', '.join(PLAIN)} to scrub live")
    first = point.measured[0]
    if first.ldm is None:
        raise UsageError(f"run {first.run} does not say which HyperLDM it was drawn from, so nothing can be generated "
                         "anew; n starts a sweep, whose cells say it")  # fmt: skip
    return Model(first.ldm, first.seed, first.sampler)


def stepped(gamma: float, by: int) -> float:
    """The next live γ, on the grid of ``STEP``; never below 0."""
    return max(0.0, round((round(gamma / STEP) + by) * STEP, 2))


def judge_live(asker: "Asker", checkpoint: Checkpoint, *, task: Task, gamma: float, seed: int) -> Drawn:
    """Generate the task's classifier at ``gamma`` and judge its query images by their stored features.

    ``MissingError`` when the dataset that the run was made from is gone.
    """
    import torch

    from metavqa_cli.engine.evaluate import sampler_text
    from metavqa_cli.engine.judgements import Judgement

    if asker.dataset is None:
        raise MissingError(f"the dataset that run {asker.ldm.run.id} was made from is gone, and with it the features "
                           "of its images")  # fmt: skip
    wanted = {image for image, _ in task.query}
    with asker.dataset.unchanged():
        store = asker.dataset.image_features
        places = {image: row for row, image in enumerate(store.ids) if image in wanted}
        x = torch.from_numpy(store.rows([places[image] for image, _ in task.query])).to(asker.device)
    request = Request(task.question, task.answers, task.template, gamma, seed)
    answer = asker.ask(request, [image for image, _ in task.query], x, before_step=checkpoint)
    found = [Judgement(judged.image, task.answers[label], judged.ranked)
             for judged, (_, label) in zip(answer.judgements, task.query, strict=True)]  # fmt: skip
    sampler = sampler_text(asker.sampling(request))
    return Drawn(task.question, gamma, asker.ldm.run.id, sampler, tuple(found))


class LiveRead(Message):
    """What was generated for a live γ, or why nothing was; None: only the state of the service is another."""

    def __init__(self, outcome: Drawn | Exception | None) -> None:
        super().__init__()
        self.outcome = outcome


class LiveGamma:
    """Asks for one classifier after the other; of those that are asked for in a hurry, the newest counts."""

    def __init__(self, asking: Asking, room: MessagePump) -> None:
        self._asking, self._room = asking, room
        self._asked: object = None
        asking.listen(lambda status: post(room, LiveRead(None)))

    def ask(self, model: Model, task: Task, gamma: float) -> None:
        """Send the room, later, what the model answers at ``gamma``; nothing if that was asked for last."""
        if self._asked != (model, task.question, gamma):
            self._asked = (model, task.question, gamma)
            self._asking.load(model.run)
            self._asking.submit(
                lambda asker, checkpoint: judge_live(asker, checkpoint, task=task, gamma=gamma, seed=model.seed),
                self._tell, kind="sweep", let_finish=True,
            )  # fmt: skip

    def end(self) -> None:
        """Nothing more is wanted."""
        self._asked = None
        self._asking.cancel("sweep")

    @property
    def state(self) -> str:
        """What the service is doing, in words."""
        status = self._asking.status
        if status.state == "loading":
            return "loading torch and the HyperLDM ..."
        return f"cannot be generated: {status.reason}" if status.state == "failed" else "generating ..."

    def _tell(self, outcome: Drawn | Exception) -> None:
        if not isinstance(outcome, Cancelled):
            post(self._room, LiveRead(outcome))


def live_head(
    question: str, family: str, drawn: Drawn | None, gamma: float, state: str, model: Model | None
) -> list[str]:  # fmt: skip
    """The task in words while γ is live: what was answered and how it was drawn, or what is being waited for."""
    first = f"{question}{f'  [{family}]' if family else ''}"
    if drawn is None:
        return [first, f"live γ = {gamma:g}: {state}"]
    later = "" if drawn.gamma == gamma else f"; γ = {gamma:g} is being generated"
    told = f"{tally(drawn.judgements)}; shares are probabilities of one sample"
    seed, measured = (f"seed {model.seed}, ", model.sampler) if model else ("", drawn.sampler)
    other = "" if drawn.sampler == measured else f"; not as it was measured: {measured or 'sampler not told'}"
    return [first, f"live γ = {drawn.gamma:g}: {told} ({seed}{drawn.run}){later}", f"{drawn.sampler}{other}"]
