"""Encoders load by name, embed as open_clip does whatever the batch, and explain every name they refuse."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory
from PIL import Image
from safetensors.torch import save_file

from metavqa_cli.clip.encoder import TINY, TINY_FOLDER, ClipEncoder, load_encoder
from metavqa_cli.clip.tiny.package import CONFIG_PATH, package_hash
from metavqa_cli.schema.errors import JobError, MissingError, UsageError
from metavqa_cli.tasks.sources.scenes.draw import draw
from metavqa_cli.tasks.sources.scenes.questions import all_questions
from metavqa_cli.tasks.sources.scenes.scene import sample_scene
from tests.clip.open_clip_folder import CONFIG, WEIGHTS, as_open_clip

CPU = torch.device("cpu")
IMAGES = [draw(sample_scene(0, i, "encoder-test")) for i in range(7)]
TEXTS = ["a red car", "the dog is blue", "How many trees are there?", "", "two yellow fish at the beach " * 30]


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return load_encoder(TINY, CPU)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for i, image in enumerate(IMAGES):
        image.save(tmp_path / f"{i}.png")
    return [tmp_path / f"{i}.png" for i in range(len(IMAGES))]


def test_the_shipped_model_is_what_its_identity_says(encoder: ClipEncoder) -> None:
    config = json.loads(CONFIG_PATH.read_text())
    assert encoder.embed == config["embed_dim"]
    assert encoder.context_length == config["text_cfg"]["context_length"]
    assert encoder.identity["image_size"] == config["vision_cfg"]["image_size"]
    assert encoder.identity["model"] == TINY
    assert encoder.identity["weights"] == package_hash(TINY_FOLDER)
    assert encoder.identity["quick_gelu"] is False
    assert encoder.identity["resize_mode"] == "squash"
    assert encoder.identity["open_clip"] == open_clip.__version__
    json.dumps(encoder.identity)  # it is written into files


def test_the_shipped_model_is_small() -> None:
    assert sum(path.stat().st_size for path in TINY_FOLDER.iterdir()) <= 12 * 2**20


def test_embeddings_have_unit_norm(encoder: ClipEncoder) -> None:
    for embedding in (encoder.encode_text(TEXTS), encoder.encode_images(IMAGES)):
        assert embedding.shape[1] == encoder.embed
        assert embedding.dtype == torch.float32
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_texts_do_not_depend_on_their_batch(encoder: ClipEncoder, batch: int) -> None:
    torch.testing.assert_close(encoder.encode_text(TEXTS, batch), encoder.encode_text(TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_files_do_not_depend_on_their_batch(encoder: ClipEncoder, files: list[Path], batch: int) -> None:
    rows = list(encoder.encode_files(files, batch))
    assert [len(row) for row in rows][:-1] == [batch] * (len(rows) - 1)
    torch.testing.assert_close(torch.cat(rows), encoder.encode_images(IMAGES), atol=1e-5, rtol=0)


def test_images_and_texts_are_told_apart(encoder: ClipEncoder) -> None:
    images, texts = encoder.encode_images(IMAGES), encoder.encode_text(TEXTS[:3])
    assert (images @ images.T - torch.eye(len(IMAGES))).max() < 0.999
    assert (texts @ texts.T - torch.eye(3)).max() < 0.999


def test_no_text_and_no_file_is_nothing(encoder: ClipEncoder) -> None:
    assert encoder.encode_text([]).shape == (0, encoder.embed)
    assert list(encoder.encode_files([])) == []


def test_a_bad_file_is_named(encoder: ClipEncoder, files: list[Path]) -> None:
    files[4].write_bytes(b"no picture")
    with pytest.raises(JobError, match=r"4\.png is not an image"):
        list(encoder.encode_files(files, 2))


def test_encoding_can_stop_early(encoder: ClipEncoder, files: list[Path]) -> None:
    encoding = encoder.encode_files(files * 50, 2)
    first = next(encoding)
    encoding.close()
    torch.testing.assert_close(first, encoder.encode_images(IMAGES[:2]), atol=1e-5, rtol=0)


def test_every_question_of_the_world_is_short_enough(encoder: ClipEncoder) -> None:
    """A statement may be longer than its question by the longest answer."""
    for question in all_questions(2021):
        assert not encoder.is_too_long(question.text)
        assert not encoder.is_too_long(question.template.replace("{}", "bottom right mountains"))


def test_a_long_text_is_known_to_be_cut(encoder: ClipEncoder) -> None:
    fits = "red " * (encoder.context_length - 2)
    assert not encoder.is_too_long(fits)
    assert encoder.is_too_long(fits + "red")
    assert torch.equal(encoder.encode_text([fits + "red"]), encoder.encode_text([fits + "blue car"]))


def test_unknown_words_are_those_never_trained(encoder: ClipEncoder) -> None:
    assert encoder.unknown_words("What color is the car?") == []
    assert encoder.unknown_words("Is the zebra (the ZEBRA) above a car, a giraffe?") == ["zebra", "giraffe"]
    assert encoder.unknown_words("что это?") == ["что", "это"]
    assert encoder.unknown_words(" ?! ... ") == []


def test_an_unknown_word_carries_no_meaning(encoder: ClipEncoder) -> None:
    """Its row is zero, so one unknown word is like another of as many tokens."""
    one, other = (len(encoder.tokenizer.encode(word)) for word in ("zebra", "giraffe"))
    assert one == other
    embeddings = encoder.encode_text(["a red zebra", "a red giraffe", "a red car"])
    torch.testing.assert_close(embeddings[0], embeddings[1], atol=1e-5, rtol=0)
    assert (embeddings[0] - embeddings[2]).abs().max() > 1e-3


# --- names ---


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("resize", ["model", "squash", "crop", "pad"])
def test_the_built_in_model_is_what_open_clip_makes_of_its_weights(tmp_path: Path, resize: str, precision: str) -> None:
    """Bit for bit, in any batch; the folder's name gives another identity."""
    name = as_open_clip(TINY_FOLDER, tmp_path / "model")
    own, other = (load_encoder(each, CPU, resize=resize, precision=precision) for each in (TINY, name))
    assert type(other.model) is open_clip.CLIP and not isinstance(own.model, open_clip.CLIP)
    for count in (1, 2, len(IMAGES)):
        assert torch.equal(other.encode_images(IMAGES[:count]), own.encode_images(IMAGES[:count]))
        assert torch.equal(other.encode_text(TEXTS[:count]), own.encode_text(TEXTS[:count]))
    assert other.identity["model"] == "local-dir" and other.unknown_words("a zebra") == []
    apart = {"model": "", "weights": ""}
    assert other.identity | apart == own.identity | apart


def test_the_built_in_model_leaves_the_global_randomness_alone() -> None:
    before = torch.random.get_rng_state()
    load_encoder(TINY, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def saved_model(folder: Path, config: dict[str, object], seed: int = 0) -> Path:
    """An open_clip folder with random weights."""
    torch.manual_seed(seed)
    folder.mkdir()
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    model = kind(**{key: value for key, value in config.items() if key != "custom_text"})
    save_file(model.state_dict(), folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


RESNET = SMALL | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}}
CUSTOM = SMALL | {"custom_text": True}
TIMM = {"timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear", "image_size": 160}
OTHER = SMALL | {"custom_text": True, "vision_cfg": TIMM}


@pytest.mark.parametrize("config", [SMALL, RESNET, CUSTOM, OTHER], ids=["vit", "resnet", "custom text", "timm"])
def test_every_kind_of_model_loads(tmp_path: Path, config: dict[str, object]) -> None:
    loaded = load_encoder(f"local-dir:{saved_model(tmp_path / 'model', config)}", CPU)
    assert loaded.embed == 24
    assert loaded.encode_text(["a", "b"]).shape == (2, 24)
    assert loaded.encode_images([Image.new("RGB", (9, 9))]).shape == (1, 24)


def test_the_weights_are_part_of_the_identity(tmp_path: Path) -> None:
    names = [f"local-dir:{saved_model(tmp_path / str(i), RESNET, seed)}" for i, seed in enumerate((0, 0, 1))]
    same, again, other = (load_encoder(name, CPU).identity for name in names)
    assert same == again
    assert other["weights"] != same["weights"]
    assert other | {"weights": ""} == same | {"weights": ""}


def test_quick_gelu_is_part_of_the_identity(tmp_path: Path) -> None:
    name = f"local-dir:{saved_model(tmp_path / 'model', SMALL | {'quick_gelu': True})}"
    assert load_encoder(name, CPU).identity["quick_gelu"] is True


def test_a_tokenizer_of_hugging_face_is_asked_for_its_length(encoder: ClipEncoder) -> None:
    class Wrapped:
        context_length = 4

        @staticmethod
        def tokenizer(text: str) -> dict[str, list[int]]:
            return {"input_ids": [0, *range(len(text.split())), 1]}

    wrapped = ClipEncoder("hf-hub:x/y", None, Wrapped(), {}, CPU)
    assert not wrapped.is_too_long("two words")
    assert wrapped.is_too_long("these three words")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", r"there is no CLIP model 'tinny'; did you mean tiny\?"),
        ("ViT-B32/openai", r"there is no CLIP model 'ViT-B32'; did you mean ViT-B-32"),
        ("", "there is no CLIP model ''; use tiny, local-dir:DIR, hf-hub:REPO, MODEL/TAG or MODEL/FILE"),
        ("zzzzzzzz:3", "there is no CLIP model 'zzzzzzzz:3'; use tiny"),
        ("ViT-B-32", r"'ViT-B-32' names no weights; choose one of ViT-B-32/openai, "),
        ("ViT-B-32/", "names no weights"),
        ("ViT-B-32/opeanai", "'ViT-B-32/opeanai' names no weights; choose one of ViT-B-32/openai, "),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_encoder(name, CPU)


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def truncated(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-50])


def of_another_model(folder: Path) -> None:
    (folder / CONFIG).write_text(json.dumps({"model_cfg": SMALL | {"embed_dim": 32}}))


def no_json(folder: Path) -> None:
    (folder / CONFIG).write_text("{")


@pytest.mark.parametrize("damage", [no_weights, truncated, of_another_model, no_json])
def test_a_folder_that_is_no_model_is_one_sentence(
    tmp_path: Path, damage: object, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Never random weights in place of missing ones, and nothing but the error is printed."""
    folder = saved_model(tmp_path / "model", SMALL)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(MissingError, match=r"cannot be loaded \(.*the folder needs open_clip_config.json") as caught:
        load_encoder(f"local-dir:{folder}", CPU)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "") and caplog.records == []


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("hf-hub:nobody/no-such-model", r"create_model\('hf-hub:nobody/no-such-model'\)"),
        ("RN50-quickgelu/openai", r"create_model\('RN50-quickgelu', 'openai'\)"),
    ],
)
def test_weights_that_cannot_be_fetched_come_with_the_command_that_fetches_them(
    tmp_path: Path,
    name: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def offline(*_arguments: object, **_options: object) -> None:
        raise FileNotFoundError("the network is down")

    monkeypatch.setattr(factory, "download_pretrained", offline)
    monkeypatch.setattr(factory, "download_pretrained_from_hf", offline)
    with pytest.raises(MissingError, match=r"the network is down.*use 'tiny', or: .*" + command):
        load_encoder(name, CPU)
    assert capfd.readouterr() == ("", "") and caplog.records == []


def test_weights_that_need_quick_gelu_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip only warns, and embeds wrongly."""
    weights = saved_model(tmp_path / "model", SMALL) / WEIGHTS
    monkeypatch.setitem(factory._MODEL_CONFIGS, "small", SMALL)
    monkeypatch.setattr(factory, "get_pretrained_cfg", lambda *_: {"quick_gelu": True})
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"quick_gelu": True})
    monkeypatch.setattr(factory, "download_pretrained", lambda *_, **__: str(weights))
    with pytest.raises(UsageError, match=r"small/x need QuickGELU .*--set clip\.model=small-quickgelu/x"):
        load_encoder("small/x", CPU)


def test_a_file_of_weights_may_stand_for_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = saved_model(tmp_path / "model", SMALL) / WEIGHTS
    monkeypatch.setitem(factory._MODEL_CONFIGS, "small", SMALL)
    assert load_encoder(f"small/{weights}", CPU).embed == 24


def test_pixels_are_prepared_as_in_training(encoder: ClipEncoder) -> None:
    """What the package says of mean and s.d. is the arithmetic of the training script."""
    from metavqa_cli.clip.tiny.data import normalise

    pixels = torch.from_numpy(np.array(IMAGES[0]))[None]
    torch.testing.assert_close(encoder.normalised(pixels), normalise(pixels), atol=1e-6, rtol=0)


def test_weights_that_need_quick_gelu_are_refused_before_they_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_arguments: object, **_options: object) -> None:
        raise AssertionError("nothing should be fetched")

    monkeypatch.setattr(factory, "download_pretrained", fetched)
    with pytest.raises(UsageError, match="ViT-B-32/openai need QuickGELU; choose ViT-B-32-quickgelu/openai"):
        load_encoder("ViT-B-32/openai", CPU)
