"""How few denoising steps are enough: ``python -m tests.bench.sampling [WORKSPACE]``.

*Speed* is the time from a question's embedding to its weights (whiten, sample, decode) for one question and for 373,
as a ratio to DDPM with all its steps, every sampler once a round. *Accuracy* is the difference to DDPM on the test
tasks in points, with the 95 % interval over tasks, for the workspace's newest HyperLDM: drawn as configured by default,
and drawn as in the paper (one latent at temperature 1). *Spread* is the s.d. of a question's latents over samples, as a
share of DDPM's. ``--short`` takes the miniature of the tests and a few steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from metavqa_cli.schema.config import Config, Sampling
from metavqa_cli.store.workspace import Workspace
from tests.bench import report
from tests.bench.report import Result

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from metavqa_cli.engine.diffusion import HyperLdm
    from metavqa_cli.tasks.arena import Arena

STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 50)
SETTINGS = {"default": Sampling(), "paper": Sampling(temperature=1.0, latents=1)}
BATCH = 373  # Meta-VQA's test questions
LIMIT = 15.0


@dataclass(frozen=True)
class Job:
    """What is measured: a model on the test tasks, with so many steps, samples and rounds of timing."""

    ldm: "HyperLdm"
    test: "Arena"
    steps: Sequence[int]
    samples: dict[str, int]
    rounds: int


def drawn_by(setting: Sampling, sampler: str, steps: int = 1) -> Sampling:
    return setting.model_copy(update={"sampler": sampler, "steps": steps})


def candidates(setting: Sampling, steps: Sequence[int]) -> list[Sampling]:
    return [drawn_by(setting, name, count) for name in ("dpmpp_2m", "ddim") for count in steps]


def name_of(sampling: Sampling) -> str:
    return f"{sampling.sampler} {sampling.steps}"


# Speed


def speeds(job: Job, questions: int, rounds: int) -> list[Result]:
    """Milliseconds of DDPM, then how many times as fast each candidate is, from medians over interleaved rounds."""
    e = job.test.e[[i % len(job.test) for i in range(questions)]]
    ways = [drawn_by(Sampling(), "ddpm"), *candidates(Sampling(), job.steps)]
    samplers, taken = [job.ldm.sampler.drawing(way) for way in ways], [list[float]() for _ in ways]
    for turn in range(rounds + 1):
        for sampler, found in zip(samplers, taken, strict=True):
            seeds = [turn * questions + i for i in range(questions)]
            found.append(
                report.seconds(lambda s=sampler, k=seeds: job.ldm.decoder.decode(s(e, job.ldm.gamma, k)))  # type: ignore[misc]
            )
    ddpm, *others = (median(found[1:]) for found in taken)  # the first round warms up
    subject = f"weights for {questions} question{'s' * (questions > 1)}"
    T = job.ldm.sampler.schedule.T
    limited = {name_of(Sampling())}
    return [Result(f"{subject}, ddpm {T}", value=1000 * ddpm, unit="ms")] + [
        Result(f"{subject}, {name_of(way)}", ratio=ddpm / other, reference=f"ddpm {T}",
               limit=LIMIT if name_of(way) in limited else None)
        for way, other in zip(ways[1:], others, strict=True)
    ]  # fmt: skip


# Accuracy


def drawn(job: Job, sampling: Sampling, samples: int) -> tuple["np.ndarray", "Tensor"]:
    """Accuracy of each test task, mean over samples, and standardised latents [sample, task, L]."""
    import torch

    from metavqa_cli.engine.diffusion import question_seeds
    from metavqa_cli.engine.measure import accuracies

    ldm, found, latents = job.ldm, [], []
    for sample in range(samples):
        z = ldm.sampler.drawing(sampling)(job.test.e, ldm.gamma, question_seeds(job.test, 0, sample))
        weights = ldm.decoder.decode(z)
        found.append(accuracies(ldm.decoder.layout, weights, job.test.query, ldm.decoder.logit_scale))
        latents.append(ldm.sampler.scaler.standardise(z))
    return torch.stack(found).double().mean(0).cpu().numpy(), torch.stack(latents)


def spread(z: "Tensor") -> float:
    """Root mean square over tasks and coordinates of the s.d. over samples."""
    return float(z.var(0).mean().sqrt())


def losses(job: Job, label: str) -> list[Result]:
    """Accuracy of DDPM in the setting so named, then how far each candidate is from it."""
    from metavqa_cli.engine.statistics import estimate

    setting, samples = SETTINGS[label], job.samples[label]
    reference, z = drawn(job, drawn_by(setting, "ddpm"), samples)
    width = spread(z)
    found = [Result(f"accuracy, {label}, ddpm", value=100 * reference.mean(), unit="%",
                    reference=f"γ = {job.ldm.gamma:g}, trust {job.ldm.sampler.trust:g}, {samples} samples of each of "
                              f"{len(reference)} tasks, spread {width:.3f} s.d. of all latents")]  # fmt: skip
    for way in candidates(setting, job.steps):
        accuracy, z = drawn(job, way, samples)
        lost = estimate(accuracy - reference, 2000)
        told = f"[{lost.low:+.2f}, {lost.high:+.2f}] to ddpm, spread {spread(z) / width:.2f} of its"
        found.append(Result(f"accuracy, {label}, {name_of(way)}", value=lost.mean, unit="points", reference=told))
    return found


def job_of(options: Any) -> Job:
    """The workspace's newest HyperLDM, or the one named, on its test tasks, or the miniature's."""
    from metavqa_cli.engine.dataset import open_dataset
    from metavqa_cli.engine.diffusion import HyperLdm, newest_ldm
    from metavqa_cli.engine.session import Session
    from metavqa_cli.store import runs

    if options.short:
        from tests import miniature

        arena = miniature.dataset().arena("test", miniature.CPU)
        ldm = HyperLdm(miniature.run("ldm", "task"), miniature.CPU, miniature.config().sampling)
        return Job(ldm, arena, (1, 4), dict.fromkeys(SETTINGS, 2), 1)
    session = Session(Workspace(options.workspace), Config())
    arena = open_dataset(session.workspace, session.config.dataset.name).arena("test", session.device)
    run = runs.get(session.workspace, options.model) if options.model else newest_ldm(session)
    ldm = HyperLdm(run, session.device, session.config.sampling)
    return Job(ldm, arena, options.steps, dict(zip(SETTINGS, options.samples, strict=True)), options.rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser(__doc__)
    parser.add_argument("workspace", nargs="?", type=Path, default=Workspace.default_root())
    parser.add_argument("--model", metavar="RUN", help="another HyperLDM than the newest")
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS)
    parser.add_argument("--samples", nargs=2, type=int, default=(4, 16), help="by default, and as in the paper")
    parser.add_argument("--rounds", type=int, default=5, help="of timing; a third of them for 373 questions")
    parser.add_argument("--parts", nargs="+", choices=("speed", *SETTINGS), default=("speed", *SETTINGS))
    options = parser.parse_args(arguments)
    job, found = job_of(options), list[Result]()
    if "speed" in options.parts:
        found += speeds(job, 1, job.rounds) + speeds(job, BATCH, max(job.rounds // 3, 1))
    for label in SETTINGS:
        found += losses(job, label) if label in options.parts else []
    report.show(found, report.machine(job.test.device), options.json)


if __name__ == "__main__":
    main()
