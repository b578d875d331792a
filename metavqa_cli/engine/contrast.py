"""`metavqa train hyperclip`: the encoder of weights, by contrast with the questions (Algorithms 1, 9 and 10)."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metavqa_cli.engine.dataset import open_dataset
from metavqa_cli.engine.generators import Decoder, adapted_latents
from metavqa_cli.engine.lineage import parent_run
from metavqa_cli.engine.loop import train
from metavqa_cli.engine.measure import by_task, training_plan
from metavqa_cli.engine.models import load_model, save_model
from metavqa_cli.engine.perform import perform
from metavqa_cli.engine.questions import KnownQuestions
from metavqa_cli.engine.session import Session
from metavqa_cli.engine.world import here
from metavqa_cli.generator.layers import normal_like
from metavqa_cli.guidance.hyperclip import HyperCLIP, contrastive_loss, rank_questions
from metavqa_cli.guidance.hyperldm import QuestionWhitener
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.events import Event
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import Arena
from metavqa_cli.tasks.transfer import to_device

PATIENCE = 4


class HyperclipTraining:
    """Algorithm 1 on the described training tasks, validated by naming the questions of the validation tasks.

    The weights of a task are what the generator decodes near its latent, which is what guidance will show it. Beside
    them, an HVAE's HyperCLIP sees the fine-tuned weights of the ``zoo`` [task, P] themselves (Algorithm 10).
    """

    def __init__(self, config: Config, decoder: Decoder, zoo: Tensor | None, train: Arena, validation: Arena) -> None:
        self.config, self.decoder, self.data, self.validation = config, decoder, train, validation
        self.questions = KnownQuestions(train, config.questions)
        self.z = decoder.latents[self.questions.rows]
        self.spread = config.hyperclip.z_noise * decoder.latents.std(0)
        self.zoo = None if zoo is None else zoo[self.questions.rows]
        weights = decoder.decode(self.z)
        mean = weights.mean(0)
        scale = (weights - mean).square().mean().sqrt().clamp_min(1e-12)
        generator = torch.Generator().manual_seed(config.seed)
        embed, device = train.embed, train.device
        self.module = HyperCLIP(embed, config.hyperclip.hidden, mean.cpu(), scale.cpu(), generator).to(device)
        self.validation_z = by_task(validation.pairs, lambda batch, rows: adapted_latents(decoder, batch, config))

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chosen, e = self.questions.batch(self.config.hyperclip.batch, step, self.config.seed, generator)
        chosen = to_device(chosen, self.z.device)
        z = self.z[chosen]
        z = z + self.spread * normal_like(z, generator)
        share, gathered = here().share(len(e)), partial(here().gathered, n=len(e))
        loss, metrics = contrastive_loss(self.module, self.decoder.decode(z[share.rows]), e, share.rows, gathered)
        if self.zoo is not None:
            fine_tuned, _ = contrastive_loss(self.module, self.zoo[chosen[share.rows]], e, share.rows, gathered)
            loss = (loss + fine_tuned) / 2
        return share.of(loss, metrics)

    def tasks(self, step: int) -> Arena:
        """Those of the batch of ``step``."""
        chosen = self.questions.chosen(self.config.hyperclip.batch, step, self.config.seed)
        return self.data.select(self.questions.rows[chosen])

    def validate(self, module: HyperCLIP) -> dict[str, float]:
        """How often the right one of the validation questions is ranked first (``accuracy``), or in the first five."""
        e = self.questions.whitener(self.validation.e)
        similarities = rank_questions(module, self.decoder.decode(self.validation_z), e)
        rank = (similarities > similarities.diagonal()[:, None]).sum(1)
        return {"accuracy": 100 * float((rank == 0).float().mean()),
                "top5_accuracy": 100 * float((rank < 5).float().mean())}  # fmt: skip


def train_hyperclip(session: Session, generator: Run) -> Iterator[Event]:
    """Train HyperCLIP for the generator run; ends with ``RunFinished``."""
    parents = {"generator": generator}
    if generator.manifest()["parents"].get("zoo"):
        parents["zoo"] = parent_run(generator, "zoo")
    extra = {"variant": generator.manifest()["variant"]}
    yield from perform(session, "hyperclip", parents, extra, partial(_train_hyperclip, session, parents))


def _train_hyperclip(session: Session, parents: dict[str, Run], run: Run) -> Iterator[Event | dict[str, Any]]:
    config = session.config
    dataset = open_dataset(session.workspace, config.dataset.name)
    data, validation = (dataset.arena(split, session.device) for split in ("train", "validation"))
    decoder = Decoder(load_model(parents["generator"], session.device))
    zoo = load_model(parents["zoo"], session.device).tensors["train"] if "zoo" in parents else None
    training = HyperclipTraining(config, decoder, zoo, data, validation)
    plan = training_plan(
        config, len(data), config.hyperclip, patience=PATIENCE, arithmetic=session.arithmetic("hyperclip")
    )
    yield from train(run, training, plan, session.device)
    tensors = {f"hyperclip.{name}": value.detach() for name, value in training.module.state_dict().items()}
    tensors |= {f"whitener.{name}": value for name, value in training.questions.whitener.state_dict().items()}
    save_model(run, session, tensors, {"embed": data.embed, "layout": decoder.layout.to_dict()})
    yield {"validation": training.validate(training.module), "candidates": len(validation)}


class HyperClip:
    """A finished HyperCLIP run, with the generator whose weights it reads."""

    def __init__(self, run: Run, device: torch.device) -> None:
        model = load_model(run, device)
        state = {name[10:]: value for name, value in model.tensors.items() if name.startswith("hyperclip.")}
        self.run, self.header = run, model.header
        self.module = HyperCLIP(model.header["embed"], len(state["hidden.bias"]), state["mean"], state["scale"], None)
        self.module.load_state_dict(state, assign=True)
        self.module.requires_grad_(False)
        self.whitener = QuestionWhitener(model.tensors["whitener.mean"], model.tensors["whitener.transform"])
