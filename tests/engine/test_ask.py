"""From a typed question to judged images."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metavqa_cli.engine.ask import FAR, NEAREST, Answer, Asker, embed_files
from metavqa_cli.engine.classifier import check_encoder
from metavqa_cli.engine.diffusion import NEXT_LATENT, HyperLdm
from metavqa_cli.engine.request import MAX_ANSWERS, MAX_QUESTION, Request, check_answers, check_gamma, check_question
from metavqa_cli.schema.errors import MissingError, UsageError
from metavqa_cli.store.workspace import Workspace
from metavqa_cli.tasks.arena import task_seed
from metavqa_cli.tasks.prompts import to_template
from tests import miniature, old_format
from tests.miniature import CPU, session

QUESTION = "What color is the umbrella on the roof?"
ANSWERS = ("red", "blue", "green")


@pytest.fixture(scope="module")
def asker() -> Asker:
    here = session(miniature.finished())
    here.__dict__["encoder"] = miniature.encoder()
    return Asker(here, miniature.run("ldm", "task"))


@pytest.fixture(scope="module")
def images() -> tuple[list[str], Tensor]:
    folder = miniature.dataset()
    paths = [folder.image_path(image) for image in folder.tasks.image_ids()[:6]]
    return [path.name for path in paths], embed_files(miniature.encoder(), paths)


def judged(answer: Answer) -> dict[str, dict[str, float]]:
    return {judgement.image: dict(judgement.ranked) for judgement in answer.judgements}


def weights(asker: Asker, **request: object) -> Tensor:
    return asker.ask(Request(**{"question": QUESTION, "answers": ANSWERS, **request})).classifier.weights  # type: ignore[arg-type]


def test_the_same_request_gives_the_same_answer(asker: Asker, images: tuple[list[str], Tensor]) -> None:
    request = Request(QUESTION, ANSWERS, gamma=1.5, seed=3)
    one, two = (asker.ask(request, *images) for _ in range(2))
    assert one.judgements == two.judgements
    assert torch.equal(one.classifier.weights, two.classifier.weights)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"gamma": 2.0}, {"samples": 2}, {"question": "What color is the car?"}]
)
def test_every_part_of_a_request_matters(change: dict[str, object], asker: Asker) -> None:
    assert not torch.equal(weights(asker, **{"gamma": 1.0, **change}), weights(asker, gamma=1.0))


def test_answers_and_template_do_not_change_the_weights(asker: Asker) -> None:
    assert torch.equal(weights(asker, answers=("1", "2")), weights(asker))
    assert torch.equal(weights(asker, template="a {} thing"), weights(asker))


def test_gamma_zero_ignores_the_question(asker: Asker) -> None:
    questions = ["What color is the car?", "How many boats are there?"]
    e = miniature.encoder().encode_text(questions)
    one, two = asker.ldm.weights(e, 0.0, [7, 7])
    assert torch.equal(one, two)
    one, two = asker.ldm.weights(e, 1.0, [7, 7])
    assert not torch.allclose(one, two)


def test_several_samples_are_averaged_in_the_latent_space(asker: Asker) -> None:
    e = miniature.encoder().encode_text([QUESTION])
    seeds = [(task_seed(5, QUESTION) + k * NEXT_LATENT) % 2**63 for k in range(3)]
    alone = asker.ldm.sampler.drawing(asker.ldm.sampler.sampling.model_copy(update={"latents": 1}))
    z = torch.cat([alone(e, 1.5, [seed]) for seed in seeds]).mean(0, keepdim=True)
    assert torch.allclose(weights(asker, seed=5, samples=3, gamma=1.5), asker.ldm.decoder.decode(z)[0], atol=1e-5)


def test_an_image_is_judged_alike_in_any_company(asker: Asker, images: tuple[list[str], Tensor]) -> None:
    names, x = images
    request = Request(QUESTION, ANSWERS)
    together = asker.ask(request, names, x)
    order = [3, 0, 5]
    some = asker.ask(request, [names[i] for i in order], x[order])
    assert [j.image for j in some.judgements] == [names[i] for i in order]
    for name, found in judged(some).items():
        assert found == pytest.approx(judged(together)[name], abs=1e-5)


def test_probabilities_add_up_and_are_ranked(asker: Asker, images: tuple[list[str], Tensor]) -> None:
    for judgement in asker.ask(Request(QUESTION, ANSWERS), *images).judgements:
        for ranked in (judgement.ranked, judgement.clip):
            values = [probability for _, probability in ranked]
            assert sum(values) == pytest.approx(1, abs=1e-5)
            assert values == sorted(values, reverse=True)
            assert {answer for answer, _ in ranked} == set(ANSWERS)


def test_clip_beside_it_is_plain_zero_shot_clip(asker: Asker, images: tuple[list[str], Tensor]) -> None:
    names, x = images
    answer = asker.ask(Request(QUESTION, ANSWERS, template="a {} umbrella"), names, x)
    statements = miniature.encoder().encode_text([f"a {colour} umbrella" for colour in ANSWERS])
    expected = (30.0 * x @ statements.T).softmax(-1)
    for i, judgement in enumerate(answer.judgements):
        assert dict(judgement.clip) == pytest.approx(dict(zip(ANSWERS, expected[i].tolist(), strict=True)), abs=1e-4)


def test_a_known_question_brings_its_own_template_and_answers(asker: Asker) -> None:
    for task in miniature.dataset().tasks.of("train")[:5]:
        answer = asker.ask(Request(task.question))
        assert answer.nearest[0].question == task.question
        assert answer.nearest[0].similarity == pytest.approx(1, abs=1e-4)
        assert answer.classifier.template == task.template
        assert set(task.answers) <= set(answer.classifier.answers)
        assert len(answer.nearest) == NEAREST


def test_near_questions_of_another_sort_propose_nothing(asker: Asker) -> None:
    questions = list(asker.known)
    mixed = 0
    for question in questions:
        near, proposed = asker.neighbours(asker.encoder.encode_text([question]))
        first, *others = [asker.known[n.question].answers for n in near]
        unlike = [set(answers) for answers in others if not set(answers) & set(first)]
        assert proposed[: len(first)] == list(first)
        assert not any(answers & set(proposed) - set(first) for answers in unlike) or len(others) > len(unlike)
        mixed += bool(unlike)
    assert mixed  # the miniature has such questions, so that this says something


def test_proposed_answers_are_those_of_the_nearest_questions(asker: Asker) -> None:
    answer = asker.ask(Request("What color is the thing?"))
    tasks = {task.question: task for task in miniature.dataset().tasks.of("train")}
    near_answers = [tasks[near.question].answers for near in answer.nearest]
    union = [text for answers in near_answers if set(answers) & set(near_answers[0]) for text in answers]
    assert answer.classifier.answers == tuple(dict.fromkeys(union))
    similarities = [near.similarity for near in answer.nearest]
    assert similarities == sorted(similarities, reverse=True)


def test_an_unknown_question_is_turned_into_a_statement_or_given_one(asker: Asker) -> None:
    answer = asker.ask(Request(QUESTION, ANSWERS))
    assert answer.classifier.template == to_template(QUESTION).text
    assert asker.ask(Request(QUESTION, ANSWERS, template="a {} roof")).classifier.template == "a {} roof"


@pytest.mark.parametrize(
    "answers", [('the "big" one', "it's"), ("{}", "{0} and {name}"), ("a, b", "c; d"), ("%s", "\\n"), ("赤", "青")]
)
def test_answers_are_taken_character_for_character(
    answers: Sequence[str], asker: Asker, images: tuple[list[str], Tensor]
) -> None:
    answer = asker.ask(Request(QUESTION, answers, template="it is {}"), *images)
    assert answer.classifier.statements() == [f"it is {text}" for text in answers]
    assert set(dict(answer.judgements[0].ranked)) == set(answers)


def test_doubtful_questions_come_with_warnings(asker: Asker) -> None:
    def warnings(question: str) -> str:
        return " / ".join(asker.ask(Request(question, ANSWERS)).warnings)

    known = miniature.dataset().tasks.of("train")[0].question
    assert "far from all" not in warnings(known) and "does not know" not in warnings(known)
    assert "the built-in encoder does not know 'zeitgeist'" in warnings("What color is the zeitgeist?")
    assert "could not be turned into a statement" in warnings("Colour of car, please")
    assert "reads the start" in warnings("What color is the car " + "and the car " * 60 + "?")
    assert "knows only the Scenes world" in warnings(known)
    assert 0 < FAR < 1


def test_without_its_dataset_a_run_answers_only_with_given_answers(workspace: Workspace) -> None:
    (workspace.dataset_dir("mini") / "dataset.json").unlink()
    alone = Asker(session(workspace), miniature.run("ldm", "task", workspace))
    answer = alone.ask(Request(QUESTION, ANSWERS))
    assert answer.nearest == [] and answer.classifier.answers == ANSWERS
    with pytest.raises(MissingError, match=r"the dataset 'mini', .* is gone; name them: --answers red,blue"):
        alone.ask(Request(QUESTION))


def test_another_dataset_under_the_same_name_is_not_taken_for_it(workspace: Workspace) -> None:
    run = miniature.run("ldm", "task", workspace)
    manifest = workspace.dataset_dir("mini") / "dataset.json"
    old_format.rewrite(manifest, fingerprint="0" * 16)
    assert Asker(session(workspace), run).dataset is None


def test_a_run_is_refused_with_another_clip_model(workspace: Workspace) -> None:
    run = miniature.run("ldm", "task", workspace)
    model = HyperLdm(run, CPU, miniature.config().sampling)
    recorded = {**model.header["encoder"], "weights": "other"}
    with pytest.raises(UsageError, match=f"the run {run.id} was made with the built-in CLIP model of another version"):
        check_encoder(recorded, miniature.encoder(), f"the run {run.id}")
    with pytest.raises(UsageError, match=r"made with another CLIP model \(weights: 'other' there"):
        check_encoder({**recorded, "model": "local-dir"}, miniature.encoder(), f"the run {run.id}")


def test_questions_answers_and_gammas_are_checked() -> None:
    assert check_question("  What \n color? ") == "What color?"
    for question in ("", "  \n ", "word " * (MAX_QUESTION // 4)):
        with pytest.raises(UsageError, match=r"the question (is empty|has .* characters)"):
            check_question(question)
    assert check_answers([" red", "red ", "", "blue"]) == ("red", "blue")
    for answers in ([], ["red"], ["red", " red"], [str(i) for i in range(MAX_ANSWERS + 1)]):
        with pytest.raises(UsageError, match=r"at least two different answers, found|are more than"):
            check_answers(answers)
    assert check_gamma(0) == 0
    for gamma in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"gamma is {gamma}, but must be a number from 0 up"):
            check_gamma(gamma)


def test_files_are_embedded_as_the_dataset_was(images: tuple[list[str], Tensor], tmp_path: Path) -> None:
    folder = miniature.dataset()
    names = folder.tasks.image_ids()[:6]
    rows = [folder.image_features.ids.index(name) for name in names]
    assert torch.allclose(images[1], torch.from_numpy(folder.image_features.rows(rows)), atol=1e-5)
