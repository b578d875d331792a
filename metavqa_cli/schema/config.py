"""The whole configuration as frozen pydantic models: one section a concern, every field with a sentence.

Values are merged from several layers by ``schema.layers``; this module only says what is valid.
Field names are the paper's symbols or the field's standard terms. Sections that a run depends on are hashed into its
id, so that the same command finds its finished run (``RUN_SECTIONS``).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Gamma = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Widths = Annotated[tuple[Positive, ...], Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Runtime(Section):
    """Where the work runs. Never part of a run's identity."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    threads: int = Field(0, ge=0, description="CPU threads for tensor work; 0 means all cores")
    workers: int = Field(0, ge=0, description="processes that draw or decode images; 0 means all cores")
    checkpoint_seconds: float = Field(30.0, gt=0, description="time between checkpoints of a running job")


class Dataset(Section):
    """Which tasks: the source, how they are cut, and their images."""

    name: str = Field(
        "scenes", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="folder name in the workspace"
    )
    source: Literal["scenes"] = Field("scenes", description="where questions, answers and images come from")
    images: Positive = Field(24_000, description="images in the Scenes world")
    image_size: int = Field(64, ge=32, le=512, description="side of a Scenes image in pixels")
    pairs_per_task: Positive = Field(84, description="image-answer pairs a Scenes question aims at")
    questions: int = Field(0, ge=0, description="keep only this many Scenes questions; 0 keeps all")
    seed: int = Field(2021, ge=0, lt=2**63, description="seed of the world and of the splits (2021 in the release)")
    min_pairs: Positive = Field(21, description="smallest task kept: 'more than 20 pairs'")
    support_fraction: Share = Field(0.7, description="share of each answer's images in the support set")
    train_fraction: Share = Field(0.7, description="share of the tasks used for training")
    validation_fraction: Share = Field(0.1, description="share of the training tasks kept for validation")


class Clip(Section):
    """The frozen encoder."""

    model: str = Field("tiny", description="tiny, local-dir:DIR, hf-hub:REPO or MODEL/TAG of open_clip")


class BaseNetwork(Section):
    """f(x, W): the CLIP-Adapter whose weights are generated (Appendix A.2)."""

    hidden: Positive = Field(32, description="hidden width H")
    logit_scale: Rate = Field(30.0, description="multiplier of the cosine between image and answer")
    init: Literal["near-clip", "paper"] = Field(
        "near-clip", description="near-clip: second layer and biases zero; paper: N(0, 1)"
    )


class Baseline(Section):
    """Uncond. Multitask (Algorithm 2) and MNet-MAML / FOMAML (Algorithm 3); Table 3."""

    method: Literal["multitask", "mnet-maml", "mnet-fomaml"] = Field("multitask", description="how W is learned")
    epochs: Positive = Field(15, description="passes over the training tasks")
    lr: Rate = Field(1e-3, description="Adam learning rate")
    batch: Positive = Field(32, description="tasks in a meta-batch")
    grad_clip: Rate = Field(10.0, description="gradient norm limit")
    inner_lr: Rate = Field(0.01, description="inner-loop learning rate (MAML)")
    inner_steps: Annotated[int, Field(ge=0)] = Field(
        10, description="inner steps are drawn uniformly from 0 to this (MAML)"
    )


class Zoo(Section):
    """One fine-tuned classifier for each training task (Appendix A.7.1)."""

    steps: Positive = Field(50, description="gradient steps on the support set")
    lr: Rate = Field(0.1, description="their learning rate")


Objective = Literal["weights", "task"]


class Hvae(Section):
    """The generator h(z, theta), and how the paper trains it: a VAE of fine-tuned weights (Algorithm 8)."""

    objective: Objective = Field(
        "task", description="weights: VAE on the zoo (the paper); task: the tasks' cross-entropy"
    )
    latent: Positive = Field(16, description="latent size L")
    hidden: Widths = Field((256, 256), description="decoder widths, latent side first; the VAE's encoder mirrors them")
    epochs: Positive = Field(30, description="passes over the training tasks (objective weights)")
    lr: Rate = Field(1e-3, description="Adam learning rate (objective weights)")
    batch: Positive = Field(48, description="tasks in a batch (objective weights)")
    grad_clip: Rate = Field(1000.0, description="gradient norm limit of encoder and decoder, each (objective weights)")
    kl_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the KL term")
    weight_clamp: Rate = Field(10.0, description="standardised weight differences are clamped at plus or minus this")


class TaskLatents(Section):
    """How the generator is trained with objective task: one latent for each task, on the tasks' own cross-entropy."""

    epochs: Positive = Field(30, description="passes over the training tasks")
    lr: Rate = Field(2e-3, description="Adam learning rate of the decoder")
    z_lr: Rate = Field(0.03, description="Adam learning rate of the latents, each of which is seen once an epoch")
    batch: Positive = Field(48, description="tasks in a batch")
    grad_clip: Rate = Field(1.0, description="gradient norm limit")
    scale: Rate = Field(
        0.02, description="s.d. of a fresh decoder's weights around the initialisation, for latents of s.d. 1"
    )
    z_init: Rate = Field(0.05, description="s.d. of the latents at the start; small, so that like tasks stay close")
    z_noise: Annotated[float, Field(ge=0)] = Field(0.5, description="s.d. of the noise on each task's latent")
    z_penalty: Annotated[float, Field(ge=0)] = Field(0.005, description="weight of the squared norm of the latents")
    adapt_lr: Rate = Field(4.0, description="rate of the adaptation in latent space that validates it")


class Ldm(Section):
    """HyperLDM: the latent diffusion model conditioned on the question (Section 5, Eq. 9)."""

    hidden: Widths = Field((512, 512), description="widths of the residual MLP with squeeze-and-excitation")
    time_dim: int = Field(150, ge=2, description="size of the sinusoidal time embedding")
    T: int = Field(350, ge=2, description="diffusion steps")
    schedule: Literal["linear", "scaled_linear"] = Field(
        "linear", description="linear in beta (DDPM), or in its square root"
    )
    beta_start: Rate = Field(1e-4, lt=1, description="first beta")
    beta_end: Rate = Field(0.06, lt=1, description="last beta")
    dropout: Fraction = Field(0.1, description="probability that a question is replaced by zeros in training")
    z_noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="s.d. of noise on the standardised latents it learns"
    )
    whiten: bool = Field(True, description="whiten the question embeddings (the paper takes them as they are)")
    e_noise: Annotated[float, Field(ge=0)] = Field(
        0.15, description="s.d. of noise on the questions, relative to theirs"
    )
    e_floor: Rate = Field(1e-3, description="least s.d. that whitening magnifies, relative to the largest")
    epochs: Positive = Field(250, description="passes over the training tasks")
    lr: Rate = Field(3e-3, description="Adam learning rate")
    batch: Positive = Field(128, description="latents in a batch")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.995, description="decay of the averaged weights used for sampling"
    )
    grad_clip: Rate = Field(1.0, description="gradient norm limit")
    gamma: Gamma | None = Field(None, description="guidance scale of the run; none: chosen on the validation tasks")


class Sampling(Section):
    """How latents are drawn from HyperLDM."""

    sampler: Literal["ddim", "ddpm"] = Field("ddim", description="ddim (eta 0) or ddpm (all T steps)")
    steps: Positive = Field(25, description="denoising steps of ddim")


class Evaluation(Section):
    """What `metavqa eval` measures."""

    gammas: Annotated[tuple[Gamma, ...], Field(min_length=1)] = Field(
        (0.0, 1.0, 1.5, 2.0), description="guidance scales"
    )
    samples: Positive = Field(1, description="latents drawn for each task; accuracies are averaged over them")
    few_shot_steps: Positive = Field(50, description="gradient steps on the support set")
    few_shot_lr: Rate = Field(0.1, description="their learning rate in weight space")
    few_shot_z_lr: Rate = Field(4.0, description="their learning rate in latent space")
    bootstrap: int = Field(2_000, ge=100, description="resamples of the tasks for the 95 % intervals")


class Config(Section):
    """Everything a job can be told."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random choice in training and sampling")
    runtime: Runtime = Runtime()
    dataset: Dataset = Dataset()
    clip: Clip = Clip()
    base_network: BaseNetwork = BaseNetwork()
    baseline: Baseline = Baseline()
    zoo: Zoo = Zoo()
    hvae: Hvae = Hvae()
    task_latents: TaskLatents = TaskLatents()
    ldm: Ldm = Ldm()
    sampling: Sampling = Sampling()
    eval: Evaluation = Evaluation()


# The sections that a run of each kind depends on by itself; its parents carry the rest.
RUN_SECTIONS: dict[str, tuple[str, ...]] = {
    "baseline": ("seed", "base_network", "baseline"),
    "zoo": ("seed", "base_network", "zoo"),
    "hvae": ("seed", "base_network", "hvae", "task_latents"),
    "ldm": ("seed", "ldm", "sampling"),
    "eval": ("seed", "sampling", "eval"),
}
