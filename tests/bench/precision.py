"""What bf16 costs in accuracy: ``python -m tests.bench.precision WORKSPACE [PART…]``.

Each part is trained twice from the same seed on the dataset and the runs of a finished workspace of the tiny preset, in
fp32 and in bf16, and measured on the test tasks: the paired difference in points, with its 95 % interval over tasks.
The outcome is ``engine.precision.TOLERANT``. ``sampling`` trains nothing: it samples the newest HyperLDM in both.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
import torch

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine import measure
from metavqa_cli.engine.baselines import PATIENCE, baseline_training
from metavqa_cli.engine.contrast import HyperclipTraining
from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.diffusion import HyperLdm, LdmTraining, question_seeds
from metavqa_cli.engine.generators import Decoder, HvaeTraining, TaskLatentTraining
from metavqa_cli.engine.loop import train
from metavqa_cli.engine.measure import training_plan
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.precision import Arithmetic
from metavqa_cli.engine.regression import RegressionTraining, Target
from metavqa_cli.engine.statistics import Estimate, estimate
from metavqa_cli.guidance.hyperclip import rank_questions
from metavqa_cli.schema.config import BaselineMethod, Config, Runtime
from metavqa_cli.store import runs
from metavqa_cli.store.workspace import Workspace
from tests.bench import report

CPU = torch.device("cpu")
BASELINES = get_args(BaselineMethod)
PARTS = (*BASELINES, "weights", "task", "hyperclip", "regression", "ldm", "sampling")
RESAMPLES = 5_000


class Bench:
    """The finished workspace, and what trainings are made of."""

    def __init__(self, root: Path, config: Config, device: torch.device = CPU) -> None:
        self.workspace, self.config, self.device = Workspace(root), config, device
        folder = open_dataset(self.workspace, config.dataset.name)
        self.arenas = {split: folder.arena(split, device) for split in ("train", "validation", "test")}  # type: ignore[arg-type]
        kinds = (("baseline", "multitask"), ("zoo", None), ("hvae", "task"), ("ldm", "task"))
        self.runs = {kind: self._newest(kind, variant) for kind, variant in kinds}
        self.models = {kind: load_model(run, device) for kind, run in self.runs.items() if kind != "ldm"}
        self.layout = WeightLayout.from_dict(self.models["baseline"].header["layout"])

    def _newest(self, kind: str, variant: str | None) -> runs.Run:
        found = runs.newest(self.workspace, kind, match=lambda run: variant in (None, run.manifest().get("variant")))
        assert found is not None, f"the workspace has no finished {kind}"
        return found

    def training(self, part: str, split: str) -> Any:
        """The training of ``part``, validated on ``split``."""
        config, arenas = self.config, (self.arenas["train"], self.arenas[split])
        if part in BASELINES:
            config = config.model_copy(update={"baseline": config.baseline.model_copy(update={"method": part})})
            return baseline_training(config, self.layout, *arenas)
        if part == "weights":
            zoo = self.models["zoo"]
            if split == "test":  # the zoo has no weights of test tasks: what training tasks' weights decode to
                tensors = {**zoo.tensors, "validation": zoo.tensors["train"]}
                return HvaeTraining(config, self.layout, replace(zoo, tensors=tensors), arenas[0], arenas[0])
            return HvaeTraining(config, self.layout, zoo, *arenas)
        if part == "task":
            return TaskLatentTraining(config, self.layout, self.models["baseline"].tensors["W"], *arenas)
        if part == "hyperclip":
            return HyperclipTraining(config, Decoder(self.models["hvae"]), None, *arenas)
        if part == "regression":
            return RegressionTraining(config, Target(self.models["hvae"]), *arenas)
        return LdmTraining(config, Decoder(self.models["hvae"]), *arenas)

    def plan(self, part: str, how: Arithmetic) -> Any:
        """As the verbs plan it."""
        config, n = self.config, len(self.arenas["train"])
        if part in BASELINES:
            recipe = getattr(config.recipes, part.replace("-", "_"))
            return training_plan(config, n, recipe, patience=PATIENCE, arithmetic=how)
        if part == "weights":
            return training_plan(config, n, config.hvae, clip_apart=("encoder", "decoder"), arithmetic=how)
        if part == "task":
            pace = config.task_latents
            more: dict[str, Any] = {"rates": {"mu": pace.z_lr}, "weight_decay": pace.weight_decay, "decay": pace.decay}
            return training_plan(config, n, pace, arithmetic=how, **more)
        if part == "hyperclip":
            return training_plan(config, n, config.hyperclip, patience=PATIENCE, arithmetic=how)
        section = config.ldm if part == "ldm" else config.regression
        more = {"decay": config.ldm.decay} if part == "ldm" else {}
        return training_plan(config, n, section, ema=section.ema, arithmetic=how, **more)


@contextmanager
def recorded() -> Iterator[list[np.ndarray]]:
    """The accuracies of each task that ``mean_accuracy`` takes the mean of, in the order of its calls."""
    found: list[np.ndarray] = []
    usual = measure.accuracies

    def noting(*arguments: Any) -> torch.Tensor:
        found.append((made := usual(*arguments)).numpy())
        return made

    with patch.object(measure, "accuracies", noting):
        yield found


def trained(bench: Bench, part: str, how: Arithmetic) -> np.ndarray:
    """Accuracy of each test task after training ``part`` in ``how``."""
    training = bench.training(part, "validation")
    with tempfile.TemporaryDirectory() as folder:
        run = runs.create(Workspace(Path(folder)), "ldm", "0" * 64, {}, {}, {"name": "none", "fingerprint": "none"})
        for _ in train(run, training, bench.plan(part, how), CPU):
            pass
    judge = bench.training(part, "test")
    with torch.no_grad(), recorded() as found:
        if part == "hyperclip":
            e = judge.questions.whitener(judge.validation.e)
            ranked = rank_questions(training.module, judge.decoder.decode(judge.validation_z), e)
            return (ranked.argmax(1) == torch.arange(len(e))).float().numpy()
        judge.validate(training.module)
    return found[0]


def sampled(bench: Bench, how: Arithmetic) -> np.ndarray:
    """Accuracy of each test task by weights sampled in ``how``, at γ = 1 and 1.5."""
    runtime = Runtime(precision="bf16" if how == "bf16" else "fp32")
    ldm, test = HyperLdm(bench.runs["ldm"], CPU, bench.config.sampling, runtime), bench.arenas["test"]
    found = []
    for gamma in (1.0, 1.5):
        weights = ldm.weights(test.e, gamma, question_seeds(test, 0))
        found.append(measure.accuracies(ldm.decoder.layout, weights, test.pairs, ldm.decoder.logit_scale).numpy())
    return np.mean(found, axis=0)


def compared(bench: Bench, part: str) -> tuple[Estimate, Estimate, tuple[float, float]]:
    """fp32's accuracy, the difference that bf16 makes, and the seconds of both."""
    work: Callable[[Arithmetic], np.ndarray]
    work = (lambda how: sampled(bench, how)) if part == "sampling" else (lambda how: trained(bench, part, how))
    found, seconds = [], []
    for how in ("fp32", "bf16"):
        begun = time.perf_counter()
        found.append(work(how))  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - begun)
    return estimate(found[0], RESAMPLES), estimate(found[1] - found[0], RESAMPLES), (seconds[0], seconds[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each part as soon as it is measured."""
    parser = report.parser(__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    values: dict[str, Any] = {"ldm": {"epochs": 2}, "regression": {"epochs": 2}} if options.short else {}
    bench = Bench(options.workspace, Config.model_validate(values))
    results = []
    for part in options.parts or (["regression", "sampling"] if options.short else PARTS):
        fp32, change, (slow, fast) = compared(bench, part)
        told = f"95 % over {change.n} tasks: {change.low:+.2f} to {change.high:+.2f}; fp32 {fp32.mean:.2f} %"
        results.append(report.Result(f"{part}, bf16 − fp32", value=change.mean, unit="points",
                                     reference=f"{told}; {slow:.0f} and {fast:.0f} s"))  # fmt: skip
        print(results[-1].subject, f"{change.mean:+.2f}", results[-1].reference, file=sys.stderr, flush=True)
    report.show(results, report.machine(CPU), options.json)


if __name__ == "__main__":
    main()
