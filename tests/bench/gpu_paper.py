"""The whole paper preset at the real shape with stand-in features, on one card: ``python -m tests.bench.gpu_paper``.

Every stage is the engine's own verb. Printed for each: time, peak memory, and the share of that time in which the
operations and the memory traffic that it needs (``costs``) could be done at the rates measured here. ``--out FILE``
keeps what was measured after every stage, and ``--workspace`` what was trained, so that stages may run in several calls
(``--stages hvae,ldm``); a parent that is missing then is made in one epoch, since no cost depends on its values.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from metavqa_cli.engine import loop
from metavqa_cli.engine.baselines import train_baseline
from metavqa_cli.engine.configuration import resolve_config
from metavqa_cli.engine.contrast import train_hyperclip
from metavqa_cli.engine.diffusion import HyperLdm, LdmTraining, question_seeds, train_ldm
from metavqa_cli.engine.evaluate import evaluate
from metavqa_cli.engine.generators import Decoder, train_generator
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.precision import Arithmetic, arithmetic
from metavqa_cli.engine.session import Session, prepare_torch
from metavqa_cli.engine.together import Alone
from metavqa_cli.engine.zoo import build_zoo
from metavqa_cli.schema.config import Config, Sampling
from metavqa_cli.schema.events import Event, RunFinished
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.workspace import Workspace
from tests.bench import report
from tests.bench.costs import Cost, denoiser_weights, sampling_cost, update_bytes
from tests.bench.features_gpu import matrix_rate
from tests.bench.stand_in import EMBED, RELEASE, make_stand_in

GAMMAS = "[0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0]"
NAME, COUNTED = "paper-shape", 6
STAGES = ("mnet-maml", "zoo", "hvae", "hnet-maml", "hyperclip", "ldm", "eval", "question", "samples", "equality")
EPOCHS = {"mnet-maml": "recipes.mnet_maml.epochs", "hnet-maml": "recipes.hnet_maml.epochs", "hvae": "hvae.epochs",
          "hyperclip": "hyperclip.epochs", "ldm": "ldm.epochs"}  # fmt: skip
SHORT = ("base_network.hidden=16", "hvae.hidden=[16,16]", "hnet.hidden=[16]", "hnet.adapt_steps=2", "zoo.steps=2",
         "ldm.hidden=[32,64,32]", "ldm.T=8", "eval.few_shot_steps=2", "hyperclip.hidden=16",
         *(f"{key}=1" for key in EPOCHS.values()))  # fmt: skip
VIEWS = ("view", "expand", "transpose", "detach", "split", "slice")  # operations without a kernel
ASKED_S, DRAWN_S, WHOLE_S = 0.030, 5.0, 600.0


@dataclass
class Stage:
    """What one stage took. ``steps`` of training that were taken; ``limit_s`` is what its cost takes at the rates."""

    seconds: float
    peak_gb: float
    precision: str = ""
    steps: int = 0
    cost: Cost | None = None
    limit_s: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)


class Bench:
    """A workspace with the stand-in dataset, and the card's rates."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self.options, self.workspace, self.device = options, Workspace(root), torch.device(options.device)
        prepare_torch(self.config())
        if NAME not in self.workspace.datasets():
            shape = {"embed": 64, "match": "^What color is the (car|cat|b)"} if options.short else {"embed": EMBED}
            make_stand_in(self.workspace, NAME, **shape)  # type: ignore[arg-type]
        self.rates = self._rates()

    def _rates(self) -> dict[str, float]:
        """Operations a second in each arithmetic, and bytes a second of a copy."""
        side, words = (8192, 2**29) if self.device.type == "cuda" and not self.options.short else (512, 2**22)
        found = {}
        precisions = {"fp32": "highest", "tf32": "high", "bf16": "high"} if self.device.type == "cuda" else {"fp32": ""}
        before = torch.get_float32_matmul_precision()
        for how, setting in precisions.items():
            if setting:
                torch.set_float32_matmul_precision(setting)
            dtype = torch.bfloat16 if how == "bf16" else torch.float32
            found[how] = matrix_rate(self.device, dtype, side, 20)
        torch.set_float32_matmul_precision(before)
        source = torch.ones(words, device=self.device)
        target = torch.empty_like(source)
        copying = report.seconds(lambda: target.copy_(source), 7, self.device)
        return {**found, "bytes": 8 * words / copying}

    def config(self, *sets: str) -> Config:
        """The paper's preset on the stand-in dataset."""
        options = self.options
        own = [f"dataset.name={NAME}", "dataset.source=hyperclip", f"eval.gammas={GAMMAS}", "hvae.objective=weights",
               "runtime.checkpoint_seconds=100000", *(SHORT if options.short else ())]  # fmt: skip
        flags = {"runtime.device": options.device, "runtime.precision": options.precision, "runtime.threads": 1}
        return resolve_config("paper", None, [*own, *(options.set or ()), *sets], flags).config

    def session(self, stage: str, quick: bool = False) -> Session:
        """For ``stage``; ``quick`` for what is only a parent of what is measured."""
        sets = [f"baseline.method={stage}"] if stage.endswith("maml") else []
        sets += [f"{EPOCHS[stage]}=1"] if quick and stage in EPOCHS else []
        return Session(self.workspace, self.config(*sets), force=not quick)

    def run(self, stage: str) -> Run:
        """The newest finished run of ``stage``, made in one epoch if there is none."""
        kind, variant = {"zoo": ("zoo", None), "hvae": ("hvae", "weights"), "ldm": ("ldm", "weights")}.get(
            stage, ("baseline", stage)
        )
        found = runs.newest(self.workspace, kind, match=lambda run: variant in (None, run.manifest().get("variant")))
        return found or finished(self.workspace, self.verb(stage, self.session(stage, quick=True)))

    def verb(self, stage: str, session: Session) -> Iterator[Event]:
        """The engine's job that is measured."""
        if stage in ("mnet-maml", "hnet-maml"):
            return train_baseline(session)
        if stage == "zoo":
            return build_zoo(session, self.run("mnet-maml"))
        if stage == "hvae":
            zoo = self.run("zoo")
            return train_generator(session, runs.get(self.workspace, zoo.manifest()["parents"]["init"]))
        if stage == "hyperclip":
            return train_hyperclip(session, self.run("hvae"))
        return train_ldm(session, self.run("hvae")) if stage == "ldm" else evaluate(session, [self.run("ldm")])

    def timed(self, work: Callable[[], object]) -> Stage:
        """Its time and its peak memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds = report.seconds(work, 1, self.device)
        peak = torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else 0.0
        return Stage(seconds, peak)

    def limited(self, stage: Stage, how: Arithmetic, cost: Cost) -> Stage:
        """With what ``cost`` takes at the rates."""
        stage.precision, stage.cost = how, cost
        stage.limit_s = cost.seconds(self.rates.get(how, self.rates["fp32"]), self.rates["bytes"])
        return stage


def finished(workspace: Workspace, events: Iterator[Event]) -> Run:
    """The run that an engine verb ends with."""
    *_, last = events
    assert isinstance(last, RunFinished)
    return runs.get(workspace, last.run)


class Enough(Exception):
    """Ends a training of which only steps were to be counted."""


class Launches(TorchDispatchMode):
    """Counts what a card is given to do: the kernels, nearly. Below some 5 µs each, the host is the limit."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not any(word in str(func) for word in VIEWS)
        return func(*args, **(kwargs or {}))


class Counter:
    """Counts the steps of a training, and of some of them operations (``torch.utils.flop_counter``) and launches.

    With ``only`` the training ends after so many counted ones; ``planned`` is how many it would take.
    """

    def __init__(self, only: int = 0) -> None:
        self.steps, self.counted, self.operations, self.launches, self.parameters = 0, 0, 0.0, 0, 0
        self.ema, self.only, self.planned = False, only, 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """For as long as the body trains."""
        from torch.utils.flop_counter import FlopCounterMode

        real = loop._step

        def step(trainable: Any, optimizer: Any, clipped: Any, plan: Any, *rest: Any) -> Any:
            self.parameters, self.ema = sum(p.numel() for p in trainable.module.parameters()), bool(plan.ema)
            self.planned = plan.steps
            if self.only and self.counted == self.only:
                raise Enough
            self.steps += 1
            if self.counted < COUNTED and (self.only or self.steps % 4 == 1):  # some of the first epoch
                with FlopCounterMode(display=False) as mode, Launches() as launches:
                    made = real(trainable, optimizer, clipped, plan, *rest)
                self.counted, self.operations = self.counted + 1, self.operations + mode.get_total_flops()
                self.launches += launches.number
                return made
            return real(trainable, optimizer, clipped, plan, *rest)

        with patch.object(loop, "_step", step):
            yield

    def cost(self, how: Arithmetic) -> Cost:
        """Of all steps: products as counted, the parameters' traffic as ``costs`` has it."""
        each = Cost(self.operations / max(self.counted, 1), update_bytes(self.parameters, how, self.ema))
        return each * (self.planned if self.only else self.steps)

    def notes(self) -> dict[str, Any]:
        """What is told beside the times."""
        each = max(self.counted, 1)
        return {"parameters": self.parameters, "gflop_a_step": self.operations / each / 1e9,
                "launches_a_step": self.launches // each}  # fmt: skip


def trained(bench: Bench, name: str) -> Stage:
    """A stage that is a verb of the engine."""
    session, counter = bench.session(name), Counter(bench.options.count)
    for parent in {"zoo": ("mnet-maml",), "hvae": ("zoo",), "hyperclip": ("hvae",), "ldm": ("hvae",),
                   "eval": ("ldm",)}.get(name, ()):  # fmt: skip
        bench.run(parent)
    begun = time.perf_counter()
    with counter.counting():
        stage = bench.timed(lambda: _until_enough(bench.workspace, bench.verb(name, session)))
    print(f"{name}: {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    how = session.arithmetic({"hvae": "weights", "eval": "sampling"}.get(name, name))
    stage.precision, stage.steps = how, counter.steps
    if counter.steps:
        stage = bench.limited(stage, how, counter.cost(how))
        stage.notes = {**counter.notes(), "ms_a_step": 1e3 * stage.seconds / counter.steps, "planned": counter.planned}
    return stage


def _until_enough(workspace: Workspace, events: Iterator[Event]) -> None:
    with suppress(Enough):
        finished(workspace, events)


def sampled(bench: Bench, rows: int, sampling: Sampling, gamma: float = 1.5) -> Stage:
    """Weights for ``rows`` questions (the test tasks', repeated), from embeddings on the card to weights on it."""
    ldm = HyperLdm(bench.run("ldm"), bench.device, sampling, bench.config().runtime)
    from metavqa_cli.engine.dataset import open_dataset

    test = open_dataset(bench.workspace, NAME).arena("test", bench.device)
    e = test.e.repeat(-(-rows // len(test)), 1)[:rows]
    seeds = (question_seeds(test, 0) * (-(-rows // len(test))))[:rows]

    def work() -> None:
        for part in range(0, rows, 512):  # of the decoded weights 512 take 0.8 GB
            ldm.weights(e[part : part + 512], gamma, seeds[part : part + 512])

    work()
    stage = bench.timed(work)
    stage.seconds = report.seconds(work, 5 if rows == 1 else 1, bench.device)
    config, settings = bench.config(), bench.config().ldm
    how = arithmetic(config.runtime.precision, bench.device, "sampling")
    weights = denoiser_weights(ldm.sampler.denoiser.latent, test.e.shape[1], settings.hidden, settings.time_dim)
    steps = sampling.denoising_steps(settings.T)
    calls = sampling_cost(weights, min(rows, 512), steps, gamma not in (0, 1), how)
    return bench.limited(stage, how, calls * (rows / min(rows, 512)))


def question(bench: Bench) -> Stage:
    """One question: with the fewest steps that serve, and with the paper's sampler beside it."""
    paper = bench.config().sampling
    fast = paper.model_copy(update={"sampler": "dpmpp_2m", "steps": min(20, bench.config().ldm.T)})
    stage = sampled(bench, 1, fast)
    other = sampled(bench, 1, paper)
    stage.notes = {"sampler": "dpmpp_2m, 20 steps, γ = 1.5", "ddpm_s": other.seconds, "ddpm_limit_s": other.limit_s}
    return stage


def samples(bench: Bench) -> Stage:
    """Eight samples for each of the 373 test tasks, by the paper's sampler."""
    return sampled(bench, 8 if bench.options.short else 373 * 8, bench.config().sampling)


def equality(bench: Bench) -> Stage:
    """How far the parameters of a small HyperLDM are apart after five steps on the CPU and on the card, in fp32."""
    from metavqa_cli.engine.dataset import open_dataset

    config = bench.config("ldm.hidden=[64,128,64]", "runtime.precision=fp32")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    ends = []
    begun = time.perf_counter()
    for device in (torch.device("cpu"), bench.device):
        folder = open_dataset(bench.workspace, NAME)
        arenas = [folder.arena(split, device) for split in ("train", "validation")]  # type: ignore[arg-type]
        training = LdmTraining(config, Decoder(load_model(bench.run("hvae"), device)), *arenas)
        plan = loop.Plan(5, 1e-3, 1.0, 10**9, 0, 1, 1e9, ema=0.9)
        optimizer = torch.optim.AdamW(training.module.parameters(), lr=plan.lr, fused=True)
        alone, groups = Alone(training), loop.clipping_groups(training.module, ())
        for step in range(plan.steps):
            loop._step(alone, optimizer, groups, plan, loop.Finite(device), step)
        ends.append(torch.nn.utils.parameters_to_vector(training.module.parameters()).detach().cpu())
    torch.set_float32_matmul_precision(before)
    apart = float((ends[0] - ends[1]).norm() / ends[0].norm())
    return Stage(time.perf_counter() - begun, 0.0, "fp32", 5, notes={"relative_difference": apart})


OTHERS: dict[str, Callable[[Bench], Stage]] = {"question": question, "samples": samples, "equality": equality}


def measured(bench: Bench, names: Sequence[str], out: Path | None) -> dict[str, Stage]:
    """Each stage in turn; ``out`` holds all that was measured so far, in this call and before."""
    kept = json.loads(out.read_text()) if out is not None and out.is_file() else {}
    found = {}
    for name in names:
        found[name] = OTHERS[name](bench) if name in OTHERS else trained(bench, name)
        kept[name] = asdict(found[name])
        if out is not None:
            out.write_text(json.dumps({**kept, "rates": bench.rates}, indent=2))
    return found


def results(found: dict[str, Stage]) -> list[report.Result]:
    """The figures beside what they are to be."""
    rows = []
    for name, stage in found.items():
        share = ""
        if stage.limit_s is not None:
            share = f"{stage.limit_s:.4g} s at the card's rates: share {stage.limit_s / stage.seconds:.2f}; "
        notes = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                          for key, value in stage.notes.items())  # fmt: skip
        limit = {"question": ASKED_S, "samples": DRAWN_S}.get(name)
        reference = f"{share}{stage.precision}, {stage.peak_gb:.2f} GB, {stage.steps} steps; {notes}"
        rows.append(report.Result(name, value=stage.seconds, unit="s", reference=reference, limit=limit))
    total = sum(stage.seconds for name, stage in found.items() if name not in OTHERS)
    return [*rows, report.Result("all trainings and the evaluation", value=total, unit="s", limit=WHOLE_S)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--stages", default=",".join(STAGES), help="of " + ", ".join(STAGES))
    parser.add_argument("--workspace", type=Path, help="where runs are kept; a temporary folder if not given")
    parser.add_argument("--out", type=Path, help="JSON file that is written after each stage")
    parser.add_argument(
        "--count", type=int, default=0, metavar="N", help="only N steps of each training, to be counted"
    )
    parser.add_argument("--set", action="append", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    names = options.stages.split(",")
    if unknown := [name for name in names if name not in STAGES]:
        sys.exit(f"there is no stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    if not RELEASE.is_dir():
        sys.exit(f"the released Meta-VQA files are not in {RELEASE}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, options.workspace or Path(folder))
        found = measured(bench, names, options.out)
        rates = {f"{name}_per_s": f"{rate:.3g}" for name, rate in bench.rates.items()}
        report.show(results(found), {**report.machine(bench.device), **rates}, options.json)


if __name__ == "__main__":
    main()
