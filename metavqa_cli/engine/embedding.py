"""The second half of a build: every image and text of the tasks through CLIP, a shard at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from metavqa_cli.clip.pipeline import Encoded, encode_images_of
from metavqa_cli.engine.dataset import DatasetFolder
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.site import FEATURES, TEXTS, Shard
from metavqa_cli.schema.events import Event, Narrated, ProgressMade
from metavqa_cli.store.features import check_finite, write_features
from metavqa_cli.store.shards import SHARD, Broken, read_shard_state, shard_broken, shard_names, slices, write_shard
from metavqa_cli.tasks.taskset import TaskSet

TEXT_BATCH = 512
KIND = "images"
WHOLE: Shard = (1, 1)


def embedded_images(session: Session, work: Path, images: list[str], part: Shard = WHOLE) -> Iterator[Event]:
    """Write the features of every ``part[1]``-th shard of ``images``, from the ``part[0]``-th, that is not there yet.

    A shard with broken images is made again, since they may have been mended, unless they are to be left out.
    """
    yield from (Narrated(note) for note in session.encoder.notes)
    places = DatasetFolder(work).image_files
    paths, those = _paths(work, images), slices(images)
    mine = list(range(part[0] - 1, len(paths), part[1]))
    todo = [k for k in mine if not _is_done(paths[k], those[k], session, len(images))]
    total, skipped = sum(len(those[k]) for k in mine), sum(len(those[k]) for k in mine if k not in todo)
    made = _Making([image for k in todo for image in those[k]])
    settings = session.config.runtime
    files = [places[image] for image in made.images]
    for batch in encode_images_of(
        session.encoder, files, batch=settings.image_batch, workers=settings.workers, every=SHARD
    ):
        end = made.take(batch)
        if end % SHARD == 0 or end == len(files):  # the last image of a shard: only the very last is shorter
            k = todo[(end - 1) // SHARD]
            made.write(paths[k], those[k], k * SHARD, len(images), session)
        yield ProgressMade("embedding images", skipped + end, total, "images")


class _Making:
    """The rows and the broken images of the shard that is being made."""

    def __init__(self, images: list[str]) -> None:
        self.images = images
        self.rows: list[np.ndarray] = []
        self.broken: list[tuple[str, str]] = []

    def take(self, batch: Encoded) -> int:
        """Keep a batch; returns how many images were taken in all. ``JobError`` when rows of it are not finite."""
        lost, end = {at for at, _ in batch.broken}, batch.first + batch.count
        check_finite([self.images[at] for at in range(batch.first, end) if at not in lost], batch.features.numpy())
        self.rows.append(batch.features.numpy())
        self.broken += [(self.images[at], str(error)) for at, error in batch.broken]
        return end

    def write(self, path: Path, ids: Sequence[str], first: int, total: int, session: Session) -> None:
        """Write the shard and begin the next one."""
        identity = session.encoder.identity
        write_shard(
            path, ids, np.concatenate(self.rows), encoder=identity, first=first, total=total, broken=self.broken
        )
        self.rows, self.broken = [], []


def _paths(work: Path, images: Sequence[str]) -> list[Path]:
    return [work / FEATURES / name for name in shard_names(KIND, len(images))]


def _is_done(path: Path, ids: Sequence[str], session: Session, total: int) -> bool:
    if read_shard_state(path, ids, session.encoder.identity, total) != "finished":
        return False
    return session.config.dataset.skip_broken or not shard_broken(path)


def missing_shards(session: Session, work: Path, images: list[str]) -> list[str]:
    """The shards of ``images`` that nobody has made yet."""
    identity, total = session.encoder.identity, len(images)
    pairs = zip(_paths(work, images), slices(images), strict=True)
    return [path.name for path, ids in pairs if read_shard_state(path, ids, identity, total) != "finished"]


def remove_other_shards(work: Path, images: Sequence[str]) -> None:
    """Remove shards that an interrupted build made of another number of images."""
    for stale in {*(work / FEATURES).glob(f"{KIND}*.safetensors")} - {*_paths(work, images)}:
        stale.unlink()


def broken_images(work: Path, images: list[str]) -> Broken:
    """The images that could not be read, with the reason, in the order of ``images``."""
    return tuple(pair for path in _paths(work, images) for pair in shard_broken(path))


def embedded_texts(session: Session, work: Path, tasks: TaskSet) -> Iterator[Event]:
    """Write the features of every question and statement, unless they are there; narrates those that are cut."""
    encoder, texts, path = session.encoder, tasks.texts(), work / FEATURES / TEXTS
    cut = [text for text in texts if is_cut(session, text)]
    if cut:
        limit = f"more than {encoder.context_length} tokens, of which the encoder reads the first"
        yield Narrated(f"{len(cut):,} of {len(texts):,} questions and statements have {limit}, e.g. {cut[0]!r}")
    if read_shard_state(path, texts, encoder.identity) == "finished":
        return
    rows: list[np.ndarray] = []
    for start in range(0, len(texts), TEXT_BATCH):
        rows.append(encoder.encode_text(texts[start : start + TEXT_BATCH]).cpu().numpy())
        yield ProgressMade("embedding texts", min(start + TEXT_BATCH, len(texts)), len(texts), "texts")
    write_features(path, texts, np.concatenate(rows), {"encoder": encoder.identity})


def is_cut(session: Session, text: str) -> bool:
    """Whether the encoder does not see the whole of ``text``. A text of few bytes has as few tokens."""
    return len(text.encode()) + 2 > session.encoder.context_length and session.encoder.is_too_long(text)
