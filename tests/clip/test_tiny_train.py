"""The script that trains the tiny CLIP: its losses in closed form, its data apart from every dataset, and resuming."""

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip import CLIP
from torch.nn import functional as F

from metavqa_cli.clip.encoder import TINY, load_encoder
from metavqa_cli.clip.tiny import retrieval, train
from metavqa_cli.clip.tiny.data import TEST_STREAM, TRAIN_STREAM, PairBatches, loader, normalise, vocabulary
from metavqa_cli.clip.tiny.package import known_tokens
from metavqa_cli.tasks.sources.scenes.draw import draw
from metavqa_cli.tasks.sources.scenes.scene import DATASET, sample_scene
from tests.clip.open_clip_folder import as_open_clip

# --- data ---


def test_the_encoder_never_trains_on_a_picture_of_a_dataset() -> None:
    streams = (DATASET, TRAIN_STREAM, TEST_STREAM, "vocabulary")
    assert len(set(streams)) == 4
    seen: set[str] = set()
    for stream in streams:
        mine = {hashlib.sha256(draw(sample_scene(0, i, stream)).tobytes()).hexdigest() for i in range(120)}
        assert len(mine) == 120 and seen.isdisjoint(mine)
        seen |= mine


def test_a_batch_is_a_function_of_its_number() -> None:
    whole, rest = PairBatches(5, 3, 32, seed=0), PairBatches(5, 3, 32, seed=0, first=3)
    for i, (pixels, captions) in enumerate(loader(rest, 0)):
        expected = whole[3 + i]
        assert torch.equal(pixels, expected[0]) and captions == expected[1]
        assert pixels.shape == (3, 32, 32, 3) and pixels.dtype == torch.uint8
    assert (len(whole), len(rest), len(PairBatches(5, 3, 32, seed=0, first=9))) == (5, 2, 0)
    assert not torch.equal(whole[0][0], PairBatches(5, 3, 32, seed=1)[0][0])
    assert not torch.equal(whole[0][0], PairBatches(5, 3, 32, seed=0, stream=TEST_STREAM)[0][0])
    assert len(set(whole[0][1] + whole[1][1])) > 4


def test_pixels_run_from_minus_one_to_one() -> None:
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(normalise(pixels), torch.tensor([-1.0, -0.6, 1.0])[None, :, None, None])


# --- losses ---


def test_the_contrastive_loss_of_perfect_and_of_equal_embeddings() -> None:
    n, scale = 6, torch.tensor(5.0)
    perfect = torch.eye(n)
    expected = math.log(1 + (n - 1) * math.exp(-5))
    assert train.contrastive_loss(perfect, perfect, scale).item() == pytest.approx(expected, rel=1e-5)
    equal = F.normalize(torch.ones(n, n), dim=1)
    assert train.contrastive_loss(equal, equal, scale).item() == pytest.approx(math.log(n), rel=1e-5)


def test_the_contrastive_loss_treats_both_sides_alike() -> None:
    g = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(5, 4, generator=g), dim=1) for _ in range(2))
    one, other = (train.contrastive_loss(a, b, torch.tensor(9.0)) for a, b in ((image, text), (text, image)))
    torch.testing.assert_close(one, other)


def test_the_word_loss_counts_words_and_neither_padding_nor_marks() -> None:
    head = torch.nn.Linear(2, 7)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([9.0, 1.0, 0.0, 2.0, 0.0, 9.0, 9.0]))
    log_p = torch.log_softmax(head.bias.detach(), 0)
    tokens = torch.tensor([[5, 1, 3, 6, 0, 0]])  # start, two words, end, padding
    expected = -(log_p[1] + log_p[3]) / 2
    torch.testing.assert_close(train.word_loss(head, torch.zeros(1, 2), tokens).detach(), expected)
    torch.testing.assert_close(
        train.word_loss(head, torch.zeros(1, 2), torch.tensor([[5, 6, 0]])).detach(), torch.tensor(0.0)
    )


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    rates = [train.learning_rate(step, 1000, 2.0, 100, 0.25) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02) and rates[49] == pytest.approx(1.0)
    assert rates[100:750] == [2.0] * 650
    assert rates[875] == pytest.approx(2.0 * (0.01 + 0.99 * 0.5))
    assert 0.02 < rates[-1] < 0.03
    assert rates[750:] == sorted(rates[750:], reverse=True)


def test_retrieval_counts_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = train.new_model(4)
    texts = torch.eye(2)
    monkeypatch.setattr(model, "encode_image", lambda x, normalize: x)
    monkeypatch.setattr(model, "encode_text", lambda x, normalize: x)
    assert train.retrieval_accuracy(model, texts, texts) == 100
    assert train.retrieval_accuracy(model, texts, texts[[1, 0]]) == 0
    # both images are nearest to their own text, but both texts are nearest to the second image
    assert train.retrieval_accuracy(model, texts, torch.tensor([[1.0, 0.0], [2.0, 3.0]])) == 75
    assert model.training


# --- training ---


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script's own sizes would take half a minute."""
    held_out = train.held_out

    def few(_batches: int, size: int, texts: Any, device: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(tokens[:16], images[:16]) for tokens, images in held_out(1, size, texts, device)]

    monkeypatch.setattr(train, "vocabulary", lambda tokenizer: vocabulary(tokenizer, captions=200))
    monkeypatch.setattr(train, "held_out", few)


def run(out: Path, monkeypatch: pytest.MonkeyPatch, steps: int = 2) -> None:
    arguments = ["train", "--out", str(out), "--steps", str(steps), "--batch", "8", "--every", "1", "--workers", "0"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--device", "cpu"])
    train.main()


def test_a_training_runs_resumes_and_writes_a_package(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", monkeypatch)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [(row["step"], row["pairs"]) for row in rows] == [(1, 8), (2, 16)]
    assert all(0 <= row["retrieval_256"] <= 100 and row["loss"] > 0 for row in rows)

    step = train.train_step

    def interrupted(parts: Any, args: Any, number: int, images: torch.Tensor, tokens: torch.Tensor) -> Any:
        if number == 1:
            raise KeyboardInterrupt
        return step(parts, args, number, images, tokens)

    monkeypatch.setattr(train, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", monkeypatch)
    monkeypatch.setattr(train, "train_step", step)
    run(tmp_path / "broken", monkeypatch)
    run(tmp_path / "broken", monkeypatch)  # finished: nothing to do

    packages = [tmp_path / name / "package" for name in ("whole", "broken")]
    files = [{path.name: path.read_bytes() for path in package.iterdir()} for package in packages]
    assert files[0] == files[1]  # one step and one more are two
    assert sum(map(len, files[0].values())) <= 12 * 2**20

    encoder = load_encoder(as_open_clip(packages[0], tmp_path / "model"), torch.device("cpu"))
    texts = train.Texts()
    assert known_tokens(packages[0]) == set(texts.ids.tolist())
    torch.testing.assert_close(encoder.encode_text(["a red car"]).norm(), torch.tensor(1.0))


def test_texts_are_rows_of_the_compact_vocabulary(small: None) -> None:
    texts = train.Texts()
    tokens = texts.tokenizer(["a red car", "a zebra"])
    rows = texts(["a red car", "a zebra"])
    known = torch.isin(tokens, texts.ids)
    assert torch.equal(texts.ids[rows][known], tokens[known])
    assert rows[1].tolist().count(0) == rows.shape[1] - 3  # the zebra's row is the padding's: start, "a" and end remain
    assert rows[0].argmax() == tokens[0].argmax()  # the end mark stays the largest, as open_clip's pooling needs


def arguments(lr: float) -> argparse.Namespace:
    return argparse.Namespace(
        device="cpu",
        ema=0.9,
        weight_decay=0.0,
        lr=lr,
        steps=10,
        warmup=1,
        words=0.5,
        grad_clip=1.0,
        falling=0.25,
        start=None,
    )


def test_every_parameter_changes() -> None:
    torch.manual_seed(0)
    args = arguments(lr=1e-3)
    parts = train.new_parts(args, torch.arange(50))
    before = {name: {k: v.clone() for k, v in parts[name].named_parameters()} for name in ("model", "head", "average")}
    pixels, _ = PairBatches(1, 8, 64, seed=0)[0]
    tokens = torch.randint(1, 48, (8, 32), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = 48, 49
    for step in range(2):  # the last layers of residual blocks start at zero and let the others learn only then
        train.train_step(parts, args, step, normalise(pixels), tokens)
    for name, parameters in before.items():
        now = dict(parts[name].named_parameters())
        assert [key for key, value in parameters.items() if torch.equal(now[key], value)] == []
    assert isinstance(parts["model"], CLIP)
    optimised = {id(p) for group in parts["optimizer"].param_groups for p in group["params"]}
    assert optimised == {id(p) for part in ("model", "head") for p in parts[part].parameters()}


def test_a_training_goes_on_from_a_packaged_model_with_rows_for_new_words(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state, ids = train.new_model(3).state_dict(), torch.tensor([0, 320, 49407])
    train.write_package(state, ids, tmp_path)
    torch.manual_seed(1)
    args = arguments(lr=1e-3)
    args.start = str(tmp_path)
    taken = train.new_parts(args, torch.tensor([0, 320, 999, 49407]))["model"].state_dict()
    name = "token_embedding.weight"
    assert torch.equal(taken[name][[0, 1, 3]], state[name].half().float())
    assert taken[name][2].abs().sum() > 0
    assert [k for k in state if k != name and not torch.equal(taken[k].float(), state[k].half().float())] == []


def test_the_temperature_stays_below_its_limit() -> None:
    parts = train.new_parts(arguments(lr=50.0), torch.arange(50))
    tokens = torch.randint(1, 48, (4, 32), generator=torch.Generator().manual_seed(0))
    pixels, _ = PairBatches(1, 4, 64, seed=0)[0]
    for step in range(2):
        train.train_step(parts, arguments(lr=50.0), step, normalise(pixels), tokens)
        assert 0 <= parts["model"].logit_scale.item() <= math.log(100) + 1e-6


def test_the_report_measures_what_training_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BATCH", 24)
    encoder = load_encoder(TINY, torch.device("cpu"))
    data = PairBatches(2, 24, encoder.identity["image_size"], seed=1, stream=TEST_STREAM)
    expected = []
    for pixels, captions in (data[0], data[1]):
        images = normalise(pixels).contiguous(memory_format=torch.channels_last)
        expected.append(train.retrieval_accuracy(encoder.model, encoder.tokenizer(captions), images))
        encoder.model.eval()
    assert retrieval.retrieval(encoder, 2, plain=True) == pytest.approx(expected)
    assert min(expected) > 100 / 24  # better than chance
