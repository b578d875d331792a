"""Where a method's weights come from: the runs that it is made of, and the functions from tasks to weights.

``parents_of`` finds or makes the runs, ``source_of`` loads them.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metavqa_cli.base_network.adapter import initial_weights
from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.contrast import HyperClip
from metavqa_cli.engine.diffusion import HyperLdm, question_seeds
from metavqa_cli.engine.ensure import (
    ensure_generator,
    ensure_init,
    ensure_zoo,
    ensured_dataset,
    made_baseline,
    made_hyperclip,
    made_ldm,
    made_regression,
)
from metavqa_cli.engine.generators import Decoder, adapted_latents, load_hypernetwork
from metavqa_cli.engine.measure import layout_of, mean_accuracy
from metavqa_cli.engine.models import Model, load_model, model_layout, trained_with
from metavqa_cli.engine.questions import KnownQuestions
from metavqa_cli.engine.regression import Regressor
from metavqa_cli.engine.session import Session
from metavqa_cli.guidance.hyperclip import question_log_likelihood
from metavqa_cli.guidance.hyperldm import LatentScaler, QuestionWhitener
from metavqa_cli.methods.best_of import best_latents
from metavqa_cli.methods.cond_multitask import ConditionalHypernetwork
from metavqa_cli.methods.few_shot import adapt_latents, adapt_weights
from metavqa_cli.methods.film import Film
from metavqa_cli.methods.hyperclip_guidance import hyperclip_latents, start_latents
from metavqa_cli.methods.neighbours import kernel_average, nearest
from metavqa_cli.methods.registry import BY_KEY, Method
from metavqa_cli.methods.zero_shot import zero_shot_weights
from metavqa_cli.schema.config import BaselineMethod
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.events import Event
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena

Parents = dict[str, Run]
ETA_GRID = (0.0, 0.1, 0.3, 1.0, 3.0)
WIDTH_GRID = (0.05, 0.1, 0.2, 0.4)  # bandwidths of the kernel average, in units of the cosine
BASELINES: tuple[BaselineMethod, ...] = get_args(BaselineMethod)


@dataclass(frozen=True)
class Source:
    """Weights [task, P] for the tasks of an arena, zero-shot from sample number n, and after seeing support sets.

    ``notes`` is what was chosen on the way (γ, η, a bandwidth); ``sampled`` says that samples differ.
    """

    layout: WeightLayout
    logit_scale: float
    zero_shot: Callable[[Arena, int], Tensor] | None = None
    few_shot: Callable[[Arena], Tensor] | None = None
    gamma: float | None = None
    sampled: bool = False
    notes: tuple[tuple[str, Any], ...] = ()


def method_of(key: str) -> Method:
    """The row ``key``; ``UsageError`` names the nearest."""
    if key not in BY_KEY:
        from difflib import get_close_matches

        near = get_close_matches(key, BY_KEY, n=1, cutoff=0.0)[0]
        raise UsageError(f"there is no method {key!r}; did you mean {near}? There are {', '.join(BY_KEY)}")
    return BY_KEY[key]


def parents_of(session: Session, key: str) -> Generator[Event, None, Parents]:
    """The runs that the method is made of, trained where they are missing."""
    for method in BASELINES:
        if key == method:
            yield from ensured_dataset(session, True)
            return {"baseline": (yield from made_baseline(session, method))}
    if key in ("clip", "support-majority"):
        yield from ensured_dataset(session, True)
        return {}
    if key in ("zoo-mean", "zoo-gaussian", "nearest-zoo", "kernel-zoo"):
        init = yield from ensure_init(session, None, True)
        return {"zoo": (yield from ensure_zoo(session, init, True))}
    if key.startswith("regression"):
        on = {"regression": "task", "regression-hvae": "hvae", "regression-w": "zoo"}[key]
        return {"regression": (yield from made_regression(session, on))}
    on = "task" if key in ("nearest-task", "kernel-task") else key.split("-")[0]
    if key in ("task", "nearest-task", "kernel-task"):
        return {"generator": (yield from ensure_generator(session, on, None, True))}
    parents = {}
    if "ldm" in key or key == "gp":
        parents["ldm"] = yield from made_ldm(session, "task" if key == "gp" else on)
    if key.endswith(("hyperclip", "eq11", "best")):
        parents["hyperclip"] = yield from made_hyperclip(session, on)
        parents["generator"] = yield from ensure_generator(session, on, None, True)
    return parents


def source_of(session: Session, key: str, parents: Parents, gamma: float | None, validation: Arena) -> Source:
    """The method's weights, with what it needs to choose chosen on the ``validation`` tasks."""
    if key in ("clip", "multitask", "mnet-maml", "mnet-fomaml"):
        return _from_weights(session, parents.get("baseline"))
    if key == "support-majority":
        return Source(layout_of(session), session.config.base_network.logit_scale)
    if key in ("cond-multitask", "cond-hnet-maml"):
        return _from_embeddings(session, parents["baseline"])
    if key == "film":
        return _from_film(session, parents["baseline"])
    if key in ("hnet-maml", "task"):
        return _from_latents(session, Decoder(load_model(next(iter(parents.values())), session.device)))
    if key.startswith("regression"):
        return _from_regression(session, parents["regression"])
    if key.startswith(("nearest", "kernel", "zoo")):
        return _from_memory(session, key, parents, validation)
    if "ldm" in key or key == "gp":
        return _from_ldm(session, key, parents, gamma, validation)
    return _from_hyperclip(session, parents)


def _from_weights(session: Session, run: Run | None) -> Source:
    """One W for every task: a baseline's; or none for plain CLIP, which adapts from the initialisation."""
    config, layout, lr = session.config, layout_of(session), session.config.eval.few_shot_lr
    if run is None:
        generator = torch.Generator().manual_seed(config.seed)
        start = initial_weights(layout, "near-clip", generator).to(session.device)
        W, scale = zero_shot_weights(layout, 1, session.device)[0], config.base_network.logit_scale
    else:
        model = load_model(run, session.device)
        start = W = model.tensors["W"]
        layout, scale = model_layout(model), _scale(model)
        if run.manifest()["variant"] != "multitask":  # MAML keeps its rate (Appendix A.8)
            lr = trained_with(model).recipe().inner_lr

    def few_shot(arena: Arena) -> Tensor:
        return adapt_weights(layout, start, arena.support.padded, config.eval.few_shot_steps, lr, scale)

    return Source(layout, scale, lambda arena, sample: W.expand(len(arena), -1), few_shot)


def _from_latents(session: Session, decoder: Decoder) -> Source:
    """h(z0) for every task, and after adapting z."""

    def zero_shot(arena: Arena, sample: int) -> Tensor:
        return decoder.decode(decoder.start[None]).expand(len(arena), -1)

    def few_shot(arena: Arena) -> Tensor:
        return decoder.decode(adapted_latents(decoder, arena.support.padded, session.config))

    return Source(decoder.layout, decoder.logit_scale, zero_shot, few_shot)


def _from_embeddings(session: Session, run: Run) -> Source:
    """h(e), and after adapting e, at the rate of Cond. HNet-MAML (A.8), which keeps the one that it was trained for."""
    model = load_model(run, session.device)
    layout, scale, whitener = model_layout(model), _scale(model), _whitener(model)
    network = ConditionalHypernetwork(load_hypernetwork(model, len(whitener.mean)))
    config, steps = trained_with(model), session.config.eval.few_shot_steps
    own = config.baseline.method == "cond-hnet-maml"
    lr = config.recipe().inner_lr if own else session.config.recipes.cond_hnet_maml.inner_lr

    def few_shot(arena: Arena) -> Tensor:
        e = adapt_latents(network, whitener(arena.e), arena.support.padded, steps, lr, layout, scale)
        return network.weights(e)

    return Source(layout, scale, lambda arena, sample: network.weights(whitener(arena.e)), few_shot)


def _from_film(session: Session, run: Run) -> Source:
    """f(·, e)."""
    model = load_model(run, session.device)
    layout, whitener = model_layout(model), _whitener(model)
    film = Film(layout, model.tensors["W"], None)
    own = {name: value for name, value in model.tensors.items() if not name.startswith("whitener.")}
    film.load_state_dict(own, assign=True)
    film.requires_grad_(False)
    return Source(layout, _scale(model), lambda arena, sample: film.weights(whitener(arena.e)))


def _from_regression(session: Session, run: Run) -> Source:
    regressor = Regressor(run, session.device)
    target = regressor.target
    return Source(target.layout, target.logit_scale, lambda arena, sample: regressor.weights(arena.e))


def _from_memory(session: Session, key: str, parents: Parents, validation: Arena) -> Source:
    """Weights that the training tasks have, without a model between question and weights."""
    from metavqa_cli.engine.dataset import open_dataset

    model = load_model(next(iter(parents.values())), session.device)
    layout, scale = model_layout(model), _scale(model)
    decoder = None if "zoo" in parents else Decoder(model)
    weights = model.tensors["train"] if decoder is None else decoder.decode(decoder.latents)
    if key == "zoo-mean":
        return Source(layout, scale, lambda arena, sample: weights.mean(0).expand(len(arena), -1))
    if key == "zoo-gaussian":
        return Source(layout, scale, partial(_gaussian, weights, session.config.seed), sampled=True)
    train = open_dataset(session.workspace, session.config.dataset.name).arena("train", session.device)
    questions = KnownQuestions(train, session.config.questions)
    known, own = normalize(questions.e, dim=1), weights[questions.rows]

    def cosines(arena: Arena) -> Tensor:
        return normalize(questions.whitener(arena.e), dim=1) @ known.mT

    if key.startswith("nearest"):
        return Source(layout, scale, lambda arena, sample: nearest(cosines(arena), own))
    widths = {
        width: mean_accuracy(layout, kernel_average(cosines(validation), own, width), validation.pairs, scale)
        for width in WIDTH_GRID
    }
    width = max(widths, key=lambda w: widths[w])
    chosen = (("width", width),)
    return Source(layout, scale, lambda arena, sample: kernel_average(cosines(arena), own, width), notes=chosen)


def _gaussian(weights: Tensor, seed: int, arena: Arena, sample: int) -> Tensor:
    """Samples of N(mean, covariance) of ``weights`` [zoo, P], whose rank is less than the size of the zoo."""
    from metavqa_cli.guidance.sampling import seeded_noise

    mean = weights.mean(0)
    noise = seeded_noise(question_seeds(arena, seed, sample), (len(weights),), weights.device)
    return mean + noise @ (weights - mean) / len(weights) ** 0.5


def _from_ldm(session: Session, key: str, parents: Parents, gamma: float | None, validation: Arena) -> Source:
    """h(ẑ) of HyperLDM: as sampled, guided by HyperCLIP as well (Eq. 11), or the best of N; and adapted from there."""
    ldm = HyperLdm(parents["ldm"], session.device, session.config.sampling, session.config.runtime)
    decoder, seed, config = ldm.decoder, session.config.seed, session.config
    scale = ldm.gamma if gamma is None else gamma
    notes: tuple[tuple[str, Any], ...] = (("trust", ldm.sampler.trust),)
    if key == "gp":  # what HyperLDM is anchored at, without any diffusion
        return Source(decoder.layout, decoder.logit_scale, lambda arena, sample: decoder.decode(ldm.anchored(arena.e)))
    if key.endswith(("eq11", "best")):
        judge = HyperClip(parents["hyperclip"], session.device)

    def plain(arena: Arena, sample: int) -> Tensor:
        return ldm.sampler(arena.e, scale, question_seeds(arena, seed, sample))

    def guided(eta: float, arena: Arena, sample: int) -> Tensor:
        likelihood = question_log_likelihood(judge.module, decoder.decode, ldm.sampler.scaler, judge.whitener(arena.e))
        return ldm.sampler(arena.e, scale, question_seeds(arena, seed, sample), likelihood, eta)

    def best(arena: Arena, sample: int) -> Tensor:
        n, settings = config.guidance.candidates, config.guidance
        z = torch.stack([plain(arena, sample * n + i) for i in range(n)])
        return best_latents(judge.module, decoder.decode, z, judge.whitener(arena.e), min(settings.keep, n))

    latents: Callable[[Arena, int], Tensor] = best if key.endswith("best") else plain
    if key.endswith("eq11"):
        eta = config.guidance.eta
        if eta is None:
            found = {
                eta: mean_accuracy(
                    decoder.layout, decoder.decode(guided(eta, validation, 0)), validation.pairs, decoder.logit_scale
                )
                for eta in ETA_GRID
            }
            eta = max(found, key=lambda value: found[value])
        latents, notes = partial(guided, eta), (*notes, ("eta", eta))

    def few_shot(arena: Arena) -> Tensor:
        z = latents(arena, 0)
        if key.endswith("-w"):
            settings, W = config.eval, decoder.decode(z)
            steps, lr = settings.few_shot_steps, settings.few_shot_lr
            return adapt_weights(decoder.layout, W, arena.support.padded, steps, lr, decoder.logit_scale)
        return decoder.decode(adapted_latents(decoder, arena.support.padded, config, z))

    return Source(
        decoder.layout, decoder.logit_scale, lambda arena, sample: decoder.decode(latents(arena, sample)), few_shot,
        scale, True, notes,
    )  # fmt: skip


def _from_hyperclip(session: Session, parents: Parents) -> Source:
    """Algorithm 11, from z0 for an HNet and from z ~ N(0, I) for the others; in standardised latents."""
    judge, settings = HyperClip(parents["hyperclip"], session.device), session.config.guidance
    decoder = Decoder(load_model(parents["generator"], session.device))
    scaler = LatentScaler.fit(decoder.latents)
    standardised = Standardised(decoder, scaler)

    def zero_shot(arena: Arena, sample: int) -> Tensor:
        if decoder.name == "hnet":
            start = scaler.standardise(decoder.start[None])
        else:
            seeds = question_seeds(arena, session.config.seed, sample)
            start = scaler.standardise(start_latents(seeds, scaler))
        e = judge.whitener(arena.e)
        z = hyperclip_latents(judge.module, standardised, start, e, settings.steps, settings.lr, settings.lam)
        return standardised.decode(z)

    return Source(decoder.layout, decoder.logit_scale, zero_shot, sampled=decoder.name != "hnet")


class Standardised:
    """A generator seen from latents that are z-scored by coordinate. Has the ``Generator`` protocol."""

    def __init__(self, decoder: Decoder, scaler: LatentScaler) -> None:
        self.decoder, self.scaler, self.latent = decoder, scaler, decoder.latent

    def decode(self, z: Tensor) -> Tensor:
        """Weights [batch, P] of standardised latents [batch, L]."""
        return self.decoder.decode(self.scaler.restore(z))


def _scale(model: Model) -> float:
    return float(model.header["config"]["base_network"]["logit_scale"])


def _whitener(model: Model) -> QuestionWhitener:
    return QuestionWhitener(model.tensors["whitener.mean"], model.tensors["whitener.transform"])
