"""The denoiser as a CUDA graph: for few questions a step is launched in one go, instead of kernel by kernel.

A step of the paper's denoiser for one question reads 1.2 GB of bf16 weights, 0.3 ms of an H200, in some 60 kernels,
whose launches take the host about as long. What is replayed is what was recorded, with the same numbers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

ROWS = 64
"""Beyond so many rows, arithmetic hides the launches."""
SHAPES = 4
"""Graphs kept at once, one for each number of rows; the one recorded first goes first."""

Work = Callable[[], Tensor]
Recorder = Callable[[Work], tuple[Callable[[], object], Tensor]]
"""Runs ``work``, perhaps more than once; returns what repeats it, and the tensor in which its result then always is."""


def cuda_recorder(work: Work) -> tuple[Callable[[], object], Tensor]:
    """``work`` as a CUDA graph on the current GPU. ``RuntimeError`` where it cannot be recorded."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose kernels and allocate on the first calls, which no graph may
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):  # its own would be on the GPU of the first graph
        result = work()
    return graph.replay, result


class Replayed(nn.Module):
    """``denoiser``, whose calls with few rows are recorded when first made and then replayed; without gradients.

    The parameters may change in place, not move. What cannot be recorded is called as it is, from then on; what has
    no memory to be recorded in, this time.
    """

    def __init__(self, denoiser: nn.Module, record: Recorder = cuda_recorder) -> None:
        super().__init__()
        self.denoiser, self.latent, self._record = denoiser, denoiser.latent, record
        self._graphs: dict[object, tuple[tuple[Tensor, ...], Callable[[], object], Tensor]] = {}
        self._works = True

    def forward(self, *inputs: Tensor) -> Tensor:
        if not self._works or len(inputs[0]) > ROWS or torch.is_grad_enabled():
            return self._plain(*inputs)
        key = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        try:
            with torch.cuda.device_of(inputs[0]):
                own, replay, result = self._graphs.get(key) or self._recorded(key, inputs)
        except torch.OutOfMemoryError:
            return self._plain(*inputs)
        except RuntimeError:  # a driver or an operation that knows no graphs
            self._works = False
            return self._plain(*inputs)
        for mine, given in zip(own, inputs, strict=True):
            mine.copy_(given)
        replay()
        return result.clone()  # the next replay writes where this one did

    def _plain(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.denoiser(*inputs)
        return result

    def _recorded(
        self, key: object, inputs: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], Callable[[], object], Tensor]:
        own = tuple(tensor.clone() for tensor in inputs)
        made = (own, *self._record(lambda: self._plain(*own)))
        while len(self._graphs) >= SHAPES:
            del self._graphs[next(iter(self._graphs))]
        self._graphs[key] = made
        return made
