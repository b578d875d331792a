"""`metavqa train ldm`: HyperLDM on a generator's latents, conditioned on the questions (Algorithms 12 to 14)."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.generators import VARIANTS, Decoder
from metavqa_cli.engine.lineage import find_parent, parent_run, saw_all_questions
from metavqa_cli.engine.loop import batch_indices, train
from metavqa_cli.engine.measure import mean_accuracy, training_plan
from metavqa_cli.engine.models import Model, load_model, save_model, trained_with
from metavqa_cli.engine.perform import perform
from metavqa_cli.engine.precision import Arithmetic, arithmetic
from metavqa_cli.engine.questions import KnownQuestions
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.world import here
from metavqa_cli.generator.layers import normal_like
from metavqa_cli.guidance.anchor import QuestionAnchor, learned_metric
from metavqa_cli.guidance.cfg import LogLikelihood
from metavqa_cli.guidance.hyperldm import Denoiser, LatentScaler, QuestionWhitener, diffusion_loss
from metavqa_cli.guidance.replay import Replayed
from metavqa_cli.guidance.schedule import Schedule, linear_schedule, scaled_linear_schedule
from metavqa_cli.methods.hyperldm import sample_latents
from metavqa_cli.schema.config import Config, Ldm, Runtime, Sampling
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.schema.events import Event, Narrated
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena, task_seed
from metavqa_cli.tasks.transfer import to_device

GAMMA_GRID = (0.5, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
TRUST_GRID = (0.0, 0.5, 1.0)
ANCHOR = ("known", "metric", "weights", "sharpness")
GAMMA_SAMPLES = 2  # draws for each validation task and gamma when gamma is chosen


def schedule_of(settings: Ldm) -> Schedule:
    """The configured noise schedule."""
    make = linear_schedule if settings.schedule == "linear" else scaled_linear_schedule
    return make(settings.T, settings.beta_start, settings.beta_end)


NEXT_LATENT = 0x9E3779B97F4A7C15  # from one sample's seed to the next: odd, and no small multiple of it is small


def question_seeds(arena: Arena, seed: int, sample: int = 0) -> list[int]:
    """A sampling seed for each task that depends on its question, the run's seed and the sample's number alone."""
    return [task_seed(mix_sample(seed, sample), question) for question in arena.questions]


def mix_sample(seed: int, sample: int) -> int:
    """A seed for the number of a sample; sample 0 of a seed is the seed itself, and no two pairs meet."""
    return seed + (sample << 64)


class LdmTraining:
    """Eq. 9 on the training tasks' latents and questions, validated by the weights sampled for new questions.

    The tasks without a question (``questions.descriptors`` < 1) teach the unconditional prediction alone, if
    ``ldm.unlabelled``; else they are left out.
    """

    def __init__(self, config: Config, decoder: Decoder, train: Arena, validation: Arena) -> None:
        self.config, self.decoder, self.data, self.validation = config, decoder, train, validation
        settings = config.ldm
        self.questions = KnownQuestions(train, config.questions)
        known = torch.zeros(len(train), dtype=torch.bool, device=train.device)
        known[self.questions.rows] = True
        used = decoder.latents if settings.unlabelled else decoder.latents[known]
        self.scaler = LatentScaler.fit(used)
        z = self.scaler.standardise(decoder.latents)
        self.whole, self.unlabelled = z[known], z[~known] if settings.unlabelled else z[:0]
        self.anchor, self.rest = QuestionAnchor.none(train.embed, decoder.latent, z.device), self.whole
        self.schedule = schedule_of(settings)
        self.whitener = self.questions.whitener
        if settings.anchor:
            self.anchor, self.rest = self._fitted_anchor()
        generator = torch.Generator().manual_seed(config.seed)
        self.module = Denoiser(
            decoder.latent, train.embed, settings.hidden, settings.time_dim, generator
        ).to(train.device)  # fmt: skip

    def _fitted_anchor(self) -> tuple[QuestionAnchor, Tensor]:
        """The anchor that does better on the validation tasks: with questions as they are, or with a learned metric.

        A metric learned from few questions leads astray.
        """
        generator = torch.Generator().manual_seed(self.config.seed)
        metric = learned_metric(self.questions.e, self.whole, generator)
        fitted = [QuestionAnchor.fit(self.questions.e, self.whole, metric) for metric in (None, metric)]
        e = self.whitener(self.validation.e)
        found = [self._accuracy_of(self.scaler.restore(anchor(e))) for anchor, _ in fitted]
        return fitted[here().decide(lambda: found.index(max(found)))]

    def _accuracy_of(self, z: Tensor) -> float:
        """Mean accuracy in per cent on the validation tasks of the weights of their latents z [task, L]."""
        weights, decoder = self.decoder.decode(z), self.decoder
        return mean_accuracy(decoder.layout, weights, self.validation.pairs, decoder.logit_scale)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        settings, seed = self.config.ldm, self.config.seed
        chosen, e = self.questions.batch(settings.batch, step, seed, generator)
        chosen = to_device(chosen, e.device)
        rest, whole = self.rest[chosen], self.whole[chosen]
        if len(self.unlabelled):
            others = to_device(batch_indices(len(self.unlabelled), settings.batch, step, seed), e.device)
            rest, whole = (torch.cat([known, self.unlabelled[others]]) for known in (rest, whole))
            e = torch.cat([e, e.new_zeros(len(others), e.shape[1])])
        if settings.z_noise:
            noise = settings.z_noise * normal_like(rest, generator)
            rest, whole = rest + noise, whole + noise
        share = here().share(len(rest))
        return share.of(*diffusion_loss(
            self.module, self.schedule, rest, e, settings.dropout, generator, whole, share.rows
        ))  # fmt: skip

    def tasks(self, step: int) -> Arena:
        """Those of the batch of ``step``: the described ones, then the others."""
        size, seed = self.config.ldm.batch, self.config.seed
        rows = self.questions.rows[self.questions.chosen(size, step, seed)]
        if len(self.unlabelled):
            hidden = torch.ones(len(self.data), dtype=torch.bool)
            hidden[self.questions.rows] = False
            others = hidden.nonzero().flatten()
            rows = torch.cat([rows, others[batch_indices(len(others), size, step, seed)]])
        return self.data.select(rows)

    def validate(self, module: Denoiser) -> dict[str, float]:
        """Zero-shot accuracy on the validation tasks at gamma (1 when it is not fixed)."""
        gamma = 1.0 if self.config.ldm.gamma is None else self.config.ldm.gamma
        return {"accuracy": self.accuracy(module, gamma, samples=1)}

    def sampler(self, module: Denoiser, trust: float) -> "LatentSampler":
        """What the parameters of ``module`` sample."""
        how = arithmetic(self.config.runtime.precision, self.data.device, "sampling")
        return LatentSampler(
            in_arithmetic(module, how),
            self.schedule,
            self.scaler,
            self.whitener,
            self.anchor,
            self.config.sampling,
            trust,
        )

    def accuracy(self, module: Denoiser, gamma: float, samples: int, trust: float = 1.0) -> float:
        """Mean zero-shot accuracy on the validation tasks over ``samples`` draws each, in per cent."""
        sampler = self.sampler(module, trust)
        total = 0.0
        for sample in range(samples):
            seeds = question_seeds(self.validation, self.config.seed, sample)
            total += self._accuracy_of(sampler(self.validation.e, gamma, seeds))
        return total / samples


def check_steps(sampling: Sampling, T: int) -> None:
    """``UsageError`` when more steps are to be taken than the diffusion has."""
    if sampling.denoising_steps(T) > T:
        raise UsageError(f"sampling.steps is {sampling.steps}, but the diffusion has only {T} steps (ldm.T); lower it")


class LatentSampler:
    """Question embeddings to latents with one denoiser, schedule and sampler."""

    def __init__(
        self,
        denoiser: Denoiser | Replayed,
        schedule: Schedule,
        scaler: LatentScaler,
        whitener: QuestionWhitener,
        anchor: QuestionAnchor,
        sampling: Sampling,
        trust: float = 1.0,
    ) -> None:
        check_steps(sampling, schedule.T)
        self.denoiser, self.schedule, self.scaler, self.sampling = denoiser, schedule, scaler, sampling
        self.whitener, self.anchor, self.trust = whitener, anchor, trust

    def __call__(
        self,
        e: Tensor,
        gamma: float,
        seeds: Sequence[int],
        log_likelihood: LogLikelihood | None = None,
        eta: float = 0.0,
        before_step: Callable[[], None] | None = None,
    ) -> Tensor:
        """Latents [batch, L] for embeddings e [batch, E]: for each the mean of as many samples as configured.

        Row i depends on ``seeds[i]`` alone, and its first sample is the same whatever their number. With a likelihood
        of latents [batch, L] its gradient is added to the score (Eq. 11). ``before_step``: see ``sample_latents``.
        """
        sampling, e = self.sampling, self.whitener(e)
        each = sampling.latents
        drawn = [(seed + k * NEXT_LATENT) % 2**63 for k in range(each) for seed in map(int, seeds)]
        if log_likelihood is not None and each > 1:
            log_likelihood = _repeated(log_likelihood, each)
        z = sample_latents(
            self.denoiser, self.schedule, self.scaler, e.repeat(each, 1), gamma, drawn, sampling.sampler,
            sampling.steps, log_likelihood, eta, self.anchor(e).repeat(each, 1), sampling.temperature,
            self.trust, before_step,
        )  # fmt: skip
        return z.view(each, len(e), -1).mean(0)

    def drawing(self, sampling: Sampling) -> "LatentSampler":
        """The same, with another way to draw. ``UsageError`` as ``check_steps``."""
        return LatentSampler(
            self.denoiser, self.schedule, self.scaler, self.whitener, self.anchor, sampling, self.trust
        )  # fmt: skip


def _repeated(log_likelihood: LogLikelihood, times: int) -> LogLikelihood:
    """The likelihood for a batch that repeats the questions ``times``."""
    return lambda z: torch.cat([log_likelihood(part) for part in z.chunk(times)])


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
    how = session.arithmetic("ldm")
    plan = training_plan(config, len(data), settings, ema=settings.ema, decay=settings.decay, arithmetic=how)
    yield from train(run, training, plan, session.device)
    gamma, trust, measured = chosen_guidance(training)
    yield Narrated(
        f"gamma {gamma:g} and trust {trust:g} are best on the validation tasks ({max(measured.values()):.1f} %)"
    )
    module = training.module
    tensors = {f"denoiser.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"scaler.{name}": value for name, value in training.scaler.state_dict().items()}
    tensors |= {f"whitener.{name}": value for name, value in training.whitener.state_dict().items()}
    tensors |= {f"anchor.{name}": value for name, value in training.anchor.state_dict().items()}
    header = {"embed": data.embed, "latent": decoder.latent, "gamma": gamma, "trust": trust}
    save_model(run, session, tensors, header)
    yield {"gamma": gamma, "trust": trust, "validation": {"accuracy": training.accuracy(module, gamma, 1, trust)},
           "gamma_validation": {f"{g:g}": value for (g, t), value in measured.items() if t == trust}}  # fmt: skip


def chosen_guidance(training: LdmTraining) -> tuple[float, float, dict[tuple[float, float], float]]:
    """Gamma and trust with the highest accuracy on the validation tasks, and all that was measured.

    Without an anchor everything that is known of the question is in the denoiser, and the trust is 1.
    """
    settings = training.config.ldm
    gammas = GAMMA_GRID if settings.gamma is None else (settings.gamma,)
    measured = {
        (gamma, trust): training.accuracy(training.module, gamma, GAMMA_SAMPLES, trust)
        for gamma in gammas
        for trust in (TRUST_GRID if settings.anchor else (1.0,))
    }
    gamma, trust = max(measured, key=lambda pair: measured[pair])
    return gamma, trust, measured


class HyperLdm:
    """A finished HyperLDM run with its generator: question embeddings to weights."""

    def __init__(self, run: Run, device: torch.device, sampling: Sampling, runtime: Runtime | None = None) -> None:
        model = load_model(run, device)
        self.run, self.gamma = run, float(model.header["gamma"])
        self.header = model.header
        settings = trained_with(model).ldm
        self.decoder = Decoder(load_model(parent_run(run, "generator"), device))
        self.sampler = LatentSampler(
            for_sampling(_denoiser(model, settings), device, runtime or Runtime()), schedule_of(settings),
            LatentScaler(model.tensors["scaler.mean"], model.tensors["scaler.std"]),
            QuestionWhitener(model.tensors["whitener.mean"], model.tensors["whitener.transform"]),
            QuestionAnchor(*(model.tensors[f"anchor.{name}"] for name in ANCHOR)), sampling,
            float(model.header["trust"]),
        )  # fmt: skip

    def anchored(self, e: Tensor) -> Tensor:
        """The latents [batch, L] that the anchor alone predicts for question embeddings e [batch, E]."""
        return self.sampler.scaler.restore(self.sampler.anchor(self.sampler.whitener(e)))

    def weights(self, e: Tensor, gamma: float, seeds: Sequence[int]) -> Tensor:
        """Weights [batch, P] for question embeddings e [batch, E]."""
        return self.decoder.decode(self.sampler(e, gamma, seeds))


def _denoiser(model: Model, settings: Ldm) -> Denoiser:
    module = Denoiser(model.header["latent"], model.header["embed"], settings.hidden, settings.time_dim, None)
    state = {name[9:]: value for name, value in model.tensors.items() if name.startswith("denoiser.")}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval()


def in_arithmetic(denoiser: Denoiser, how: Arithmetic) -> Denoiser:
    """What samples in the place of ``denoiser``: for bf16 a copy, half of whose bytes are read in every step."""
    return copy.deepcopy(denoiser).to(torch.bfloat16) if how == "bf16" else denoiser


def for_sampling(denoiser: Denoiser, device: torch.device, runtime: Runtime) -> Denoiser | Replayed:
    """What samples in the place of a finished ``denoiser``: in its arithmetic, and recorded where there are graphs."""
    made = in_arithmetic(denoiser, arithmetic(runtime.precision, device, "sampling"))
    return Replayed(made) if device.type == "cuda" and runtime.cuda_graphs else made


def newest_ldm(session: Session, on: str | None = None, own_seed_first: bool = False) -> Run:
    """The newest HyperLDM (on a generator) that saw every question, rather one trained as configured.

    A table also trains others. ``MissingError`` says how to train one.
    """
    values = session.config.model_dump(mode="json")
    hint = "train one with `metavqa train ldm --with-parents`, or run `metavqa quickstart`"

    def match(run: Run) -> bool:
        return saw_all_questions(run) and (on is None or run.manifest().get("variant") == VARIANTS[on][1])

    def usual(run: Run) -> bool:
        return match(run) and runs.agrees(run, values, ("questions", "ldm"))

    run = find_parent(session, "ldm", None, usual, hint, own_seed_first)
    run = run or find_parent(session, "ldm", None, match, hint, own_seed_first)
    if run is None:
        raise MissingError(f"there is no finished HyperLDM for dataset {session.config.dataset.name!r}; {hint}")
    return run
