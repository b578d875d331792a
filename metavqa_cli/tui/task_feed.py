"""What the room Tasks knows: a dataset's tasks, where its images are, and what was measured on it. For one thread."""

import gc
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from metavqa_cli.engine.contact import Pair, choose, image_places, pairs_of
from metavqa_cli.engine.manifest import check_recorded, read_manifest
from metavqa_cli.engine.site import IMAGES, INDEX, MANIFEST, TASKS
from metavqa_cli.schema.errors import MetaVQAError
from metavqa_cli.store.images import ImageFile
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.taskset import Task, TaskSet, load_tasks
from metavqa_cli.tui.feed import RunView
from metavqa_cli.tui.task_list import TaskRow, rows_of
from metavqa_cli.tui.task_methods import Method, methods_of

MEASURING = ("cell", "eval")
NONE_YET = (
    "There is no dataset in {}. `metavqa dataset build` makes one of built-in scenes, `metavqa dataset build --help` "
    "says how to make one of your own questions, and `metavqa quickstart` makes one and trains on it."
)


@dataclass(frozen=True, eq=False)
class Book:
    """A dataset to look at. Parts that have not changed are the same objects as before.

    ``trouble`` says what is wrong with what is shown, ``no_images`` why there are none, ``problems`` which runs could
    not be read.
    """

    dataset: str | None = None
    folder: Path | None = None
    tasks: tuple[Task, ...] = ()
    rows: tuple[TaskRow, ...] = ()
    places: dict[str, ImageFile] = field(default_factory=dict)
    no_images: str | None = None
    methods: tuple[Method, ...] = ()
    problems: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    trouble: str | None = None


@dataclass(frozen=True)
class Wish:
    """What to read: the dataset asked for by name (None: that of the newest run, ``newest``, or the first), the runs
    that may have measured it, and those of them that are selected."""

    dataset: str | None = None
    newest: str | None = None
    runs: tuple[RunView, ...] = ()
    selected: tuple[str, ...] = ()


def plain_file(pair: Pair) -> Path | None:
    """The image's own file; None for one that is packed in a zip, or that the dataset does not have."""
    return None if pair.place is None or pair.place.packed else pair.place.path


def query_files(book: Book, number: int, most: int) -> list[Path]:
    """At most so many files of query images of the task at this place, as evenly over its answers as there are."""
    pairs = pairs_of(book.tasks[number], book.places, ["query"])
    chosen = choose([pair for pair in pairs if plain_file(pair)], most)
    return [path for pair in chosen if (path := plain_file(pair))]


class TaskFeed:
    """Reads a workspace again and again; files that have not changed are not read twice."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._book = Book()
        self._stamp: object = None
        self._reader: object = None
        self._measured: tuple[object, ...] = ()

    def read(self, wish: Wish) -> Iterator[Book]:
        """First the tasks, then, if there is something to add, the same with what was measured on them."""
        yield self._read_tasks(wish)
        if self._book.tasks and not self._book.trouble:
            before = self._book
            after = self._read_methods(wish)
            if after is not before:
                yield after

    def _read_tasks(self, wish: Wish) -> Book:
        try:
            names = tuple(self.workspace.datasets())
        except OSError as error:
            folder = self.workspace.datasets_dir
            return self._in_trouble(f"{folder} cannot be listed: {error.strerror or error}; check its permissions")
        self._book = replace(self._book, datasets=names)
        name = self._name(wish, names)
        if name is None:
            return self._in_trouble(NONE_YET.format(self.workspace.root))
        if name not in names:
            return self._gone(name, names)
        folder = self.workspace.dataset_dir(name)
        stamp = (name, *(_stamp(folder / file) for file in (MANIFEST, TASKS, INDEX, IMAGES)))
        if stamp != self._stamp:
            self._load(name, folder, stamp)
        return self._book

    def _name(self, wish: Wish, names: Sequence[str]) -> str | None:
        if wish.dataset is not None:
            return wish.dataset
        if wish.newest in names:
            return wish.newest
        return self._book.dataset or (names[0] if names else None)

    def _gone(self, name: str, names: Sequence[str]) -> Book:
        if name == self._book.dataset:
            return self._in_trouble(f"the dataset {name!r} is gone; what is shown is how it was")
        others = f"o chooses one of {', '.join(names)}" if names else "`metavqa dataset build` makes one"
        self._book = Book(datasets=tuple(names))
        return self._in_trouble(f"there is no dataset {name!r} in {self.workspace.root}; {others}")

    def _in_trouble(self, sentence: str) -> Book:
        self._stamp = None  # once this is over, all is read anew
        if self._book.trouble != sentence:
            self._book = replace(self._book, trouble=sentence)
        return self._book

    def give_up(self, error: Exception) -> Book:
        """What was read before, with what kept this look from its end: something that no reader foresaw."""
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        return self._in_trouble(f"the dataset cannot be read ({what}); `metavqa dataset verify` tells more")

    def _load(self, name: str, folder: Path, stamp: object) -> None:
        """Read the dataset anew. If it is damaged, what was read of it before stays."""
        self._stamp, self._measured = stamp, ()
        try:
            check_recorded(folder, TASKS)
            tasks: TaskSet = load_tasks(folder / TASKS)
        except (MetaVQAError, OSError) as error:
            before = self._book if self._book.dataset == name else Book(name, folder, datasets=self._book.datasets)
            self._book = replace(before, trouble=str(error))
            return
        places, no_images = _places(folder, tasks)
        self._book = Book(
            name, folder, tuple(tasks.tasks), rows_of(tasks.tasks), places, no_images, datasets=self._book.datasets,
            trouble=None if tasks.tasks else f"the dataset {name!r} has no tasks; build it again with --force",
        )  # fmt: skip
        _keep()

    def _read_methods(self, wish: Wish) -> Book:
        from metavqa_cli.engine.swept import Reader  # with numpy, which the first paint does without

        book = self._book
        assert book.dataset is not None
        reader = self._reader if isinstance(self._reader, Reader) else Reader(self.workspace)
        self._reader = reader
        runs = [Run(view.path) for view in wish.runs if view.dataset == book.dataset and view.kind in MEASURING]
        try:
            swept = reader.read(book.dataset, runs)
        except (MetaVQAError, OSError) as error:
            self._measured = ()
            if book.methods or book.problems != (str(error),):
                self._book = replace(book, methods=(), problems=(str(error),))
            return self._book
        measured = (wish.selected, swept.problems, *map(id, swept.measured))
        if measured != self._measured:
            numbers = [number for number, task in enumerate(book.tasks) if task.split == "test"]
            self._measured = measured
            self._book = replace(book, methods=methods_of(swept, numbers, wish.selected), problems=swept.problems)
            _keep()
        return self._book


def _keep() -> None:
    """What was read stays: spare the garbage collector to walk through it again and again, 0.1 s without a key each
    time for 2,000 tasks."""
    gc.freeze()


def wish_of(dataset: str | None, views: Sequence[RunView], selected: Collection[str]) -> Wish:
    """The wish of a dashboard that knows these runs, oldest first."""
    newest = next((view.dataset for view in reversed(views) if view.dataset), None)
    runs = tuple(view for view in views if view.kind in MEASURING and view.state == "finished")
    return Wish(dataset, newest, runs, tuple(selected))


def _places(folder: Path, tasks: TaskSet) -> tuple[dict[str, ImageFile], str | None]:
    """Where the images are, and why there are none."""
    try:
        places = image_places(folder, tasks.image_ids())
    except (MetaVQAError, OSError) as error:
        return {}, str(error)
    return places, None if places else _why_no_images(folder)


def _why_no_images(folder: Path) -> str:
    try:
        tasks_only = read_manifest(folder).get("encoder") is None
    except (MetaVQAError, OSError) as error:
        return str(error)
    if tasks_only:
        return f"the dataset {folder.name!r} has tasks only, no images; build it without --tasks-only to see them"
    return (
        f"the images of the dataset {folder.name!r} are gone: there is neither {folder / INDEX} nor {folder / IMAGES}"
    )


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written; nothing where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
