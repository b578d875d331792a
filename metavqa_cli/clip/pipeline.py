"""Image files to embeddings, with worker processes that decode and resize ahead of the encoder.

A batch is a slice of the list of files, whoever decodes it, so neither the number of workers nor their pace changes a
value. Workers hand over RGB bytes; the encoder's device makes floats of them.
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from metavqa_cli.clip.decoding import Decoded, Shaping, decode, image_bytes
from metavqa_cli.schema.errors import JobError, MetaVQAError
from metavqa_cli.store.images import ImageFile
from metavqa_cli.store.workers import follow_parent

if TYPE_CHECKING:
    from metavqa_cli.clip.encoder import ClipEncoder

FEW = 256  # images that are decoded before worker processes would have started
RUN = 8  # images a worker decodes at a time: 3 MB to hand over at 336 pixels
LOOK_SECONDS, GRACE_SECONDS = 1.0, 5.0  # between looks for dead workers, and that a pool has to notice one itself
AHEAD = 3  # batches decoded ahead of the encoder, at least


@dataclass(frozen=True, eq=False)
class Encoded:
    """The files from ``first`` on, ``count`` of them: embeddings of the good ones, and why the others are broken.

    ``features`` are float32 ``[good, embed]`` on the CPU, unit norm, in the order of the files; ``broken`` has the
    position of each broken file in the whole list with its error (``str(error)`` is the sentence for a person).
    """

    first: int
    count: int
    features: Float[Tensor, "good embed"]
    broken: tuple[tuple[int, MetaVQAError], ...]


def encode_images_of(
    encoder: "ClipEncoder",
    files: Sequence[Path | ImageFile],
    *,
    batch: int = 256,
    workers: int = 0,
    every: int = 0,
) -> Iterator[Encoded]:
    """Embed ``files`` in their order, ``batch`` at a time; broken ones are reported and leave the others alone.

    ``workers`` processes decode ahead (0: as many as cores); few files, or one worker, are decoded in a thread. No
    batch crosses a multiple of ``every`` files, so that shards of so many have the same rows whenever they are made.
    The same files, batch and machine give the same bits. ``JobError`` when a worker process is killed.
    """
    bounds = batch_bounds(len(files), batch, every)
    with _decoders(workers or os.cpu_count() or 1, len(files)) as pool:
        sent: deque[_Sent] = deque()
        for first, count, runs in _decoded(pool, files, bounds, encoder.shaping):
            sent.append(_send(encoder, first, count, runs))
            if len(sent) > (encoder.device.type == "cuda"):  # a GPU has its next batch before the last one is awaited
                yield sent.popleft().received()
        for last in sent:
            yield last.received()


def batch_bounds(total: int, batch: int, every: int = 0) -> list[tuple[int, int]]:
    """First and last (exclusive) file of each batch; none crosses a multiple of ``every``."""
    block = every or max(total, 1)
    starts = [start for low in range(0, total, block) for start in range(low, min(low + block, total), batch)]
    return list(zip(starts, [*starts[1:], total], strict=False))


@contextmanager
def _decoders(workers: int, total: int) -> Iterator[Executor]:
    """Where decoding happens. What was not begun is dropped on the way out, however that is."""
    few = workers <= 1 or total < FEW
    pool: Executor = (
        ThreadPoolExecutor(1)
        if few
        else ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), follow_parent)
    )
    over = threading.Event()
    if isinstance(pool, ProcessPoolExecutor):
        threading.Thread(target=_free, args=(pool, over), name="broken pools", daemon=True).start()
    try:
        yield pool
    except BrokenProcessPool:
        raise JobError(
            f"one of {workers} processes that decode images was killed, perhaps for its memory; run the same command "
            f"again with fewer of them (--set runtime.workers={max(1, workers // 2)})"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        over.set()


def _free(pool: ProcessPoolExecutor, over: threading.Event) -> None:
    """A worker that is killed in the middle of an answer leaves the pool reading the rest of it for ever.

    When one has ended and the pool is not over soon, the others are ended too and the answers' pipe is closed, which
    the pool then takes for what it is: broken.
    """
    while not over.wait(LOOK_SECONDS):
        processes = list((pool._processes or {}).values())
        if wait([process.sentinel for process in processes], timeout=0) and not over.wait(GRACE_SECONDS):
            for process in processes:
                process.kill()
            pool._result_queue._writer.close()  # type: ignore[attr-defined]  # else it is open at this end
            return


def _decoded(
    pool: Executor, files: Sequence[Path | ImageFile], bounds: Sequence[tuple[int, int]], shaping: Shaping
) -> Iterator[tuple[int, int, list[Decoded]]]:
    """First file, number of files and pixels of each batch, with enough others under way to keep every worker busy."""
    workers = getattr(pool, "_max_workers", 1)
    widest = max((last - first for first, last in bounds), default=1)
    run = max(1, min(RUN, -(-widest // workers)))
    waiting: deque[tuple[int, int, list[Future[Decoded]]]] = deque()
    upcoming = iter(bounds)

    def submit(count: int) -> None:
        for first, last in islice(upcoming, count):
            cuts = range(first, last, run)
            runs = [pool.submit(decode, files[cut : min(cut + run, last)], shaping) for cut in cuts]
            waiting.append((first, last - first, runs))

    submit(max(AHEAD, 1 + -(-2 * workers * run // widest)))
    while waiting:
        first, count, runs = waiting.popleft()
        decoded = [future.result() for future in runs]
        submit(1)
        yield first, count, decoded


@dataclass(frozen=True, eq=False)
class _Sent:
    """A batch that the device is at work on; ``done`` is None where nothing is asynchronous."""

    first: int
    count: int
    features: Tensor
    broken: tuple[tuple[int, MetaVQAError], ...]
    done: "torch.cuda.Event | None"

    def received(self) -> Encoded:
        if self.done is not None:
            self.done.synchronize()
        return Encoded(self.first, self.count, self.features, self.broken)


def _send(encoder: "ClipEncoder", first: int, count: int, runs: Sequence[Decoded]) -> _Sent:
    """Start encoding a batch. The copies to and from a GPU do not wait for each other."""
    broken, at = [], first
    for run in runs:
        broken += [(at + number, error) for number, error in run.broken]
        at += run.good + len(run.broken)
    pixels = stack_pixels([run.pixels for run in runs], encoder.shaping, encoder.device.type == "cuda")
    if not len(pixels):
        return _Sent(first, count, torch.zeros(0, encoder.embed), tuple(broken), None)
    features = encoder.encode_pixels(pixels)
    if features.device.type != "cuda":
        return _Sent(first, count, features.cpu(), tuple(broken), None)
    host = torch.empty(features.shape, pin_memory=True)
    host.copy_(features, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(features.device))
    return _Sent(first, count, host, tuple(broken), done)


def stack_pixels(
    runs: Sequence[bytes], shaping: Shaping, pinned: bool = False
) -> UInt8[Tensor, "image height width 3"]:
    """The shaped images in ``runs`` (any number of whole images each) as one tensor on the CPU."""
    total = sum(map(len, runs)) // image_bytes(shaping)
    pixels = torch.empty((total, shaping.height, shaping.width, 3), dtype=torch.uint8, pin_memory=pinned)
    flat, at = pixels.view(-1).numpy(), 0
    for run in runs:
        flat[at : at + len(run)] = np.frombuffer(run, np.uint8)
        at += len(run)
    return pixels
