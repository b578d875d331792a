"""What a person, a script or a dashboard may do to a workspace at any moment, and how it may end."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from metavqa_cli.store.workspace import Workspace
from tests.miniature import NAME, OPTIONS

OTHER = "other"
SMALL = ["--set", "dataset.images=1040", "--set", "dataset.questions=40", "--set", "dataset.min_pairs=8",
         "--set", "dataset.pairs_per_task=20"]  # fmt: skip
QUESTION = "What color is the car?"
DONE, REFUSED, MISSING, BUSY, INTERRUPTED = 0, 2, 3, 5, 130
USUAL = (DONE, MISSING, BUSY)


@dataclass(frozen=True)
class Deed:
    """A command line (or ``watch``: what the dashboard does), and the exit codes that it may have here."""

    kind: str
    args: tuple[str, ...]
    codes: tuple[int, ...] = USUAL
    follows: tuple[str, ...] = field(default=())
    """Runs whose curves the dashboard follows."""


class Deeds:
    """Draws deeds for a workspace as it is at the moment."""

    def __init__(self, workspace: Workspace, seed: int) -> None:
        self.workspace, self.draw = workspace, random.Random(seed)
        self.image = str(next((workspace.dataset_dir(NAME) / "images").resolve().rglob("*.png")))

    def next(self) -> Deed:
        made: list[tuple[int, Callable[[], Deed]]] = [
            (30, self._train), (6, self._resume), (12, self._remove), (5, self._build), (3, self._remove_dataset),
            (6, self._evaluate), (8, self._ask), (14, self._look), (8, self._look_at_data), (8, self._watch),
        ]  # fmt: skip
        return self.draw.choices([deed for _, deed in made], [weight for weight, _ in made])[0]()

    def _runs(self, kind: str = "") -> list[str]:
        return [name for name in self.workspace.run_ids() if name.startswith(kind)] or ["nothing-1234"]

    def _one(self, kind: str = "") -> str:
        """A run, rather one that is not finished: there others are at work."""
        names = self._runs(kind)
        unfinished = [name for name in names if not (self.workspace.runs_dir / name / "result.json").exists()]
        return self.draw.choice(unfinished if unfinished and self.draw.random() < 0.5 else names)

    def _options(self, dataset: str) -> list[str]:
        other = SMALL if dataset == OTHER else []
        return [*OPTIONS, *other, "--set", f"dataset.name={dataset}", "--set", "runtime.checkpoint_seconds=0.05"]

    def _dataset(self) -> str:
        return self.draw.choices([NAME, OTHER], [4, 1])[0]

    def _train(self) -> Deed:
        which = self.draw.choice(
            [("baseline", "--method", "multitask"), ("baseline", "--method", "cond-multitask"), ("zoo",),
             ("hvae", "--objective", "weights"), ("hvae", "--objective", "task"), ("ldm", "--on", "task"),
             ("ldm", "--on", "hvae"), ("hyperclip", "--on", "task"), ("regression", "--on", "task")]
        )  # fmt: skip
        more = [["--force"], ["--with-parents"], ["--with-parents"], [], []]
        length = [] if which[0] == "zoo" else ["--epochs", str(self.draw.choice((4, 60)))]
        dataset, seed = self._dataset(), str(self.draw.randrange(2))
        args = ["train", *which, *self._options(dataset), *length, "--seed", seed, *self.draw.choice(more)]
        # Another configuration of the second dataset may be there.
        return Deed(f"train {which[0]}", tuple(args), (*USUAL, REFUSED) if dataset == OTHER else USUAL)

    def _resume(self) -> Deed:
        name = self._one()
        args = ("train", name.partition("-")[0], "--resume", name)
        if args[1] not in ("baseline", "zoo", "hvae", "ldm", "hyperclip", "regression"):
            return self._look()
        return Deed("resume", args, (*USUAL, REFUSED))  # finished meanwhile, or its dataset is another one now

    def _remove(self) -> Deed:
        names = [self._one() for _ in range(self.draw.choice((1, 1, 3)))]
        force = self.draw.random() < 0.5
        codes = USUAL if force else (*USUAL, REFUSED)
        return Deed("runs rm", ("runs", "rm", *dict.fromkeys(names), *(["--force"] if force else [])), codes)

    def _build(self) -> Deed:
        dataset = self._dataset()
        force = self.draw.random() < 0.5
        # The miniature's own dataset is built in one configuration only, so that what is trained on it stays of use.
        another = ["--world-seed", "5"] if dataset == OTHER and self.draw.random() < 0.4 else []
        args = ["dataset", "build", "--name", dataset, *self._options(dataset), *another]
        return Deed("dataset build", (*args, *(["--force"] if force else [])), (DONE, BUSY))

    def _remove_dataset(self) -> Deed:
        return Deed("dataset rm", ("dataset", "rm", self.draw.choices([NAME, OTHER], [1, 6])[0], "--yes"))

    def _evaluate(self) -> Deed:
        args = ["eval", self._one("ldm"), *self._options(NAME), "--json", *self.draw.choice(([], ["--force"]))]
        return Deed("eval", tuple(args), (*USUAL, REFUSED))  # a run on the other dataset

    def _ask(self) -> Deed:
        chosen = [] if self.draw.random() < 0.5 else ["--model", self._one("ldm")]
        args = ["ask", QUESTION, self.image, "--json", *chosen, *self.draw.choice(([], ["--answers", "red,blue"]))]
        return Deed("ask", tuple(args))

    def _look(self) -> Deed:
        if self.draw.random() < 0.4:
            return Deed("runs ls", ("runs", "ls", *self.draw.choice(([], ["--filter", "state:finished"])), "--json"),
                        (DONE,))  # fmt: skip
        return Deed("runs show", ("runs", "show", self._one(), "--json"), (DONE, MISSING))

    def _look_at_data(self) -> Deed:
        verb = self.draw.choice((["show", "--dataset"], ["verify"], ["info"], ["ls"]))
        if verb == ["ls"]:
            return Deed("dataset ls", ("dataset", "ls", "--json"), (DONE,))
        return Deed(f"dataset {verb[0]}", ("dataset", *verb, self._dataset(), "--json"))

    def _watch(self) -> Deed:
        return Deed("watch", (), (DONE,), tuple(self.draw.sample(self._runs(), min(3, len(self._runs())))))
