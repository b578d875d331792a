"""Are generated weights memorised? Their distance to the nearest training weights, and the errors both share.

The memory M is the fine-tuned weights of the training tasks (the zoo) for an HVAE, else what the training tasks'
latents decode to. Generated weights are compared with copies of members with noise, with means of two members, and
with members themselves against all others (``leave-one-out``).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from metavqa_cli.base_network.adapter import answer_logits
from metavqa_cli.engine.cells import Bench
from metavqa_cli.engine.diffusion import HyperLdm, question_seeds
from metavqa_cli.engine.ensure import Ensured, finished_run, made_ldm
from metavqa_cli.engine.evaluate import sampler_text
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.identify import Subject
from metavqa_cli.engine.lineage import parent_run
from metavqa_cli.engine.models import load_model, save_measured
from metavqa_cli.engine.perform import perform, started
from metavqa_cli.engine.session import Session
from metavqa_cli.guidance.hyperldm import LatentScaler
from metavqa_cli.guidance.sampling import seeded_noise
from metavqa_cli.schema.errors import JobError
from metavqa_cli.schema.events import Event, ProgressMade
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena, task_seed

ROWS_AT_ONCE = 64  # weight vectors compared and judged at once, and members that they are compared with
NOISES = (0.1, 0.3, 1.0)
GENERATED, AVERAGED, LEFT_OUT = "generated", "mean of two members", "leave-one-out"
VALUES = ("distance", "relative", "latent_distance", "latent_relative", "error_overlap", "accuracy")
Row = dict[str, Any]


class Memory:
    """Weights [member, P] of the training tasks, kept as differences from their mean, which floats resolve better.

    ``z`` [member, L] are their latents, z-scored by coordinate. ``radius`` is the mean distance to the mean weights.
    ``weights`` is changed in place: at paper scale it takes 1.4 GB. ``JobError`` with fewer than two members.
    """

    def __init__(self, weights: Float[Tensor, "member params"], latents: Float[Tensor, "member latent"]) -> None:
        if len(weights) < 2:
            raise JobError("there is one training task, so no memory to compare with; build a larger dataset")
        self.mean = weights.mean(0)
        self.differences = weights.sub_(self.mean)
        self.squares = torch.cat([part.square().sum(1) for part in self.differences.split(ROWS_AT_ONCE)])
        self.radius = float(self.squares.sqrt().mean())
        self.scaler = LatentScaler.fit(latents)
        self.z = self.scaler.standardise(latents)

    def __len__(self) -> int:
        return len(self.differences)

    def weights(self, members: Int64[Tensor, " row"]) -> Float[Tensor, "row params"]:
        return self.differences[members] + self.mean

    def nearest(
        self, weights: Float[Tensor, "row params"], itself: Int64[Tensor, " row"] | None = None
    ) -> tuple[Int64[Tensor, " row"], Float[Tensor, " row"]]:
        """The member that is nearest to each of ``weights`` and its distance; ``itself`` [row] does not count."""
        differences = weights - self.mean
        own = differences.square().sum(1, keepdim=True)
        parts = zip(self.differences.split(ROWS_AT_ONCE), self.squares.split(ROWS_AT_ONCE), strict=True)
        squares = torch.cat([own + theirs - 2 * differences @ part.mT for part, theirs in parts], dim=1)
        if itself is not None:
            squares.scatter_(1, itself[:, None], torch.inf)
        member = squares.argmin(1)
        return member, (differences - self.differences[member]).norm(dim=1)  # exact: 0 for a copy

    def nearest_latents(
        self, z: Float[Tensor, "row latent"], itself: Int64[Tensor, " row"] | None = None
    ) -> Float[Tensor, " row"]:
        """The distance of latents to the nearest latent of a member, both z-scored."""
        distances = torch.cdist(self.scaler.standardise(z), self.z, compute_mode="donot_use_mm_for_euclid_dist")
        if itself is not None:
            distances.scatter_(1, itself[:, None], torch.inf)
        return distances.amin(1)


@dataclass(frozen=True, eq=False)
class Probe:
    """Weight vectors of one kind: ``weights(rows)`` [row, P], each judged on the test task ``tasks`` [row].

    ``z`` are their latents where they have any; ``itself`` the members that they are, where they are members.
    """

    name: str
    weights: Callable[[Tensor], Tensor]
    tasks: Int64[Tensor, " row"]
    z: Float[Tensor, "row latent"] | None = None
    itself: Int64[Tensor, " row"] | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for each weight vector of a probe; ``overlap`` is NaN where neither it nor its neighbour errs."""

    distance: Float[Tensor, " row"]
    latent_distance: Float[Tensor, " row"] | None
    overlap: Float[Tensor, " row"]
    accuracy: Float[Tensor, " row"]


@torch.no_grad()
def examine(memory: Memory, probe: Probe, arena: Arena, decoder: Decoder) -> Found:
    """Nearest members of the weights, and how both judge the query examples of the probe's test tasks."""
    distances, overlaps, accuracies = [], [], []
    for rows in torch.arange(len(probe.tasks), device=arena.device).split(ROWS_AT_ONCE):
        weights, part = probe.weights(rows), arena.select(probe.tasks[rows])
        if not weights.isfinite().all():
            raise JobError(f"weights are not finite ({probe.name}); lower the guidance scale")
        member, distance = memory.nearest(weights, None if probe.itself is None else probe.itself[rows])
        wrong, theirs = _wrong(decoder, weights, part), _wrong(decoder, memory.weights(member), part)
        distances.append(distance)
        overlaps.append((wrong & theirs).sum(1) / (wrong | theirs).sum(1))  # 0/0 is NaN: no error to share
        accuracies.append(1 - wrong.sum(1) / part.query.example_mask.sum(1))
    z = None if probe.z is None else memory.nearest_latents(probe.z, probe.itself)
    return Found(torch.cat(distances), z, torch.cat(overlaps), torch.cat(accuracies))


def _wrong(decoder: Decoder, weights: Tensor, arena: Arena) -> Bool[Tensor, "task example"]:
    logits = answer_logits(decoder.layout, weights, arena.query.padded, decoder.logit_scale)
    return (logits.argmax(-1) != arena.query.labels) & arena.query.example_mask


def probes(memory: Memory, decoder: Decoder, z: Tensor, arena: Arena, members: Sequence[str], seed: int) -> list[Probe]:
    """All that is compared. ``z`` [task, L] are the generated latents; ``members`` the memory's questions.

    The weights that answer no test question are judged on one all the same: each test task gets two members, drawn for
    its question, for the noisy copy (the first) and the mean; each member that is left out gets a test task, drawn for
    its own question. The noise of a test task has the same direction at every size.
    """
    device, own = z.device, decoder.name != "hvae"  # members have latents that decode to them
    questions = list(arena.questions)
    drawn = torch.tensor([_draw(seed, f"members/{q}", len(memory), 2) for q in questions], device=device)
    seeds = [task_seed(seed, f"noise/{question}") for question in questions]
    tasks, every = torch.arange(len(arena), device=device), torch.arange(len(memory), device=device)
    latents = memory.scaler.restore(memory.z)
    middle = latents[drawn].mean(1)

    def noisy(size: float, rows: Tensor) -> Tensor:
        noise = seeded_noise([seeds[row] for row in rows.tolist()], (len(memory.mean),), device)
        return memory.weights(drawn[rows, 0]) + size * memory.radius * noise / noise.norm(dim=1, keepdim=True)

    def averaged(rows: Tensor) -> Tensor:
        if own:
            return decoder.decode(middle[rows])
        return (memory.weights(drawn[rows, 0]) + memory.weights(drawn[rows, 1])) / 2

    order = sorted(range(len(arena)), key=lambda row: questions[row])
    judged = torch.tensor([order[_draw(seed, f"task/{q}", len(arena), 1)[0]] for q in members], device=device)
    return [
        Probe(GENERATED, lambda rows: decoder.decode(z[rows]), tasks, z),
        *(Probe(noise_name(size), partial(noisy, size), tasks) for size in NOISES),
        Probe(AVERAGED, averaged, tasks, middle if own else None),
        Probe(LEFT_OUT, memory.weights, judged, latents, every),
    ]


def noise_name(size: float) -> str:
    return f"member with noise {size:g}"


def _draw(seed: int, what: str, n: int, size: int) -> list[int]:
    draw = np.random.default_rng(task_seed(seed, what)).choice(n, size, replace=False)
    return [int(value) for value in draw]


def novelty_run(session: Session, subject: Subject, bench: Bench) -> Ensured:
    """The finished run that compares what HyperLDM generates for the test questions with the memory."""
    doing = subject.session(session)
    ldm = yield from made_ldm(doing, subject.on)
    extra = {"variant": ldm.manifest()["variant"]}
    work = partial(_measure, doing, subject, ldm, bench)
    return (yield from finished_run(doing, perform(doing, "novelty", {"ldm": ldm}, extra, work)))


def _measure(session: Session, subject: Subject, ldm: Run, bench: Bench, run: Run) -> Iterator[Event | dict[str, Any]]:
    yield started(run, 0)
    model, arena = HyperLdm(ldm, session.device, session.config.sampling, session.config.runtime), bench.test
    decoder, seed = model.decoder, session.config.seed
    memory = memory_of(session, decoder)
    with torch.no_grad():
        z = model.sampler(arena.e, model.gamma, question_seeds(arena, seed))
    questions = bench.dataset.questions_of("train")
    found: dict[str, Found] = {}
    chosen = probes(memory, decoder, z, arena, questions, seed)
    for done, probe in enumerate(chosen):
        found[probe.name] = examine(memory, probe, arena, decoder)
        yield ProgressMade("comparing with the memory", done + 1, len(chosen), "rows")
    tensors = {f"{i}/distance": each.distance for i, each in enumerate(found.values())}
    save_measured(run, tensors, {"kind": "novelty", "rows": list(found)})
    yield {"on": subject.on, "seed": subject.seed, "descriptors": subject.descriptors, "gamma": model.gamma,
           "sampler": sampler_text(session.config.sampling), "tasks": len(arena), "members": len(memory),
           "radius": memory.radius, "rows": summary(found)}  # fmt: skip


@torch.no_grad()
def memory_of(session: Session, decoder: Decoder) -> Memory:
    """The zoo that an HVAE learned from; of another generator, what its training latents decode to."""
    if decoder.name == "hvae":
        zoo = load_model(parent_run(decoder.run, "zoo"), session.device)
        return Memory(zoo.tensors["train"], decoder.latents)
    weights = torch.cat([decoder.decode(part) for part in decoder.latents.split(ROWS_AT_ONCE)])
    return Memory(weights, decoder.latents)


def summary(found: dict[str, Found]) -> list[Row]:
    """A row for each probe: median distances, alone and over those of leave-one-out; mean overlap and accuracy in %."""
    left = found[LEFT_OUT]
    unit, latent_unit = _median(left.distance), _median(left.latent_distance)
    return [
        {"row": name, "distance": _median(each.distance), "relative": _ratio(_median(each.distance), unit),
         "latent_distance": _median(each.latent_distance),
         "latent_relative": _ratio(_median(each.latent_distance), latent_unit),
         "error_overlap": _percent(each.overlap), "accuracy": _percent(each.accuracy), "weights": len(each.distance)}
        for name, each in found.items()
    ]  # fmt: skip


def _median(values: Tensor | None) -> float | None:
    return None if values is None else float(np.median(values.cpu().numpy()))


def _ratio(value: float | None, unit: float | None) -> float | None:
    return value / unit if value is not None and unit else None


def _percent(values: Tensor) -> float | None:
    kept = values[~values.isnan()].double()
    return 100 * float(kept.mean()) if len(kept) else None


def measured(session: Session, chosen: Sequence[Subject]) -> Generator[Event, None, list[Row]]:
    """The rows of the subjects, each of which is a run of its own; what is missing is trained."""
    bench, results = Bench(session), list[dict[str, Any]]()
    for done, subject in enumerate(chosen):
        run = yield from novelty_run(session, subject, bench)
        results.append(run.result() or {})
        yield ProgressMade("looking for memories", done + 1, len(chosen), "models")
    return rows(results)


def rows(results: Sequence[dict[str, Any]]) -> list[Row]:
    """One row for each generator, share of descriptors and probe: means over the seeds, and their s.d. (``_sd``)."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda result: result["seed"]):
        groups.setdefault((result["on"], result["descriptors"]), []).append(result)
    return [
        _joined(on, share, same, number)
        for (on, share), same in groups.items()
        for number in range(len(same[0]["rows"]))
    ]


def _joined(on: str, share: float, same: Sequence[dict[str, Any]], number: int) -> Row:
    each, first = [result["rows"][number] for result in same], same[0]
    row: Row = {"on": on, "descriptors": share, "row": each[0]["row"]}
    for name in VALUES:
        values = [one[name] for one in each if one[name] is not None]
        row[name] = round(float(np.mean(values)), 4) if values else None
        row[f"{name}_sd"] = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
    generated = row["row"] == GENERATED
    return row | {
        "gammas": [result["gamma"] for result in same] if generated else None,
        "sampler": first["sampler"] if generated else None, "weights": each[0]["weights"],
        "members": first["members"], "tasks": first["tasks"], "seeds": [result["seed"] for result in same],
    }  # fmt: skip


def verdicts(found: Sequence[Row]) -> list[str]:
    """For each generator, in one sentence, whether what is generated is memorised.

    The measure is a copy with noise: as near to a member as one with noise of 0.1 radii is memorised, as near as one
    with 0.3 is close to it.
    """
    groups: dict[tuple[str, float], dict[str, Row]] = {}
    for row in found:
        groups.setdefault((row["on"], row["descriptors"]), {})[row["row"]] = row
    return [_verdict(on, share, of) for (on, share), of in groups.items()]


def _verdict(on: str, share: float, of: dict[str, Row]) -> str:
    made, nearly, near, other = of[GENERATED], of[noise_name(0.1)], of[noise_name(0.3)], of[LEFT_OUT]
    if made["distance"] <= nearly["distance"]:
        word = "memorised: as near to training weights as a copy with noise of a tenth of the memory's radius"
    elif made["distance"] <= near["distance"]:
        word = "close to memorised: as near to training weights as a copy with noise of 0.3 of the memory's radius"
    elif made["distance"] < other["distance"]:
        word = "not memorised, but nearer to training weights than these are to each other"
    else:
        word = "not memorised: at least as far from training weights as these are from each other"
    who = f"{on} + HyperLDM" + ("" if share == 1 else f" ({100 * share:g} % of the descriptors)")
    times = "" if made["relative"] is None else f" ({made['relative']:.2f} times the leave-one-out distance)"
    overlap = "" if made["error_overlap"] is None else (
        f"; its errors overlap by {made['error_overlap']:.0f} % with those of the nearest training weights"
        + ("" if nearly["error_overlap"] is None else f" (the noisy copy's by {nearly['error_overlap']:.0f} %)")
    )  # fmt: skip
    return f"What {who} generates is {word}{times}{overlap}."
