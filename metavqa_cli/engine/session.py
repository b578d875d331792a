"""What every engine verb needs to know: where things are, the configuration, and the device."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from metavqa_cli.clip.encoder import ClipEncoder, load_encoder
from metavqa_cli.engine.precision import Arithmetic, arithmetic
from metavqa_cli.engine.torchrun import Place, place
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import DeviceError, JobError
from metavqa_cli.store.locks import PATIENCE_SECONDS
from metavqa_cli.store.workspace import Workspace


@dataclass(frozen=True)
class Session:
    """One command's view of the world.

    ``force`` repeats what is already finished; ``resume`` is the id of the unfinished run that the job must go on with,
    with ``override`` also in another configuration than its own;
    ``patience`` is how many seconds to wait for a run that another process is making.
    """

    workspace: Workspace
    config: Config
    force: bool = False
    resume: str | None = None
    patience: float = PATIENCE_SECONDS
    override: bool = False

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.config.runtime.device, place())

    def arithmetic(self, part: str) -> Arithmetic:
        """What ``part`` is to be computed in (``precision.arithmetic``)."""
        return arithmetic(self.config.runtime.precision, self.device, part)

    @cached_property
    def encoder(self) -> ClipEncoder:
        """The CLIP model of the configuration, loaded when first asked for."""
        clip = self.config.clip
        return load_encoder(clip.model, self.device, resize=clip.resize, precision=clip.precision)

    def unforced(self) -> "Session":
        """The same session for parents, which are reused even when the job itself is repeated or resumed."""
        return replace(self, force=False, resume=None, override=False)


CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
DEVICES = ("cpu", "cuda", "mps")


def choose_device(name: str, mine: Place | None = None) -> torch.device:
    """auto is the GPU when there is one; of several processes on a machine each has its own.

    Raises ``DeviceError`` for a device that is not there.
    """
    if mine is not None and mine.size > 1:
        return _own_device(name, mine)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError("metavqa runs on " + ", ".join(DEVICES))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise DeviceError(f"the device {name!r} cannot be used ({reason}); use --device auto or cpu") from None
    return device


def _own_device(name: str, mine: Place) -> torch.device:
    """What ``name`` means for one of several processes."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        if mine.local_rank >= (found := torch.cuda.device_count()):
            raise DeviceError(
                f"process {mine.local_rank + 1} of this machine has no GPU of its own, there are {found}; "
                f"use torchrun --nproc-per-node {found}, or --device cpu"
            )
        return choose_device(f"cuda:{mine.local_rank}")
    if name.startswith("cuda:"):
        raise DeviceError(f"{mine.size} processes cannot share the device {name!r}; use --device cuda or auto")
    return choose_device("cpu" if name == "auto" else name)


@contextmanager
def torch_explained() -> Iterator[None]:
    """Turn a failed allocation, in the memory of the CPU or of a GPU, into a ``DeviceError``, and an operation that
    ``runtime.deterministic`` forbids into a ``JobError``, each with the way out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        if torch.are_deterministic_algorithms_enabled() and "eterministic" in reason:
            raise JobError(_nondeterministic(str(error))) from error
        if not (isinstance(error, MemoryError) or "out of memory" in reason or "DefaultCPUAllocator" in reason):
            raise
        way_out = "make the batch or the network smaller (--set), or choose another --device"
        raise DeviceError(f"out of memory ({reason}); {way_out}") from error


def _nondeterministic(text: str) -> str:
    """What torch says of an operation that cannot be deterministic, in one sentence with the way out."""
    way_out = "choose another --device, or leave --deterministic (runtime.deterministic) out"
    if CUBLAS in text:
        return f"with {CUBLAS}={os.environ.get(CUBLAS)} products on a GPU are not deterministic; unset it, or {way_out}"
    return f"{text.partition(', but ')[0].partition('. ')[0]}; {way_out}"


def prepare_torch(config: Config) -> None:
    """Threads, reproducibility and the arithmetic of a GPU for this process. ``DeviceError`` as ``choose_device``.

    With ``runtime.deterministic`` operations that may round otherwise each time are errors (``torch_explained``), and
    the number of threads, which decides in what order a CPU adds, does not depend on the machine.
    """
    fixed = config.runtime.deterministic
    if threads := config.runtime.threads or int(fixed):
        torch.set_num_threads(threads)
    if fixed:
        os.environ.setdefault(CUBLAS, ":4096:8")  # read when CUDA starts
    if torch.are_deterministic_algorithms_enabled() != fixed:  # to say it imports torch's compiler, which takes 1 s
        torch.use_deterministic_algorithms(fixed)
    torch.backends.cudnn.benchmark = False
    if choose_device(config.runtime.device, place()).type == "cuda":  # elsewhere the setting means other arithmetic
        torch.set_float32_matmul_precision("highest" if config.runtime.precision == "fp32" else "high")


@contextmanager
def fewer_threads(small: bool) -> Iterator[None]:
    """One thread while the operations are ``small``, too small to be shared out.

    A second thread then saves nothing on idle cores; on busy ones each operation waits until it has its turn (eight
    images and a question beside other jobs on two cores: 700 ms with two threads, 80 with one).
    """
    before = torch.get_num_threads()
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
