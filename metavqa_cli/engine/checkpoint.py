"""What a training has to remember to go on as if nothing had happened, and its file."""

import math
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metavqa_cli.engine.finite import Average, Finite, Trend
from metavqa_cli.engine.world import World
from metavqa_cli.schema.errors import BusyError, JobError
from metavqa_cli.schema.strict import check_types
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors, read_header, save_tensors

HEADER: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "best": (int, float, type(None)),
    "best_step": int,
    "since_best": int,
}


@dataclass
class Progress:
    """Where a training stands."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    since_best: int = 0
    validated: int = 0
    """The step of the last validation."""
    best_state: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class State:
    """Everything that a training step changes."""

    module: nn.Module
    average: Average | None
    optimizer: torch.optim.Optimizer
    finite: Finite
    progress: Progress = field(default_factory=Progress)

    def save(self, run: Run) -> None:
        """Write the checkpoint of ``run``, which vouches for what the log says so far."""
        progress = self.progress
        tensors = {f"model/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in progress.best_state.items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
        finite = progress.best if math.isfinite(progress.best) else None
        header = {"run": run.id, "step": progress.step, "best": finite, "best_step": progress.best_step,
                  "since_best": progress.since_best, "validated": progress.validated,
                  "trend": self.finite.trend.to_dict(), "log": run.mark_log()}  # fmt: skip
        save_tensors(run.state_path, tensors, header)

    def restore(self, run: Run) -> None:
        """Go back to the checkpoint of ``run``. ``JobError`` when it is not intact, or of another training."""
        remedy = f"start again with `metavqa runs rm {run.id}`"
        tensors, header = load_tensors(run.state_path, remedy=remedy)
        run.own(run.state_path, header, remedy)
        try:
            self._take(tensors, header)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            if isinstance(error, RuntimeError) and "state_dict" not in reason:  # such as a GPU without enough memory
                raise
            raise JobError(f"{run.state_path} is no checkpoint of this training ({reason}); {remedy}") from error

    def _take(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Everything as the checkpoint has it; a built-in exception when it does not fit."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

        check_types(header, HEADER)
        self.module.load_state_dict(part("model/"))
        if self.average is not None:
            self.average.load_state_dict(part("average/"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer/").items():
            index, _, key = name.partition("/")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.finite.trend = Trend(**header.get("trend", {}))
        best = -math.inf if header["best"] is None else header["best"]
        validated = header.get("validated", header["step"])
        self.progress = Progress(
            header["step"], best, header["best_step"], header["since_best"], validated, part("best/")
        )  # fmt: skip

    def rescue(self, run: Run, world: World) -> bool:
        """Write the checkpoint because another process is missing; whether this process was the one to do it.

        The first one does. If it is itself the one that is missing, nobody holds the run any more, and one that is
        left does, unless there is a newer checkpoint. Nobody does after a gradient that was not finite.
        """
        with suppress(BusyError), nullcontext() if world.first else run.lock(), _beside(self.module):
            if self.finite.failed.item():
                return False
            if self.progress.step > saved_step(run):
                self.save(run)
            return True
        return False


def saved_step(run: Run) -> int:
    """The step of the checkpoint of ``run``; -1 without a good one."""
    with suppress(JobError, KeyError):
        return int(read_header(run.state_path)["step"]) if run.state_path.exists() else -1
    return -1


def _beside(module: nn.Module) -> torch.cuda.StreamContext | nullcontext[None]:
    """On a GPU whose stream waits for gradients that will not come: copy beside it. Nothing has changed since."""
    device = next(module.parameters()).device
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()
