"""What every source but the built-in world gives: tasks, where their images are, and what annotators said."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from metavqa_cli.store.images import ImageFile
from metavqa_cli.tasks.annotations import Annotations
from metavqa_cli.tasks.taskset import TaskSet

Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much


def unwatched(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Material:
    """Tasks in the release's order (training and validation tasks mixed, then test tasks).

    ``images`` holds every image that a task uses and that was found; ``missing`` names the others, sorted. Both are
    empty when only tasks were asked for. ``notes`` are sentences for the person watching.
    """

    tasks: TaskSet
    images: Mapping[str, ImageFile] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    annotations: Annotations | None = None
    notes: tuple[str, ...] = ()
