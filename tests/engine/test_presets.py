"""The paper preset holds the paper's numbers, and every stage of it runs."""

from functools import cache

import pytest
import torch
from torch import nn

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.baselines import train_baseline
from metavqa_cli.engine.cells import Bench, CellSpec, measured_cell
from metavqa_cli.engine.configuration import resolve_config
from metavqa_cli.engine.diffusion import HyperLdm, schedule_of, train_ldm
from metavqa_cli.engine.evaluate import evaluate
from metavqa_cli.engine.generators import train_generator
from metavqa_cli.engine.lineage import TRAINED
from metavqa_cli.engine.models import load_model
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.zoo import build_zoo
from metavqa_cli.generator.hvae import HVAE, WeightScaler
from metavqa_cli.guidance.hyperldm import Denoiser
from metavqa_cli.methods.registry import BY_KEY
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.events import RunStarted, StepLogged
from metavqa_cli.store import runs
from metavqa_cli.store.runs import Run
from metavqa_cli.store.tensors import load_tensors
from metavqa_cli.store.workspace import Workspace
from tests import miniature
from tests.engine.test_lineage import finished, returned
from tests.miniature import CPU

# What a test cannot afford: the epochs, and the widths of HVAE and HyperLDM (0.1 and 0.6 billion weights, each of them
# held five times while Adam trains it). Their full shapes are checked without memory.
AFFORDED = ["dataset.name=mini", "baseline.epochs=2", "hvae.epochs=2", "hvae.hidden=[16,32]", "ldm.epochs=2",
            "ldm.hidden=[64,128,64]", "ldm.gamma=1.5", "eval.gammas=[1.5]", "eval.few_shot_steps=2",
            "eval.bootstrap=100"]  # fmt: skip


# The same for the rows of the table: what is left of the preset is everything but sizes and epochs.
SMALL = [*AFFORDED, *(f"dataset.{name}={value}" for name, value in miniature.VALUES["dataset"].items()),
         "base_network.hidden=8", "hvae.latent=4", "ldm.T=20", "ldm.time_dim=16", "hnet.latent=4",
         "hnet.hidden=[16]", "hnet.adapt_steps=2", "zoo.steps=2", "task_latents.epochs=2", "hyperclip.epochs=2",
         "clip.resize=model", "guidance.steps=2", "guidance.candidates=2", "regression.epochs=2",
         "regression.hidden=16"]  # fmt: skip


def paper(*sets: str) -> Config:
    return resolve_config("paper", sets=sets).config


def test_the_numbers_of_the_paper() -> None:
    config = paper()
    network, baseline, zoo, hvae, ldm = config.base_network, config.recipe(), config.zoo, config.hvae, config.ldm
    assert (network.hidden, network.logit_scale, network.init) == (256, 100, "paper")
    assert (config.baseline.method, baseline.epochs, baseline.lr) == ("mnet-maml", 500, 3e-5)
    assert (baseline.inner_lr, baseline.inner_steps) == (0.01, 10)
    assert (zoo.init, zoo.steps, zoo.lr) == ("mnet-maml", 50, 0.01)
    assert (hvae.objective, hvae.latent, hvae.hidden) == ("weights", 32, (256, 512))
    assert (hvae.epochs, hvae.lr, hvae.batch, hvae.grad_clip, hvae.kl_weight) == (2000, 1e-4, 32, 1000, 1)
    assert (ldm.hidden, ldm.time_dim, ldm.T, ldm.dropout) == ((8192, 16384, 8192), 150, 350, 0.2)
    assert (ldm.schedule, ldm.beta_start, ldm.beta_end) == ("linear", 1e-4, 0.06)
    assert (ldm.epochs, ldm.lr, ldm.batch, ldm.z_noise, ldm.unlabelled) == (1000, 2.5e-4, 128, 0, False)
    assert (config.questions.noise, config.questions.whiten, config.questions.descriptors) == (0, False, 1)
    assert config.sampling.sampler == "ddpm" and config.clip.resize == "squash"
    assert (config.eval.few_shot_steps, config.eval.few_shot_lr, config.eval.few_shot_z_lr) == (50, 0.01, 0.1)
    dataset = config.dataset
    assert (dataset.smallest, dataset.support_fraction, dataset.train_fraction, dataset.seed) == (21, 0.7, 0.7, 2021)


def test_table_3() -> None:
    """Epochs, rate, inner rate; all in meta-batches of 32, gradients at most 10, up to 10 inner steps."""
    lines = {
        "multitask": (300, 1e-4, None), "mnet_maml": (500, 3e-5, 0.01), "mnet_fomaml": (500, 3e-5, 0.01),
        "hnet_maml": (100, 3e-5, 0.1), "cond_multitask": (60, 1e-4, None), "film": (300, 1e-4, None),
        "cond_hnet_maml": (200, 1e-5, 0.1),
    }  # fmt: skip
    for method, (epochs, lr, inner_lr) in lines.items():
        recipe = getattr(paper().recipes, method)
        assert (recipe.epochs, recipe.lr, recipe.batch, recipe.grad_clip) == (epochs, lr, 32, 10), method
        assert inner_lr is None or (recipe.inner_lr, recipe.inner_steps) == (inner_lr, 10), method


def test_hyperclip_and_the_hypernetworks_of_the_paper() -> None:
    hyperclip, guidance, hnet = paper().hyperclip, paper().guidance, paper().hnet
    assert (hyperclip.hidden, hyperclip.epochs, hyperclip.lr, hyperclip.batch) == (256, 600, 3e-4, 64)
    assert (guidance.steps, guidance.lr, guidance.lam) == (10, 0.1, 0.01)
    assert (hnet.latent, hnet.hidden, hnet.scale, hnet.adapt_steps) == (64, (256,), 1.0, 50)


def test_hyperldm_has_the_shape_of_the_paper() -> None:
    """On the meta device, where half a billion weights cost nothing; E as in the paper."""
    settings = paper().ldm
    denoiser = Denoiser(32, 768, settings.hidden, settings.time_dim, None)
    condition = 768 + 150
    assert [tuple(block.main.weight.shape) for block in denoiser.blocks] == [
        (8192, 32 + condition), (16384, 8192 + condition), (8192, 16384 + condition)
    ]  # fmt: skip
    assert tuple(denoiser.out.weight.shape) == (32, 8192 + condition)
    schedule = schedule_of(settings)
    assert schedule.T == 350 and schedule.betas[-1] == 0.06


def test_the_hvae_has_the_shape_of_the_paper() -> None:
    settings, P = paper().hvae, WeightLayout(embed=768, hidden=paper().base_network.hidden).size
    assert P == 394_240
    with torch.device("meta"):
        scaler = WeightScaler(torch.zeros(P), torch.ones(()), settings.weight_clamp)
    hvae = HVAE(scaler, settings.latent, settings.hidden, None)
    assert widths(hvae.encoder) == [P, 512, 256, 2 * 32]
    assert widths(hvae.decoder.mlp) == [32, 256, 512, P]


def widths(layers: nn.Sequential) -> list[int]:
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def test_every_stage_runs(without_runs: Workspace) -> None:
    session = Session(without_runs, paper(*AFFORDED))
    init = finished(session, train_baseline(session))
    zoo = finished(session, build_zoo(session, init))
    generator = finished(session, train_generator(session, init))
    model = finished(session, train_ldm(session, generator))
    measured = finished(session, evaluate(session, [model]))
    for run in (init, generator, model):
        events = run.events()[0]
        assert [event.total_steps for event in events if isinstance(event, RunStarted)] == [2]
        assert all(torch.isfinite(torch.tensor(list(event.metrics.values()))).all()
                   for event in events if isinstance(event, StepLogged))  # fmt: skip
    E, H = miniature.encoder().embed, 256
    assert weights_of(zoo) == (len(miniature.dataset().tasks.of("train")), 2 * E * H + E + H)
    assert HyperLdm(model, CPU, session.config.sampling).decoder.latents.shape[1] == 32
    rows = (measured.result() or {})["rows"]
    assert {row["sampler"] for row in rows} == {None, "ddpm, all steps"}
    assert "Uncond. MNet-MAML" in {row["label"] for row in rows}
    assert sorted(run.kind for run in runs.list_runs(without_runs)) == ["baseline", "eval", "hvae", "ldm", "zoo"]


def weights_of(zoo: Run) -> tuple[int, ...]:
    return tuple(load_model(zoo, CPU).tensors["train"].shape)


@cache
def measured_before() -> Workspace:
    """A workspace for the rows of the table, which share what they are made of."""
    return miniature.copy(miniature.folder() / "paper", with_runs=False)


@pytest.mark.parametrize("key", BY_KEY)
def test_every_row_of_the_table_runs_with_the_paper_preset(key: str) -> None:
    doing = Session(measured_before(), paper(*SMALL))
    run = returned(measured_cell(doing, CellSpec(key, 0), Bench(doing)))
    tensors, _ = load_tensors(run.model_path, remedy="")
    judged = [value for value in tensors.values() if value.is_floating_point()]
    assert judged and all(0 <= float(value.min()) <= float(value.max()) == 1 for value in judged)
    trained = [other for other in runs.list_runs(doing.workspace) if other.kind in TRAINED]
    assert all(torch.isfinite(value).all() for other in trained for value in load_model(other, CPU).tensors.values())
