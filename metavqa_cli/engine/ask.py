"""`metavqa ask`: from a typed question to judged images. Start reading here.

encode the question → sample a latent → decode the weights → judge the images
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metavqa_cli.clip.encoder import TINY, ClipEncoder
from metavqa_cli.engine.classifier import Classifier, Judgement, check_encoder, judge
from metavqa_cli.engine.dataset import DatasetFolder, open_dataset
from metavqa_cli.engine.diffusion import HyperLdm
from metavqa_cli.engine.proposal import NEAREST, Neighbour, proposed_answers
from metavqa_cli.engine.request import Request, check_answers, check_gamma, check_question
from metavqa_cli.engine.session import Session, fewer_threads
from metavqa_cli.schema.config import Sampling
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.store.runs import Run
from metavqa_cli.tasks.arena import task_seed
from metavqa_cli.tasks.prompts import check_template, to_template
from metavqa_cli.tasks.taskset import Task

FAR = 0.6  # cosine (as the run sees questions, whitened) below which one is far from everything learned


@dataclass(frozen=True)
class Answer:
    """What one question led to. Times in milliseconds by phase; ``warnings`` are whole sentences."""

    classifier: Classifier
    judgements: list[Judgement]
    nearest: list[Neighbour]
    milliseconds: dict[str, float]
    warnings: list[str] = field(default_factory=list)


class Asker:
    """A loaded HyperLDM with its encoder, ready for many questions."""

    def __init__(self, session: Session, run: Run) -> None:
        self.ldm = HyperLdm(run, session.device, session.config.sampling, session.config.runtime)
        self.workspace, self.device = session.workspace, session.device
        self.encoder: ClipEncoder = session.encoder
        check_encoder(self.ldm.header["encoder"], self.encoder, f"the run {run.id}")

    @cached_property
    def dataset(self) -> DatasetFolder | None:
        """The dataset that the run learned from; None when it is gone, or another one has its name now."""
        made_from = self.ldm.run.manifest()["dataset"]
        if made_from["name"] not in self.workspace.datasets():
            return None
        found = open_dataset(self.workspace, made_from["name"])
        return found if found.fingerprint == made_from["fingerprint"] else None

    @cached_property
    def known(self) -> dict[str, Task]:
        """The training tasks, without their examples, by their questions; none without the dataset."""
        return {} if self.dataset is None else {task.question: task for task in self.dataset.questions.of("train")}

    @cached_property
    def known_e(self) -> Tensor:
        """The question embeddings [task, E] of the training tasks, whitened as the run sees them, with unit norm."""
        if self.dataset is None:
            return torch.zeros(0, self.encoder.embed, device=self.device)
        with self.dataset.unchanged():
            store = self.dataset.text_features
            rows = {text: row for row, text in enumerate(store.ids)}
            e = torch.from_numpy(store.rows([rows[question] for question in self.known])).to(self.device)
        return normalize(self.ldm.sampler.whitener(e), dim=1)

    def ask(
        self,
        request: Request,
        names: Sequence[str] = (),
        x: Tensor | None = None,
        before_step: Callable[[], None] | None = None,
    ) -> Answer:
        """Generate a classifier for the question and judge images by their embeddings ``x`` [image, E], if any.

        ``before_step`` is called before every denoising step; what it raises ends the work.
        """
        with fewer_threads(self.encoder.name == TINY):
            return self._ask(request, names, x, before_step)

    def _ask(
        self, request: Request, names: Sequence[str], x: Tensor | None, before_step: Callable[[], None] | None
    ) -> Answer:
        clock = Clock()
        with clock("encode"):
            question = check_question(request.question)
            e = self.encoder.encode_text([question])
            nearest, proposed = self.neighbours(e)
        with clock("generate"):
            classifier = self.generate(request, question, e, proposed, before_step)
        with clock("judge"):
            judgements = [] if x is None else judge(classifier, self.encoder, names, x)
        warnings = self.warnings(question, nearest, request, classifier)
        return Answer(classifier, judgements, nearest, clock.milliseconds, warnings)

    def generate(
        self,
        request: Request,
        question: str,
        e: Tensor,
        proposed: Sequence[str],
        before_step: Callable[[], None] | None = None,
    ) -> Classifier:
        """Algorithm 14: sample z for the question embedding e [1, E] and decode the weights; of several, their mean."""
        gamma = self.ldm.gamma if request.gamma is None else check_gamma(request.gamma)
        if request.answers is None and self.dataset is None:
            gone = self.ldm.run.manifest()["dataset"]["name"]
            raise MissingError(
                f"the dataset {gone!r}, which would propose answers, is gone; name them: --answers red,blue"
            )
        answers = check_answers(proposed if request.answers is None else request.answers)
        sampling = self.sampling(request)
        steps = sampling.denoising_steps(self.ldm.sampler.schedule.T)
        sampler, seeds = self.ldm.sampler.drawing(sampling), [task_seed(request.seed, question)]
        z = sampler(e, gamma, seeds, before_step=before_step)
        weights = self.ldm.decoder.decode(z)[0]
        if not weights.isfinite().all():
            raise JobError(f"gamma {gamma:g} gives weights that are not finite; lower it")
        return Classifier(
            weights=weights,
            layout=self.ldm.decoder.layout,
            question=question,
            answers=answers,
            template=check_template(request.template) if request.template is not None else self.template(question),
            logit_scale=self.ldm.decoder.logit_scale,
            encoder=self.encoder.identity,
            gamma=gamma,
            seed=request.seed,
            sampler={"sampler": sampling.sampler, "steps": steps, "samples": sampling.latents},
            runs={"ldm": self.ldm.run.id, "generator": self.ldm.decoder.run.id},
        )

    def sampling(self, request: Request) -> Sampling:
        """How latents are drawn: as configured, except for what the request says. ``UsageError`` for ddpm's steps."""
        asked = {"sampler": request.sampler, "steps": request.steps, "latents": request.samples}
        chosen = self.ldm.sampler.sampling.model_copy(update={k: v for k, v in asked.items() if v is not None})
        if chosen.sampler == "ddpm" and request.steps is not None:
            raise UsageError(
                f"ddpm takes all {self.ldm.sampler.schedule.T} steps of the diffusion, not {request.steps}; leave "
                "--steps out, or choose --sampler dpmpp_2m or ddim"
            )
        return chosen

    def template(self, question: str) -> str:
        """The dataset's own template for a question it knows, else the converter's."""
        return self.known[question].template if question in self.known else to_template(question).text

    def neighbours(self, e: Tensor) -> tuple[list[Neighbour], list[str]]:
        """The nearest training questions of e [1, E], and answers to propose; none without the dataset."""
        tasks = list(self.known.values())
        seen = normalize(self.ldm.sampler.whitener(e), dim=1)[0]
        similarity, rows = (self.known_e @ seen).topk(min(NEAREST, len(tasks)))
        near = [Neighbour(tasks[row].question, float(s)) for s, row in zip(similarity, rows.tolist(), strict=True)]
        return near, proposed_answers([tasks[row] for row in rows.tolist()])

    def warnings(
        self, question: str, nearest: Sequence[Neighbour], request: Request, classifier: Classifier
    ) -> list[str]:
        """What the person should know before trusting the answers."""
        found = []
        if nearest and nearest[0].similarity < FAR:
            found.append(f"the question is far from all training questions (nearest {nearest[0].similarity:.2f})")
        statements = classifier.statements()
        unknown = list(
            dict.fromkeys(word for text in (question, *statements) for word in self.encoder.unknown_words(text))
        )
        if unknown:
            found.append(f"the built-in encoder does not know {', '.join(map(repr, unknown[:5]))}")
        if self.encoder.is_too_long(question):
            found.append(
                f"the question is longer than {self.encoder.context_length} tokens; the encoder reads the start"
            )
        if any(map(self.encoder.is_too_long, statements)):
            found.append(
                f"a statement is longer than {self.encoder.context_length} tokens; the encoder reads the start"
            )
        if request.template is None and question not in self.known and to_template(question).is_fallback:
            found.append(
                "the question could not be turned into a statement; choose one with --template 'the car is {}'"
            )
        if self.encoder.name == TINY:
            found.append("the built-in encoder knows only the Scenes world, not photographs")
        return found


class Clock:
    """Milliseconds spent in named phases."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[phase] = round(1000 * (time.perf_counter() - start), 2)


def embed_files(encoder: ClipEncoder, paths: Sequence[Path]) -> Tensor:
    """Unit-norm embeddings [image, E] of image files, all of which must be good. Errors as ``open_image``."""
    return torch.cat(list(encoder.encode_files(paths)))
