"""What the room γ sweep knows: what finished cells and evaluations measured on a dataset. For one thread at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from metavqa_cli.engine.configuration import DEFAULT_PRESET
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.images import ImageFile
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.sweep_command import fitting_preset

if TYPE_CHECKING:
    from metavqa_cli.engine.curves import Points, Sweep
    from metavqa_cli.engine.swept import Reader, Swept

MEASURING = ("cell", "eval")
NO_DATASET = (
    "There is no dataset in {}: `metavqa quickstart` makes one and trains on it, `metavqa dataset build` another."
)


@dataclass(frozen=True)
class Wish:
    """What to read: a dataset (None: that of the newest run), the finished runs that may have measured it, a family."""

    dataset: str | None = None
    runs: tuple[Path, ...] = ()
    family: str = ""


@dataclass(frozen=True, eq=False)
class Board:
    """What was measured; the same object as before while nothing has changed.

    ``trouble`` says what is wrong with what is shown, ``problems`` which runs could not be read. ``preset`` is the one
    that the newest cell or evaluation was made with, as far as that can be told.
    """

    dataset: str | None = None
    datasets: tuple[str, ...] = ()
    swept: "Swept | None" = None
    sweep: "Sweep | None" = None
    places: dict[str, ImageFile] = field(default_factory=dict)
    preset: str = DEFAULT_PRESET
    trouble: str | None = None
    problems: tuple[str, ...] = ()


def wish_of(dataset: str | None, views: Sequence[RunView], family: str) -> Wish:
    """The wish of a dashboard that knows these runs, oldest first."""
    name = dataset or next((view.dataset for view in reversed(views) if view.dataset not in ("", "None")), None)
    runs = tuple(view.path for view in views
                 if view.kind in MEASURING and view.state == "finished" and view.dataset == name)  # fmt: skip
    return Wish(name, runs, family)


def being_measured(views: Sequence[RunView], dataset: str | None) -> int:
    """How many cells of the dataset are being measured now."""
    return sum(view.kind == "cell" and view.state == "running" and view.dataset == dataset for view in views)


class SweepFeed:
    """Reads a workspace again and again; files that have not changed are not read twice."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._board = Board()
        self._reader: Reader | None = None
        self._points: Points | None = None
        self._state: object = None

    def read(self, wish: Wish) -> Board:
        """What there is. Of a dataset that is gone or damaged, what was read of it before, with the reason."""
        try:
            return self._read(wish, tuple(self.workspace.datasets()))
        except OSError as error:
            return self._in_trouble(wish, (), f"{error.filename or self.workspace.root}: {error.strerror or error}")
        except MetaVQAError as error:
            return self._in_trouble(wish, self._board.datasets, str(error))
        except Exception as error:  # whatever stands in a file: the room says it and looks again
            named = f"{type(error).__name__}: {error}"
            return self._in_trouble(wish, self._board.datasets, f"what was measured cannot be read ({named})")

    def _read(self, wish: Wish, datasets: tuple[str, ...]) -> Board:
        from metavqa_cli.engine.curves import Points, sweep  # with numpy, which the first paint does without
        from metavqa_cli.engine.swept import Reader

        name = wish.dataset or (datasets[0] if datasets else None)
        if name is None:
            return self._in_trouble(wish, datasets, NO_DATASET.format(self.workspace.root))
        if self._reader is None or self._points is None:
            self._reader, self._points = Reader(self.workspace), Points()
        runs = [Run(path) for path in wish.runs]
        swept = self._reader.read(name, runs)
        family = wish.family if wish.family in swept.families else ""
        state = (name, datasets, family, swept.measured, swept.problems, swept.tasks)
        if state != self._state or self._board.trouble:
            self._state = state
            places, drawn = self._places(name, swept), sweep(swept, family, points=self._points)
            self._board = Board(name, datasets, swept, drawn, places, _preset(runs), problems=swept.problems)
        return self._board

    def _in_trouble(self, wish: Wish, datasets: tuple[str, ...], trouble: str) -> Board:
        before = self._board if wish.dataset in (None, self._board.dataset) else Board(wish.dataset)
        if (before.trouble, before.datasets) != (trouble, datasets):
            before = replace(before, trouble=trouble, datasets=datasets)
        self._board = before
        return before

    def _places(self, name: str, swept: "Swept") -> dict[str, ImageFile]:
        """Where the query images are; without an index that can be read, nowhere (pictures then say so one by one)."""
        from metavqa_cli.engine.contact import image_places

        if self._board.swept is not None and self._board.swept.tasks is swept.tasks:
            return self._board.places
        images = [image for task in swept.tasks for image, _ in task.query]
        try:
            return image_places(self.workspace.dataset_dir(name), images)
        except (MetaVQAError, OSError):
            return {}


def _preset(runs: Sequence[Run]) -> str:
    """The preset that the newest of the runs was made with; without a run that tells, the usual one."""
    try:
        return fitting_preset(runs[-1].config()) if runs else DEFAULT_PRESET
    except (MetaVQAError, OSError):
        return DEFAULT_PRESET
