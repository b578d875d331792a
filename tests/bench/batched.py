"""All tasks in one batch against one at a time: ``python -m tests.bench.batched`` prints a table, ``--json`` JSON.

Each subject is done in both ways on the same tasks in this process, first by ``tests.bench.sequential`` (the way of the
published code), and must give the same numbers. Where a subject would take the reference hours, it gets a part of the
tasks and its time is multiplied. Adaptation is also held against arithmetic: the operations that its products need
(a multiply and an add are two; five products of examples × 768 × 256 a step) at the rate of large matrix products here.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.base_network.adapter import initial_weights
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.baselines import WeightsTraining
from metavqa_cli.engine.evaluate import by_chunk
from metavqa_cli.engine.loop import batch_indices
from metavqa_cli.engine.measure import accuracies, batch_accuracies, parts_of
from metavqa_cli.generator.hvae import HVAE, WeightScaler, hvae_loss
from metavqa_cli.generator.hypernetwork import Hypernetwork
from metavqa_cli.guidance.cfg import guided_noise
from metavqa_cli.guidance.hyperclip import HyperCLIP, contrastive_loss
from metavqa_cli.guidance.hyperldm import Denoiser, LatentScaler
from metavqa_cli.guidance.sampling import seeded_noise
from metavqa_cli.guidance.schedule import linear_schedule
from metavqa_cli.methods.few_shot import adapt_weights
from metavqa_cli.methods.hyperldm import sample_latents
from metavqa_cli.schema.config import Config
from metavqa_cli.tasks.arena import Arena
from metavqa_cli.tasks.batches import TaskBatch
from tests.bench import report, sequential
from tests.bench.report import Result, seconds
from tests.bench.sequential import SCALE
from tests.bench.shapes import real_arenas, tiny_arenas

STEPS, LR, META_BATCH, T, GAMMA, LATENT = 50, 0.01, 32, 350, 1.5, 32
AIMS = {"adaptation": 5.0, "maml": 5.0, "sampling": 50.0, "evaluation": 10.0}
ONE_AT_A_TIME = "one task at a time"
TOLERANCE = (
    5e-3  # between the two ways, relative to how far weights move: fifty steps in float32, at a logit scale of 100
)


@dataclass(frozen=True)
class Shape:
    """The networks and tasks of one setting; ``every`` thins the tasks that the reference gets."""

    name: str
    hidden: int
    denoiser: tuple[int, ...]
    arenas: dict[Any, Arena]
    every: int

    main: bool = True

    def subject(self, words: str) -> str:
        """The name of a figure; only those of the main shape bear the subject's name alone."""
        return words if self.main else f"{words}, {self.name}"

    @cached_property
    def layout(self) -> WeightLayout:
        return WeightLayout(self.arenas["train"].e.shape[1], self.hidden)

    @cached_property
    def W(self) -> Tensor:
        return initial_weights(self.layout, "paper", torch.Generator().manual_seed(0))

    def some(self, split: str) -> Arena:
        """Every so-manyth task."""
        arena = self.arenas[split]
        return arena.select(torch.arange(0, len(arena), self.every))


def parts(shape: Shape, arena: Arena) -> Iterator[tuple[Tensor, TaskBatch, TaskBatch]]:
    """Tasks as the zoo takes them, with a random support set each and the rest of their pairs."""
    for rows in parts_of(arena.pairs, shape.layout.size):
        yield rows, *arena.select(rows).random_support(0)


def adapted(shape: Shape, arena: Arena) -> Tensor:
    """Weights [task, P] after the inner loop, as the zoo is made."""
    weights = torch.empty(len(arena), shape.layout.size)
    for rows, support, _ in parts(shape, arena):
        weights[rows] = adapt_weights(shape.layout, shape.W, support, STEPS, LR, SCALE)
    return weights


def built(shape: Shape, arena: Arena) -> tuple[Tensor, Tensor]:
    """A zoo: weights, and the accuracies [2, task] on the other pairs before and after, less its file."""
    weights, found = torch.empty(len(arena), shape.layout.size), torch.empty(2, len(arena))
    for rows, support, query in parts(shape, arena):
        weights[rows] = tuned = adapt_weights(shape.layout, shape.W, support, STEPS, LR, SCALE)
        for kept, those in zip(found, (shape.W.expand(len(rows), -1), tuned), strict=True):
            kept[rows] = batch_accuracies(shape.layout, those, query, SCALE)
    return weights, found


def adaptation(shape: Shape) -> Iterator[Result]:
    """The zoo's inner loops: 50 steps on each task's support set."""
    some, supports = shape.some("train"), [(rows, support) for rows, support, _ in parts(shape, shape.some("train"))]
    expected = torch.empty(len(some), shape.layout.size)

    def reference() -> None:
        for rows, support in supports:
            expected[rows] = sequential.zoo(shape.layout, shape.W, support, STEPS, LR)

    slow = seconds(reference)
    adapted(shape, some)
    fast = seconds(lambda: adapted(shape, some), 3)
    same(adapted(shape, some) - shape.W, expected - shape.W)
    yield ratio("adaptation", shape, slow, fast, f"{len(some)} tasks, {STEPS} steps: {slow:.2f} s {ONE_AT_A_TIME}")
    every = shape.arenas["train"]
    whole, rate = seconds(lambda: adapted(shape, every)), matrix_rate()
    needed = sum(operations(shape.layout, support) for _, support, _ in parts(shape, every))
    aim = 0.6 if shape.name == "real" else None
    for words, taken in (("adaptation", whole), ("zoo building", seconds(lambda: built(shape, every)))):
        yield Result(shape.subject(f"{words}, all {len(every)} tasks"), value=taken, unit="s")
        yield Result(shape.subject(f"{words}, operations at the matrix rate"), value=needed / taken / rate,
                     unit="of rate", reference=f"{rate / 1e9:.0f} GFLOP/s", limit=aim)  # fmt: skip


def operations(layout: WeightLayout, support: TaskBatch) -> float:
    """What gradient descent by its textbook costs: the forward pass, its gradients, and the products with answers."""
    E, H = layout.embed, layout.hidden
    examples, answers = support.example_mask.sum(1).double(), support.answer_mask.sum(1)
    return float(STEPS * (examples * 2 * (5 * E * H + 3 * E * answers)).sum())


def matrix_rate(side: int = 2048) -> float:
    """Operations a second of large matrix products in float32, the best of several."""
    left, right = torch.randn(side, side), torch.randn(side, side)
    out = left @ right
    return max(2 * side**3 / seconds(lambda: torch.mm(left, right, out=out)) for _ in range(8))


def maml(shape: Shape) -> Iterator[Result]:
    """Meta-gradients of MNet-MAML, second order, 0 to 10 inner steps, over meta-batches of 32 tasks."""
    some = shape.some("train")
    config = Config.model_validate({
        "base_network": {"hidden": shape.hidden, "logit_scale": SCALE, "init": "paper"},
        "baseline": {"method": "mnet-maml", "batch": META_BATCH, "inner_steps": 10, "inner_lr": LR},
    })  # fmt: skip
    training = WeightsTraining(config, shape.layout, some, some)
    training.module.W.data = shape.W.clone()
    batches = range(-(-len(some) // META_BATCH))
    gradients: list[Tensor] = []

    def batched() -> None:
        gradients.clear()
        for step in batches:
            loss, _ = training.loss(step, torch.Generator().manual_seed(step))
            gradients.append(torch.autograd.grad(loss, training.module.W)[0])

    expected: list[Tensor] = []

    def reference(measured: bool) -> None:
        expected.clear()
        for step in batches:
            rows = training.rows(step)
            support, query = training.split(rows, step)
            counts = training.inner_steps(len(rows), torch.Generator().manual_seed(step)).tolist()
            expected.append(sequential.meta_gradient(shape.layout, shape.W, support, query, counts, LR, measured))

    slow, bare = (seconds(lambda measured=measured: reference(measured)) for measured in (True, False))  # type: ignore[misc]
    batched()
    fast = seconds(batched, 3)
    same(torch.stack(gradients), torch.stack(expected))
    yield ratio("maml", shape, slow, fast, f"{len(some)} tasks, measured four times each as released: {slow:.2f} s")
    yield Result(shape.subject("maml, without those measurements"), ratio=bare / fast, reference=ONE_AT_A_TIME)


def passes(shape: Shape, name: str, batch: int, model: Callable[[], torch.nn.Module], loss_of: Any) -> Iterator[Result]:
    """Two steps over a zoo, in both ways; ``loss_of(model, weights, e, step)``."""
    arena = shape.arenas["train"].select(torch.arange(2 * batch))
    weights = shape.W + 0.01 * torch.randn(len(arena), shape.layout.size, generator=torch.Generator().manual_seed(1))
    support, query = (sequential.loaders(part.padded) for part in (arena.support, arena.query))
    measured = sequential.Measured(shape.layout, sequential.named(shape.layout, shape.W), support, query)
    batches = [batch_indices(len(arena), batch, step, 0) for step in range(2)]
    rows = torch.cat(batches).tolist()

    def one_pass(fused: bool, epoch: Callable[[Callable[[Tensor, Tensor], float]], object]) -> tuple[Tensor, float]:
        """Losses of two epochs, and how long the second took: in the first, memory is new."""
        module, losses = model(), list[float]()
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=fused)

        def step(held: Tensor, members: Tensor) -> float:
            loss = loss_of(module, held, arena.e[members], len(losses))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            return losses[-1]

        epoch(step)
        spent = seconds(lambda: epoch(step))
        return torch.tensor(losses), spent

    def one_by_one(measure: Any) -> Any:
        return lambda step: sequential.epoch(rows, batch, weights, lambda held, m: step(held, torch.tensor(m)), measure)

    fast, quick = one_pass(True, lambda step: [step(weights[those], those) for those in batches])
    slow, long = one_pass(False, one_by_one(measured))
    bare, without = one_pass(False, one_by_one(None))
    same(fast, slow)
    same(fast, bare)
    yield ratio(name, shape, long, quick, f"{len(rows)} tasks, measured four times each as released: {long:.2f} s")
    yield Result(shape.subject(f"{name}, without those measurements"), ratio=without / quick, reference=ONE_AT_A_TIME)


def hvae(shape: Shape) -> Iterator[Result]:
    """HVAE steps of 32 weight vectors, P-512-256-64 and back."""

    def model() -> HVAE:
        scaler = WeightScaler(shape.W, torch.tensor(0.01), 10.0)
        return HVAE(scaler, LATENT, (256, 512), torch.Generator().manual_seed(0))

    def loss_of(module: HVAE, weights: Tensor, e: Tensor, step: int) -> Tensor:
        return hvae_loss(module, weights, torch.Generator().manual_seed(step), 1.0)[0]

    yield from passes(shape, "hvae", 32, model, loss_of)


def hyperclip(shape: Shape) -> Iterator[Result]:
    """HyperCLIP steps of 64 weight vectors, P-256-E."""

    def model() -> HyperCLIP:
        return HyperCLIP(shape.layout.embed, 256, shape.W, 0.01, torch.Generator().manual_seed(0))

    yield from passes(
        shape, "hyperclip", 64, model, lambda module, weights, e, _: contrastive_loss(module, weights, e)[0]
    )


def sampling(shape: Shape) -> Iterator[Result]:
    """Latents for the test tasks' questions by 350 guided steps of DDPM."""
    e, schedule = shape.arenas["test"].e, linear_schedule(T, 1e-4, 0.06)
    net = denoiser(shape, shape.denoiser)
    scaler = LatentScaler(torch.zeros(LATENT), torch.ones(LATENT))
    few = max(2, 32 // shape.every)
    noise = seeded_noise(range(few), (T + 1, LATENT))
    expected: list[Tensor] = []

    def reference() -> None:
        expected.extend(sequential.sample(net, schedule, noise[i], e[i], GAMMA) for i in range(few))

    def batched() -> Tensor:
        return sample_latents(net, schedule, scaler, e, GAMMA, range(len(e)), "ddpm")

    slow, found = seconds(reference) * len(e) / few, batched()
    fast = seconds(batched, 3)
    same(found[:few], torch.stack(expected))
    of = f"{len(e)} tasks, {T} steps, {slow:.0f} s {ONE_AT_A_TIME} (from {few} of them)"
    yield ratio("sampling", shape, slow, fast, of)


def sampling_of_the_paper(shape: Shape) -> Iterator[Result]:
    """One guided step of the paper's denoiser (8192-16384-8192) for all test tasks."""
    e, few = shape.arenas["test"].e, 2
    net = denoiser(shape, (8192, 16384, 8192))
    z, t = torch.randn(len(e), LATENT), torch.full((len(e),), T - 1)

    def step(i: slice) -> Tensor:
        return guided_noise(net, z[i], t[i], e[i], GAMMA)

    with torch.no_grad():
        both = [net(z[:1], t[:1], q) for q in (torch.zeros_like(e[:1]), e[:1])]
        same(step(slice(0, 3))[:1], (1 - GAMMA) * both[0] + GAMMA * both[1])
        slow = seconds(lambda: [net(z[i : i + 1], t[:1], e[i : i + 1]) for i in range(few) for _ in range(2)])
        fast = seconds(lambda: step(slice(None)))
    of = f"one step of {sum(p.numel() for p in net.parameters()) / 1e6:.0f} M parameters"
    yield ratio("sampling, the paper's denoiser", shape, slow * len(e) / few, fast, of)


def denoiser(shape: Shape, hidden: Sequence[int]) -> Denoiser:
    """An untrained one whose predictions are not zero, and small, so that rounding is not magnified step by step."""
    made = Denoiser(LATENT, shape.layout.embed, hidden, 150, torch.Generator().manual_seed(0)).requires_grad_(False)
    torch.nn.init.normal_(made.out.weight, std=0.05 * hidden[-1] ** -0.5, generator=torch.Generator().manual_seed(1))
    return made


def evaluation(shape: Shape) -> Iterator[Result]:
    """Accuracies on the test tasks' query sets: of latents, which are decoded first, and of given weights."""
    test = shape.some("test")
    z = torch.randn(len(test), LATENT, generator=torch.Generator().manual_seed(2))
    decoder = Hypernetwork(LATENT, (256, 512), shape.W, 0.01, torch.Generator().manual_seed(3)).requires_grad_(False)
    items = sequential.loaders(test.query.padded)

    def of_latents() -> Tensor:
        return by_chunk(test, lambda arena, z: accuracies(shape.layout, decoder(z), arena.query, SCALE), z)

    slow, fast, of = both_ways(
        lambda: [one(shape, decoder(z[i : i + 1])[0], items[i]) for i in range(len(z))], of_latents
    )
    yield ratio("evaluation", shape, slow, fast, f"{len(test)} latents decoded and judged: {of}")
    weights = decoder(z)
    slow, fast, of = both_ways(
        lambda: [one(shape, W, item) for W, item in zip(weights, items, strict=True)],
        lambda: accuracies(shape.layout, weights, test.query, SCALE),
    )
    yield Result(shape.subject("evaluation, given weights"), ratio=slow / fast, reference=of)


def one(shape: Shape, W: Tensor, item: Any) -> float:
    return sequential.accuracy(sequential.named(shape.layout, W), item)


def both_ways(reference: Callable[[], list[float]], batched: Callable[[], Tensor]) -> tuple[float, float, str]:
    """Seconds of both, which must give the same accuracies, and the first in words."""
    expected, found = reference(), batched()
    same(found, torch.tensor(expected))
    slow, fast = seconds(reference), seconds(batched, 5)
    return slow, fast, f"{1000 * slow:.0f} ms {ONE_AT_A_TIME}"


def ratio(subject: str, shape: Shape, slow: float, fast: float, reference: str) -> Result:
    aim = AIMS.get(subject) if shape.name == "real" else None
    return Result(shape.subject(subject), ratio=slow / fast, reference=reference, limit=aim)


def same(found: Tensor, expected: Tensor) -> None:
    """Both ways must give the same numbers, up to the rounding of float32. Raises AssertionError."""
    scale = expected.norm(dim=-1).clamp_min(1e-12) if expected.ndim > 1 else expected.abs().max().clamp_min(1e-12)
    error = (found - expected).norm(dim=-1) if expected.ndim > 1 else (found - expected).abs()
    assert float((error / scale).max()) < TOLERANCE, f"the two ways differ by {float((error / scale).max()):.2g}"


SUBJECTS: dict[str, Callable[[Shape], Iterator[Result]]] = {
    "adaptation": adaptation, "maml": maml, "hvae": hvae, "hyperclip": hyperclip, "sampling": sampling,
    "evaluation": evaluation,
}  # fmt: skip


def measure(shape: Shape, subjects: Sequence[str]) -> Iterator[Result]:
    for subject in subjects:
        yield from SUBJECTS[subject](shape)
        if subject == "sampling" and shape.name == "real":
            yield from sampling_of_the_paper(shape)


def tiny(every: int, main: bool = True) -> Shape:
    return Shape("tiny", 32, (512, 512), tiny_arenas(), every, main)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    results: list[Result] = []
    if options.short:
        results += measure(tiny(40), options.subjects)
    else:
        results += measure(tiny(4, main=False), options.subjects)
        results += measure(Shape("real", 256, (512, 512), real_arenas(), options.every), options.subjects)
    report.show(results, report.machine(torch.device("cpu")), options.json)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser(__doc__)
    parser.add_argument("--every", type=int, default=10, help="the reference gets every so-manyth task")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=list(SUBJECTS))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
