"""The rows of the results table: what each method is called, and what it can do. No tensors: listing it is cheap."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["paper", "ours", "control"]


@dataclass(frozen=True)
class Method:
    """One row. ``conditional``: it reads training questions, so that hidden descriptors matter. ``gammas``: its
    guidance scales in the table; None is the one chosen on validation tasks. ``few_shot`` says what is adapted.
    ``plain``: HyperLDM is the paper's whatever is configured: no anchor, and one latent from all of the noise."""

    key: str
    label: str
    role: Role
    conditional: bool = False
    zero_shot: bool = True
    few_shot: Literal["W", "z", "e"] | None = None
    gammas: tuple[float | None, ...] | None = None
    plain: bool = False


LDM_GAMMAS = (1.0, 1.5, None)
METHODS: tuple[Method, ...] = (
    Method("clip", "CLIP as base model", "paper", few_shot="W"),
    Method("multitask", "Uncond. Multitask", "paper", few_shot="W"),
    Method("mnet-maml", "Uncond. MNet-MAML", "paper", few_shot="W"),
    Method("mnet-fomaml", "Uncond. MNet-FOMAML", "paper", few_shot="W"),
    Method("hnet-maml", "Uncond. HNet-MAML", "paper", few_shot="z"),
    Method("cond-multitask", "Cond. Multitask", "paper", conditional=True, few_shot="e"),
    Method("film", "Cond. Multitask FiLM", "paper", conditional=True),
    Method("cond-hnet-maml", "Cond. HNet-MAML", "paper", conditional=True, few_shot="e"),
    Method("hnet-hyperclip", "HNet + HyperCLIP guidance", "paper", conditional=True),
    Method("hvae-hyperclip", "HVAE + HyperCLIP guidance", "paper", conditional=True),
    Method("hnet-ldm", "HNet + HyperLDM", "paper", conditional=True, gammas=LDM_GAMMAS, plain=True),
    Method("hvae-ldm", "HVAE + HyperLDM", "paper", conditional=True, gammas=LDM_GAMMAS, plain=True),
    Method("task-hyperclip", "Task + HyperCLIP guidance", "ours", conditional=True),
    Method("task-ldm", "Task + HyperLDM", "ours", conditional=True, few_shot="z", gammas=LDM_GAMMAS),
    Method("task-ldm-plain", "Task + HyperLDM without anchor", "ours", True, gammas=LDM_GAMMAS, plain=True),
    Method("task-ldm-eq11", "Task + HyperLDM + HyperCLIP (Eq. 11)", "ours", conditional=True, gammas=(1.0, None)),
    Method("task-ldm-best", "Task + HyperLDM, best of N", "ours", conditional=True, gammas=(None,)),
    Method(
        "task-ldm-w",
        "Task + HyperLDM, adapting W",
        "ours",
        conditional=True,
        zero_shot=False,
        few_shot="W",
        gammas=(None,),
    ),
    Method("task", "Task-loss generator", "ours", zero_shot=False, few_shot="z"),
    Method("regression", "regression e → z (task)", "control", conditional=True),
    Method("gp", "Gaussian process e → z (task)", "control", conditional=True),
)
CONTROLS: tuple[Method, ...] = (
    Method("regression-hvae", "regression e → z (HVAE)", "control", conditional=True),
    Method("regression-w", "regression e → W", "control", conditional=True),
    Method("nearest-task", "nearest question's weights (task)", "control", conditional=True),
    Method("nearest-zoo", "nearest question's weights (zoo)", "control", conditional=True),
    Method("kernel-task", "kernel average of weights (task)", "control", conditional=True),
    Method("kernel-zoo", "kernel average of weights (zoo)", "control", conditional=True),
    Method("zoo-mean", "mean of the zoo", "control"),
    Method("zoo-gaussian", "Gaussian fitted to the zoo", "control"),
    Method("support-majority", "majority answer of the support set", "control", zero_shot=False, few_shot="W"),
)
BY_KEY = {method.key: method for method in (*METHODS, *CONTROLS)}
Control = Literal["shuffled", "empty", "random-words", "other"]
QUESTION_CONTROLS: tuple[Control, ...] = ("shuffled", "empty", "random-words", "other")
