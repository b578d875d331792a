"""What a cell of the results table is, and what a finished one measured. Without torch."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from metavqa_cli.engine.kept import kept_arrays
from metavqa_cli.engine.predictions import ANSWERS
from metavqa_cli.engine.table import Score, Setting
from metavqa_cli.methods.registry import BY_KEY, Control
from metavqa_cli.store.runs import Run

if TYPE_CHECKING:
    from metavqa_cli.engine.session import Session


@dataclass(frozen=True)
class CellSpec:
    """Which cell: the method, its seed, the share of questions it may read, γ, and what replaces the question."""

    method: str
    seed: int
    descriptors: float = 1.0
    gamma: float | None = None
    control: Control | None = None

    def session(self, session: "Session") -> "Session":
        """The session of the job that measures this cell."""
        config = session.config
        values = {
            "seed": self.seed,
            "questions": config.questions.model_copy(update={"descriptors": self.descriptors}),
        }
        if self.method == "gp":
            values["ldm"] = config.ldm.model_copy(update={"anchor": True})
        if BY_KEY[self.method].plain:
            values["ldm"] = config.ldm.model_copy(update={"anchor": False})
            values["sampling"] = config.sampling.model_copy(update={"temperature": 1.0, "latents": 1})
        return replace(session, config=config.model_copy(update=values))


def scores_of(run: Run, spec: CellSpec) -> list[Score]:
    """What the finished cell measured, zero-shot first. Errors as ``load_arrays``."""
    method, result = BY_KEY[spec.method], run.result() or {}
    arrays = kept_arrays(run)
    fixed = run.config().get("ldm", {}).get("gamma") if spec.gamma is None else spec.gamma
    validated = method.gammas is not None and fixed is None
    return [
        Score(
            spec.method, method.label, "control" if spec.control else cast(Setting, name),
            spec.descriptors if method.conditional else 1.0, result["gamma"], validated, spec.seed,
            result["sampler"], arrays[name], spec.control, result.get("trust"), arrays.get(f"{name}.{ANSWERS}"),
        )
        for name in sorted(arrays, reverse=True) if not name.endswith(ANSWERS)
    ]  # fmt: skip
