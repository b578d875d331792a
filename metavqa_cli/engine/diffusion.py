"""`metavqa train ldm`: HyperLDM on a generator's latents, conditioned on the questions (Algorithms 12 to 14)."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.engine.build import open_dataset
from metavqa_cli.engine.generators import Decoder
from metavqa_cli.engine.lineage import Model, find_parent, load_model, parent_run, perform, save_model, section_of
from metavqa_cli.engine.loop import batch_indices, train
from metavqa_cli.engine.pretrain import mean_accuracy, training_plan
from metavqa_cli.engine.session import Session
from metavqa_cli.guidance.hyperldm import Denoiser, LatentScaler, QuestionWhitener, diffusion_loss
from metavqa_cli.guidance.schedule import Schedule, linear_schedule, scaled_linear_schedule
from metavqa_cli.methods.hyperldm import sample_latents
from metavqa_cli.schema.config import Config, Ldm, Sampling
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.schema.events import Event, Narrated
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena, task_seed

GAMMA_GRID = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
GAMMA_SAMPLES = 4  # latents for each validation task and gamma when gamma is chosen


def schedule_of(settings: Ldm) -> Schedule:
    """The configured noise schedule."""
    make = linear_schedule if settings.schedule == "linear" else scaled_linear_schedule
    return make(settings.T, settings.beta_start, settings.beta_end)


def whitener_of(e: Tensor, settings: Ldm) -> QuestionWhitener:
    """Fitted to the training questions e [task, E]; without ``ldm.whiten`` it changes nothing."""
    if settings.whiten:
        return QuestionWhitener.fit(e, settings.e_floor)
    return QuestionWhitener(torch.zeros_like(e[0]), torch.eye(e.shape[1], dtype=e.dtype, device=e.device))


def question_seeds(arena: Arena, seed: int, sample: int = 0) -> list[int]:
    """A sampling seed for each task that depends on its question, the run's seed and the sample's number alone."""
    return [task_seed(mix_sample(seed, sample), task.question) for task in arena.tasks]


def mix_sample(seed: int, sample: int) -> int:
    """A seed for the number of a sample; sample 0 of a seed is the seed itself, and no two pairs meet."""
    return seed + (sample << 64)


class LdmTraining:
    """Eq. 9 on (latent, question) pairs of the training tasks, validated by the weights sampled for new questions."""

    def __init__(self, config: Config, decoder: Decoder, train: Arena, validation: Arena) -> None:
        self.config, self.decoder, self.data, self.validation = config, decoder, train, validation
        settings = config.ldm
        self.scaler = LatentScaler.fit(decoder.latents)
        self.z = self.scaler.standardise(decoder.latents)
        self.schedule = schedule_of(settings)
        self.whitener = whitener_of(train.e, settings)
        self.e = self.whitener(train.e)
        generator = torch.Generator().manual_seed(config.seed)
        self.module = Denoiser(
            decoder.latent, train.e.shape[1], settings.hidden, settings.time_dim, generator
        ).to(train.e.device)  # fmt: skip

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        settings = self.config.ldm
        indices = batch_indices(len(self.data), settings.batch, step, self.config.seed).to(self.z.device)
        z = self.z[indices]
        if settings.z_noise:
            z = z + settings.z_noise * torch.randn(z.shape, generator=generator).to(z)
        e = self.e[indices]
        if settings.e_noise:
            e = e + settings.e_noise * e.shape[1] ** -0.5 * torch.randn(e.shape, generator=generator).to(e)
        return diffusion_loss(self.module, self.schedule, z, e, settings.dropout, generator)

    def validate(self, module: Denoiser) -> dict[str, float]:
        """Zero-shot accuracy on the validation tasks at gamma (1 when it is not fixed)."""
        gamma = 1.0 if self.config.ldm.gamma is None else self.config.ldm.gamma
        return {"accuracy": self.accuracy(module, gamma, samples=2)}

    def accuracy(self, module: Denoiser, gamma: float, samples: int) -> float:
        """Mean zero-shot accuracy on the validation tasks over ``samples`` latents each, in per cent."""
        sampler = LatentSampler(module, self.schedule, self.scaler, self.whitener, self.config.sampling)
        total = 0.0
        for sample in range(samples):
            z = sampler(self.validation.e, gamma, question_seeds(self.validation, self.config.seed, sample))
            weights = self.decoder.decode(z)
            total += mean_accuracy(self.decoder.layout, weights, self.validation.pairs, self.decoder.logit_scale)
        return total / samples


def check_steps(sampling: Sampling, T: int) -> None:
    """``UsageError`` when DDIM is to take more steps than the diffusion has."""
    if sampling.sampler == "ddim" and sampling.steps > T:
        raise UsageError(f"sampling.steps is {sampling.steps}, but the diffusion has only {T} steps (ldm.T); lower it")


class LatentSampler:
    """Question embeddings to latents with one denoiser, schedule and sampler."""

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        scaler: LatentScaler,
        whitener: QuestionWhitener,
        sampling: Sampling,
    ) -> None:
        check_steps(sampling, schedule.T)
        self.denoiser, self.schedule, self.scaler, self.sampling = denoiser, schedule, scaler, sampling
        self.whitener = whitener

    def __call__(self, e: Tensor, gamma: float, seeds: Sequence[int]) -> Tensor:
        """Latents [batch, L] for embeddings e [batch, E]; row i from noise of ``seeds[i]``."""
        e, sampling = self.whitener(e), self.sampling
        return sample_latents(
            self.denoiser, self.schedule, self.scaler, e, gamma, seeds, sampling.sampler, sampling.steps
        )


def train_ldm(session: Session, generator: Run) -> Iterator[Event]:
    """Train HyperLDM on ``generator``'s latents; ends with ``RunFinished``, whose result names gamma."""
    check_steps(session.config.sampling, session.config.ldm.T)
    extra = {"variant": generator.manifest()["variant"]}
    yield from perform(session, "ldm", {"generator": generator}, extra, partial(_train_ldm, session, generator))


def _train_ldm(session: Session, generator: Run, run: Run) -> Iterator[Event | dict[str, Any]]:
    config, settings = session.config, session.config.ldm
    dataset = open_dataset(session.workspace, config.dataset.name)
    data, validation = (dataset.arena(split, session.device) for split in ("train", "validation"))
    decoder = Decoder(load_model(generator, session.device))
    training = LdmTraining(config, decoder, data, validation)
    plan = training_plan(config, len(data), settings, ema=settings.ema)
    yield from train(run, training, plan, session.device)
    module = training.module
    if settings.gamma is None:
        measured = {gamma: training.accuracy(module, gamma, GAMMA_SAMPLES) for gamma in GAMMA_GRID}
        gamma = max(measured, key=lambda g: measured[g])
        yield Narrated(f"gamma {gamma:g} is best on the validation tasks ({measured[gamma]:.1f} %)")
    else:
        gamma, measured = settings.gamma, {}
    tensors = {f"denoiser.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"scaler.{name}": value for name, value in training.scaler.state_dict().items()}
    tensors |= {f"whitener.{name}": value for name, value in training.whitener.state_dict().items()}
    header = {"embed": data.e.shape[1], "latent": decoder.latent, "gamma": gamma}
    save_model(run, session, tensors, header)
    yield {"gamma": gamma, "gamma_validation": {f"{g:g}": value for g, value in measured.items()},
           "validation": training.validate(module)}  # fmt: skip


class HyperLdm:
    """A finished HyperLDM run with its generator: question embeddings to weights."""

    def __init__(self, run: Run, device: torch.device, sampling: Sampling) -> None:
        model = load_model(run, device)
        self.run, self.gamma = run, float(model.header["gamma"])
        self.header = model.header
        settings = section_of(model, "ldm", Ldm)
        self.decoder = Decoder(load_model(parent_run(run, "generator"), device))
        self.sampler = LatentSampler(
            _denoiser(model, settings), schedule_of(settings),
            LatentScaler(model.tensors["scaler.mean"], model.tensors["scaler.std"]),
            QuestionWhitener(model.tensors["whitener.mean"], model.tensors["whitener.transform"]), sampling,
        )  # fmt: skip

    def weights(self, e: Tensor, gamma: float, seeds: Sequence[int]) -> Tensor:
        """Weights [batch, P] for question embeddings e [batch, E]."""
        return self.decoder.decode(self.sampler(e, gamma, seeds))


def _denoiser(model: Model, settings: Ldm) -> Denoiser:
    module = Denoiser(model.header["latent"], model.header["embed"], settings.hidden, settings.time_dim, None)
    state = {name[9:]: value for name, value in model.tensors.items() if name.startswith("denoiser.")}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval()


def newest_ldm(
    session: Session, objective: str | None = None, chosen: str | None = None, own_seed_first: bool = False
) -> Run:
    """The chosen, or the newest, HyperLDM (of an objective). ``MissingError`` says how to train one."""
    hint = "train one with `metavqa train ldm --with-parents`, or run `metavqa quickstart`"

    def match(run: Run) -> bool:
        return objective is None or run.manifest().get("variant") == objective

    run = find_parent(session, "ldm", chosen, match, hint, own_seed_first)
    if run is None:
        raise MissingError(f"there is no finished HyperLDM for dataset {session.config.dataset.name!r}; {hint}")
    return run
