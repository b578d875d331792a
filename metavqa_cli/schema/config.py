"""The whole configuration as frozen pydantic models: one section a concern, every field with a sentence.

Values are merged from several layers by ``schema.layers``; this module only says what is valid.
Field names are the paper's symbols or the field's standard terms. Sections that a run depends on are hashed into its
id, so that the same command finds its finished run (``RUN_SECTIONS``).
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from metavqa_cli.schema.samplers import Sampler

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
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of training and sampling; auto: on a GPU bf16 where accuracy allows, else TF32"
    )
    deterministic: bool = Field(
        False, description="the same bits from every run on machines of one kind: slower algorithms, one CPU thread"
    )
    cuda_graphs: bool = Field(True, description="on an NVIDIA GPU, record the denoiser's step for few questions")
    threads: int = Field(0, ge=0, description="CPU threads for tensor work; 0 means all cores")
    workers: int = Field(0, ge=0, description="processes that draw or decode images; 0 means all cores")
    image_batch: Positive = Field(256, description="images that the encoder sees at once")
    checkpoint_seconds: float = Field(30.0, gt=0, description="least time between checkpoints of a running job")


SourceName = Literal["scenes", "vqa2", "hyperclip", "folder"]
COMMON_FIELDS = ("name", "source", "validation_fraction")
CUT_FIELDS = ("seed", "protocol", "min_pairs", "min_answers", "support_fraction", "train_fraction")
FOUND_FIELDS = ("path", "image_roots", "match", "exclude")
SOURCE_FIELDS: dict[SourceName, tuple[str, ...]] = {
    "scenes": (*CUT_FIELDS, "images", "image_size", "pairs_per_task", "questions"),
    "vqa2": (*CUT_FIELDS, *FOUND_FIELDS, "question_files", "annotation_files", "answer_types"),
    "hyperclip": (*FOUND_FIELDS, "seed"),
    "folder": (*CUT_FIELDS, *FOUND_FIELDS),
}


DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def _portable(name: str) -> str:
    """A folder name that Windows can hold too: a workspace may be copied there. ``ValueError`` for another."""
    if name.endswith("."):
        raise ValueError("a name that ends in a dot is another one on Windows; leave the dot out")
    if name.split(".")[0].lower() in DEVICES:
        raise ValueError("Windows has a device of this name; choose another name")
    return name


class Dataset(Section):
    """Which tasks: the source, how they are cut, and their images."""

    name: Annotated[str, AfterValidator(_portable)] = Field(
        "scenes", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="folder name in the workspace"
    )
    source: SourceName = Field("scenes", description="where questions, answers and images come from")
    path: str = Field("", description="folder with the files of vqa2 or hyperclip; table, or its folder, of folder")
    question_files: tuple[str, ...] = Field((), description="VQA question files, in place of those found under path")
    annotation_files: tuple[str, ...] = Field((), description="VQA annotation files, in the order of question_files")
    image_roots: tuple[str, ...] = Field((), description="folders or zips of images, in place of those under path")
    tasks_only: bool = Field(False, description="stop before images and features")
    skip_broken: bool = Field(False, description="leave out images that are missing or damaged, and their pairs")
    protocol: Literal["hyperclip", "paper"] = Field(
        "hyperclip", description="hyperclip: more than 20 pairs, as released; paper: at least 20, as written"
    )
    answer_types: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("number", "other"), description="VQA answer types kept; the release leaves out yes/no"
    )
    match: str = Field("", description="keep only questions in which this regular expression is found")
    exclude: str = Field("", description="leave out questions in which this regular expression is found")
    images: Positive = Field(24_000, description="images in the Scenes world")
    image_size: int = Field(64, ge=32, le=512, description="side of a Scenes image in pixels")
    pairs_per_task: Positive = Field(84, description="image-answer pairs a Scenes question aims at")
    questions: int = Field(0, ge=0, description="keep only this many Scenes questions; 0 keeps all")
    seed: int = Field(2021, ge=0, lt=2**63, description="seed of the world and of the splits (2021 in the release)")
    min_pairs: Positive | None = Field(None, description="smallest task kept; none: as the protocol says")
    min_answers: int = Field(2, ge=2, description="fewest answers of a task")
    support_fraction: Share = Field(0.7, description="share of each answer's images in the support set")
    train_fraction: Share = Field(0.7, description="share of the tasks used for training")
    validation_fraction: Share = Field(0.1, description="share of the training tasks kept for validation")

    @property
    def smallest(self) -> int:
        """Pairs that a task must have at least."""
        return self.min_pairs or {"hyperclip": 21, "paper": 20}[self.protocol]

    def recipe(self) -> dict[str, Any]:
        """What the dataset's content depends on: the fields that its source reads."""
        return self.model_dump(mode="json", include={*COMMON_FIELDS, *SOURCE_FIELDS[self.source]})


class Clip(Section):
    """The frozen encoder."""

    model: str = Field(
        "tiny", description="tiny, local-dir:DIR, hf-hub:REPO, or open_clip's MODEL/TAG or MODEL/FILE of weights"
    )
    resize: Literal["model", "squash", "crop", "pad"] = Field(
        "model", description="how an image becomes a square: as the model was trained (model), or as said"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="arithmetic of the encoder; auto: bf16 on a GPU that has it, else fp32"
    )


class BaseNetwork(Section):
    """f(x, W): the CLIP-Adapter whose weights are generated (Appendix A.2)."""

    hidden: Positive = Field(32, description="hidden width H")
    logit_scale: Rate = Field(30.0, description="multiplier of the cosine between image and answer")
    init: Literal["near-clip", "paper"] = Field(
        "near-clip", description="near-clip: second layer and biases zero; paper: N(0, 1)"
    )


BaselineMethod = Literal[
    "multitask", "mnet-maml", "mnet-fomaml", "hnet-maml", "cond-multitask", "film", "cond-hnet-maml"
]
CONDITIONAL: tuple[BaselineMethod, ...] = ("cond-multitask", "film", "cond-hnet-maml")


class Recipe(Section):
    """How one baseline is trained: a line of the paper's Table 3."""

    epochs: Positive = Field(15, description="passes over the training tasks")
    lr: Rate = Field(1e-3, description="Adam learning rate")
    batch: Positive = Field(32, description="tasks in a meta-batch")
    grad_clip: Rate = Field(10.0, description="gradient norm limit")
    inner_lr: Rate = Field(0.1, description="inner-loop learning rate (MAML)")
    inner_steps: Annotated[int, Field(ge=0)] = Field(
        10, description="inner steps are drawn uniformly from 0 to this (MAML)"
    )


class Recipes(Section):
    """Every baseline's own recipe (Table 3)."""

    multitask: Recipe = Recipe()
    mnet_maml: Recipe = Recipe(epochs=5)
    mnet_fomaml: Recipe = Recipe(epochs=8)
    hnet_maml: Recipe = Recipe(epochs=4, inner_lr=1.0)
    cond_multitask: Recipe = Recipe(epochs=30, lr=2e-3)
    film: Recipe = Recipe(epochs=30, lr=3e-3)
    cond_hnet_maml: Recipe = Recipe(epochs=5, lr=2e-3, inner_lr=0.01, inner_steps=5)


class Baseline(Section):
    """Which baseline of Table 2, and what of its recipe is to be otherwise; none: as in its recipe."""

    method: BaselineMethod = Field("multitask", description="row of Table 2")
    epochs: Positive | None = Field(None, description="in place of the recipe's epochs")
    lr: Rate | None = Field(None, description="in place of the recipe's lr")
    batch: Positive | None = Field(None, description="in place of the recipe's batch")
    grad_clip: Rate | None = Field(None, description="in place of the recipe's grad_clip")
    inner_lr: Rate | None = Field(None, description="in place of the recipe's inner_lr")
    inner_steps: Annotated[int, Field(ge=0)] | None = Field(None, description="in place of the recipe's inner_steps")


class Hnet(Section):
    """Hypernetworks trained on the task loss: HNet-MAML, Cond. Multitask and Cond. HNet-MAML (Appendix A.2)."""

    latent: Positive = Field(16, description="latent size of the unconditional one")
    hidden: Widths = Field((256,), description="widths of its hidden layers")
    scale: Rate = Field(0.1, description="how far an output of 1 moves a weight from the initialisation")
    adapt_steps: Positive = Field(50, description="gradient steps to a training task's latent (A.7.2)")


class Questions(Section):
    """How every part that is conditioned on questions sees them in training."""

    descriptors: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the training tasks whose question is known; the rest are tasks without a question"
    )
    whiten: bool = Field(True, description="whiten the question embeddings (the paper takes them as they are)")
    floor: Rate = Field(1e-3, description="least s.d. that whitening magnifies, relative to the largest")
    noise: Annotated[float, Field(ge=0)] = Field(0.15, description="s.d. of noise on the questions, relative to theirs")


class Zoo(Section):
    """One fine-tuned classifier for each training task (Appendix A.7.1)."""

    init: Literal["multitask", "mnet-maml", "mnet-fomaml"] = Field(
        "multitask", description="initialisation that classifiers and generators start from"
    )
    steps: Positive = Field(50, description="gradient steps on the support set")
    lr: Rate = Field(0.1, description="their learning rate")


Objective = Literal["weights", "task"]


class Hvae(Section):
    """The generator h(z, theta), and how the paper trains it: a VAE of fine-tuned weights (Algorithm 8)."""

    objective: Objective = Field(
        "task", description="weights: VAE on the zoo (the paper); task: the tasks' cross-entropy"
    )
    latent: Positive = Field(32, description="latent size L")
    hidden: Widths = Field((256, 256), description="decoder widths, latent side first; the VAE's encoder mirrors them")
    epochs: Positive = Field(30, description="passes over the training tasks (objective weights)")
    lr: Rate = Field(1e-3, description="Adam learning rate (objective weights)")
    batch: Positive = Field(48, description="tasks in a batch (objective weights)")
    grad_clip: Rate = Field(1000.0, description="gradient norm limit of encoder and decoder, each (objective weights)")
    kl_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the KL term")
    weight_clamp: Rate = Field(10.0, description="standardised weight differences are clamped at plus or minus this")


class TaskLatents(Section):
    """How the generator is trained with objective task: one latent for each task, on the tasks' own cross-entropy."""

    epochs: Positive = Field(60, description="passes over the training tasks")
    lr: Rate = Field(2e-3, description="Adam learning rate of the decoder")
    z_lr: Rate = Field(0.03, description="Adam learning rate of the latents, each of which is seen once an epoch")
    batch: Positive = Field(32, description="tasks in a batch")
    grad_clip: Rate = Field(1.0, description="gradient norm limit")
    scale: Rate = Field(
        0.05, description="s.d. of a fresh decoder's weights around the initialisation, for latents of s.d. 1"
    )
    z_init: Rate = Field(0.05, description="s.d. of the latents at the start; small, so that like tasks stay close")
    z_noise: Annotated[float, Field(ge=0)] = Field(1.0, description="s.d. of the noise on each task's latent")
    z_penalty: Annotated[float, Field(ge=0)] = Field(0.001, description="weight of the squared norm of the latents")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.3, description="decoupled weight decay of the decoder, against remembering images"
    )
    decay: Fraction = Field(0.5, description="last share of the training in which the learning rates fall to zero")
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
    anchor: bool = Field(
        True, description="diffuse what a Gaussian process cannot predict from the question (the paper: all of it)"
    )
    unlabelled: bool = Field(
        True, description="tasks whose question is hidden teach the unconditional prediction (else they are left out)"
    )
    epochs: Positive = Field(60, description="passes over the training tasks")
    lr: Rate = Field(3e-3, description="Adam learning rate")
    batch: Positive = Field(128, description="latents in a batch")
    decay: Fraction = Field(0.5, description="last share of the training in which the learning rate falls to zero")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.995, description="decay of the averaged weights used for sampling"
    )
    grad_clip: Rate = Field(1.0, description="gradient norm limit")
    gamma: Gamma | None = Field(None, description="guidance scale of the run; none: chosen on the validation tasks")


class Hyperclip(Section):
    """HyperCLIP: from weights to CLIP embeddings, by contrast with the questions (Algorithm 1, Appendix A.7.2)."""

    hidden: Positive = Field(256, description="width of its tanh layer")
    epochs: Positive = Field(
        100, description="passes over the training tasks (as many steps, however few are described)"
    )
    lr: Rate = Field(3e-4, description="Adam learning rate")
    batch: Positive = Field(128, description="tasks in a batch")
    grad_clip: Rate = Field(10.0, description="gradient norm limit")
    z_noise: Annotated[float, Field(ge=0)] = Field(
        0.5, description="s.d. of noise on the latents whose weights it learns, relative to theirs"
    )


class Guidance(Section):
    """HyperCLIP at inference: gradient descent in latent space (Eq. 4), in the score (Eq. 11), and as a judge."""

    steps: Positive = Field(10, description="gradient steps in latent space (Algorithm 11)")
    lr: Rate = Field(0.1, description="their learning rate, in standardised latents")
    lam: Annotated[float, Field(ge=0)] = Field(0.01, description="weight of the distance from the start (lambda)")
    eta: Annotated[float, Field(ge=0)] | None = Field(
        None, description="weight of HyperCLIP's gradient in the score (Eq. 11); none: chosen on the validation tasks"
    )
    candidates: Positive = Field(16, description="latents among which best-of-N chooses")
    keep: Positive = Field(4, description="best latents of which best-of-N takes the mean")


class Regression(Section):
    """The control: a two-layer network from the question straight to the latent or to the weights."""

    hidden: Positive = Field(512, description="hidden width")
    epochs: Positive = Field(
        120, description="passes over the training tasks (as many steps, however few are described)"
    )
    lr: Rate = Field(2e-3, description="Adam learning rate")
    batch: Positive = Field(128, description="tasks in a batch")
    grad_clip: Rate = Field(1.0, description="gradient norm limit")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="decay of the averaged weights that are used")


class Sampling(Section):
    """How latents are drawn from HyperLDM."""

    sampler: Sampler = Field("dpmpp_2m", description="dpmpp_2m (DPM-Solver++), ddim (eta 0) or ddpm (all T steps)")
    steps: Positive = Field(5, description="denoising steps of dpmpp_2m and ddim")
    temperature: Annotated[float, Field(ge=0, le=1)] = Field(
        0.3, description="what multiplies the noise that samples come from (the paper's: 1)"
    )
    latents: Positive = Field(4, description="latents drawn for a question, whose mean is decoded (the paper's: 1)")

    def denoising_steps(self, T: int) -> int:
        """How often the denoiser is called in a diffusion of ``T`` steps: ddpm leaves none out."""
        return T if self.sampler == "ddpm" else self.steps


class Evaluation(Section):
    """What `metavqa eval` measures."""

    gammas: Annotated[tuple[Gamma, ...], Field(min_length=1)] = Field(
        (0.0, 1.0, 1.5, 2.0), description="guidance scales"
    )
    samples: Positive = Field(1, description="latents drawn for each task; accuracies are averaged over them")
    few_shot_steps: Positive = Field(50, description="gradient steps on the support set")
    few_shot_lr: Rate = Field(0.05, description="their learning rate in weight space")
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
    recipes: Recipes = Recipes()
    hnet: Hnet = Hnet()
    questions: Questions = Questions()
    zoo: Zoo = Zoo()
    hvae: Hvae = Hvae()
    task_latents: TaskLatents = TaskLatents()
    ldm: Ldm = Ldm()
    hyperclip: Hyperclip = Hyperclip()
    guidance: Guidance = Guidance()
    regression: Regression = Regression()
    sampling: Sampling = Sampling()
    eval: Evaluation = Evaluation()

    def recipe(self) -> Recipe:
        """How the chosen baseline is trained: its own recipe, with what ``baseline`` wants otherwise."""
        own = getattr(self.recipes, self.baseline.method.replace("-", "_"))
        wanted = {name: value for name, value in self.baseline if name != "method" and value is not None}
        return own.model_copy(update=wanted)


# The sections that a run of each kind depends on by itself; its parents carry the rest. A baseline also depends on its
# own recipe, and on how it reads questions if it does (``engine.perform.sections``).
RUN_SECTIONS: dict[str, tuple[str, ...]] = {
    "baseline": ("seed", "base_network"),
    "zoo": ("seed", "base_network", "zoo"),
    "hvae": ("seed", "base_network", "hvae", "task_latents"),
    "ldm": ("seed", "questions", "ldm", "sampling"),
    "hyperclip": ("seed", "questions", "hyperclip"),
    "regression": ("seed", "questions", "regression"),
    "eval": ("seed", "sampling", "eval"),
    "cell": ("seed", "questions", "base_network", "sampling", "guidance", "eval"),
    "identify": ("eval",),
    "novelty": ("seed", "sampling"),
}
