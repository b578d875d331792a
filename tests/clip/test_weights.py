"""Names and files of weights: the right model with the right activation, or one sentence; no stranger's code is run."""

import hashlib
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory
from PIL import Image
from safetensors.torch import load_file, save_file

from metavqa_cli.clip import weights
from metavqa_cli.clip.encoder import ClipEncoder, load_encoder
from metavqa_cli.clip.weights import Published, published_files
from metavqa_cli.schema.errors import DeviceError, JobError, MetaVQAError, MissingError, UsageError

CPU = torch.device("cpu")
QUICK, PLAIN = "Small-B-32-quickgelu", "Small-B-32"
CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 128, "head_width": 64, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
IMAGES = [Image.effect_noise((90 + 30 * i, 70), 60 + i).convert("RGB") for i in range(3)]
TEXTS = ["What color is the car?", "the car is red"]
OWN = ("mean", "std", "interpolation", "resize_mode")


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-B-32-quickgelu and its twin, reduced, as a user's configuration files make them known to open_clip."""
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / f"{QUICK}.json").write_text(json.dumps(CONFIG))
    (folder / f"{PLAIN}.json").write_text(json.dumps({**CONFIG, "quick_gelu": False}))
    open_clip.add_model_config(folder)
    published_files.cache_clear()


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Random weights that are large enough for the activation to matter."""
    torch.manual_seed(0)
    model = open_clip.create_model(QUICK)
    return {name: value * (3 if "mlp" in name else 1) for name, value in model.state_dict().items()}


@pytest.fixture
def file(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def local_dir(folder: Path, file: Path, **preprocess: object) -> str:
    folder.mkdir()
    (folder / "open_clip_model.safetensors").write_bytes(file.read_bytes())
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    return f"local-dir:{folder}"


def load(name: str, tmp_path: Path, **options: str) -> ClipEncoder:
    return load_encoder(name, CPU, **options)


def known(monkeypatch: pytest.MonkeyPatch, path: Path, digits: int = 64, **config: object) -> None:
    """Pretend that open_clip publishes ``path``."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()[:digits]
    entry = Published(sha256, PLAIN, "openai", {"quick_gelu": True, **config})
    monkeypatch.setattr(weights, "published_files", lambda: (entry,))


# --- a model is the same wherever it comes from ---


def test_a_file_and_a_folder_of_the_same_weights_are_the_same_encoder(
    tmp_path: Path, file: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    names = [f"{QUICK}/{file}", f"{QUICK}/w.safetensors", f"{QUICK}/{tmp_path}/w.pt", local_dir(tmp_path / "d", file)]
    first, *others = (load(name, tmp_path) for name in names)
    for other in others:
        assert other.identity["weights"] == first.identity["weights"]
        assert torch.equal(other.encode_images(IMAGES), first.encode_images(IMAGES))
        assert torch.equal(other.encode_text(TEXTS), first.encode_text(TEXTS))
    assert [other.identity == first.identity for other in others] == [True, True, False]  # the folder has no name
    assert first.identity["quick_gelu"] is True and first.embed == 64
    json.dumps(first.identity)


def test_embeddings_are_those_of_open_clip_itself(tmp_path: Path, file: Path) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(QUICK, pretrained=str(file))
    encoder = load(f"{QUICK}/{file}", tmp_path)
    with torch.inference_mode():
        x = model.eval().encode_image(torch.stack([preprocess(image) for image in IMAGES]), normalize=True)
        e = model.encode_text(open_clip.get_tokenizer(QUICK)(TEXTS), normalize=True)
    torch.testing.assert_close(encoder.encode_images(IMAGES), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(encoder.encode_text(TEXTS), e, atol=1e-6, rtol=0)


def test_the_activation_changes_the_embeddings_and_the_identity(tmp_path: Path, file: Path) -> None:
    quick, plain = load(f"{QUICK}/{file}", tmp_path), load(f"{PLAIN}/{file}", tmp_path)
    assert (quick.encode_images(IMAGES) - plain.encode_images(IMAGES)).abs().max() > 1e-3
    assert {name for name in quick.identity if quick.identity[name] != plain.identity[name]} == {"model", "quick_gelu"}


def test_the_architecture_is_part_of_the_identity(tmp_path: Path, file: Path) -> None:
    """The same numbers in another number of heads embed otherwise."""
    names = [local_dir(tmp_path / name, file) for name in ("a", "b")]
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "heads": 4}}
    (tmp_path / "b" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    one, other = (load(name, tmp_path) for name in names)
    assert (one.encode_text(TEXTS) - other.encode_text(TEXTS)).abs().max() > 1e-4
    assert one.identity["weights"] != other.identity["weights"]


def test_an_unknown_file_is_said_to_say_nothing(tmp_path: Path, file: Path) -> None:
    (note,) = load(f"{QUICK}/{file}", tmp_path).notes
    assert "open_clip's defaults" in note and f"weights trained with GELU need {PLAIN}/{file}" in note
    (note,) = load(f"{PLAIN}/{file}", tmp_path).notes
    assert f"weights trained with QuickGELU need {QUICK}/{file}" in note
    assert load(local_dir(tmp_path / "d", file), tmp_path).notes == ()
    assert load("tiny", tmp_path).notes == ()


# --- resize and precision ---


@pytest.mark.parametrize(("resize", "mode"), [("squash", "squash"), ("crop", "shortest"), ("pad", "longest")])
def test_how_images_become_square_can_be_chosen(tmp_path: Path, file: Path, resize: str, mode: str) -> None:
    name = local_dir(tmp_path / "d", file, resize_mode="squash", mean=[0.1, 0.2, 0.3], interpolation="bilinear")
    own, chosen = load(name, tmp_path), load(name, tmp_path, resize=resize)
    assert (own.identity["resize_mode"], chosen.identity["resize_mode"]) == ("squash", mode)
    assert {**chosen.identity, "resize_mode": "squash"} == own.identity
    assert torch.equal(own.encode_images(IMAGES), chosen.encode_images(IMAGES)) is (resize == "squash")
    assert own.identity["mean"] == [0.1, 0.2, 0.3] and own.identity["interpolation"] == "bilinear"


def test_a_border_of_another_colour_is_another_encoder(tmp_path: Path, file: Path) -> None:
    names = [local_dir(tmp_path / str(fill), file, resize_mode="longest", fill_color=fill) for fill in (0, 200)]
    black, grey = (load(name, tmp_path) for name in names)
    assert black.identity != grey.identity
    assert not torch.equal(black.encode_images(IMAGES), grey.encode_images(IMAGES))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_reduced_precision_is_close_has_unit_norm_and_another_identity(
    tmp_path: Path, file: Path, precision: str, dtype: str
) -> None:
    full = load(f"{QUICK}/{file}", tmp_path)
    reduced = load(f"{QUICK}/{file}", tmp_path, precision=precision)
    assert (full.identity["dtype"], reduced.identity["dtype"]) == ("float32", dtype)
    assert {**reduced.identity, "dtype": "float32"} == full.identity
    for exact, found in (
        (full.encode_images(IMAGES), reduced.encode_images(IMAGES)),
        (full.encode_text(TEXTS), reduced.encode_text(TEXTS)),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)), atol=1e-5, rtol=0)
        assert 0 < (exact - found).abs().max() < 0.02


def test_auto_is_full_precision_on_a_cpu(tmp_path: Path) -> None:
    assert load("tiny", tmp_path).identity["dtype"] == "float32"


def test_a_device_that_cannot_compute_in_a_precision_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError('"conv" not implemented for Half\nC++ stack')

    monkeypatch.setattr(ClipEncoder, "encode_pixels", refused)
    with pytest.raises(DeviceError, match=r"'tiny' cannot compute in float16 on cpu \(.*Half\); use .*precision=fp32$"):
        load("tiny", tmp_path, precision="fp16")


def test_a_model_that_overflows_is_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file({k: v * (1e7 if "ln_post.weight" in k else 1) for k, v in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=r"NaN or infinite values in float16 on cpu; use --set clip.precision=bf16"):
        load(f"{QUICK}/{tmp_path}/w.safetensors", tmp_path, precision="fp16")


# --- files that somebody published ---


def test_the_list_of_published_files_has_the_sums_of_their_addresses() -> None:
    by_tag = {(known.model, known.tag): known for known in published_files()}
    assert by_tag["ViT-L-14-336", "openai"].sha256.startswith("3035c92b350959924f9f002134992086")
    assert by_tag["ViT-B-16", "laion400m_e32"].sha256 == "55e67d44"
    assert by_tag["ViT-L-14-336", "openai"].config["quick_gelu"] and not any(
        known.model.endswith("-quickgelu") for known in published_files()
    )


@pytest.mark.parametrize("digits", [64, 8])
def test_a_known_file_must_have_its_activation(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, digits: int
) -> None:
    path = tmp_path / "w.pt"
    torch.save(state, path)
    known(monkeypatch, path, digits, mean=(0.4, 0.4, 0.4))
    with pytest.raises(UsageError, match=f"Small-B-32/openai, need QuickGELU; choose {QUICK}/{path}"):
        load(f"{PLAIN}/{path}", tmp_path)
    encoder = load(f"{QUICK}/{path}", tmp_path, resize="pad")
    assert encoder.notes == ()
    assert encoder.identity["mean"] == [0.4] * 3  # what the list of pretrained models says
    assert encoder.identity["resize_mode"] == "longest"


class Archive(torch.nn.Module):
    """A model as OpenAI published theirs: named tensors, and three numbers among them."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in {**state, "input_resolution": torch.tensor(64)}.items():
            module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_archive_is_opened_only_when_its_sum_is_known(
    tmp_path: Path, state: dict[str, torch.Tensor], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ViT.pt"
    torch.jit.script(Archive({name: value.half() for name, value in state.items()})).save(str(path))
    opened: list[str] = []
    original = torch.jit.load
    monkeypatch.setattr(torch.jit, "load", lambda name, **options: opened.append(name) or original(name, **options))
    with pytest.raises(UsageError, match=r"is a TorchScript archive.*save its state_dict\(\) as \.safetensors"):
        load(f"{QUICK}/{path}", tmp_path)
    assert opened == []
    known(monkeypatch, path, 8)
    with pytest.raises(UsageError, match="is a TorchScript archive"):  # eight digits can be forged
        load(f"{QUICK}/{path}", tmp_path)
    known(monkeypatch, path)
    found = load(f"{QUICK}/{path}", tmp_path)
    plain = load(f"{QUICK}/{file}", tmp_path)
    assert opened == [str(path)]
    assert found.model.visual.proj.dtype == torch.float32
    torch.testing.assert_close(found.encode_images(IMAGES), plain.encode_images(IMAGES), atol=5e-3, rtol=0)


# --- files that are none ---


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_no_code_in_a_weights_file_is_ever_run(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # some people set it
    path, proof = tmp_path / "w.pt", tmp_path / "executed"
    if kind == "plain":
        path.write_bytes(pickle.dumps(Malicious(proof)))
    else:
        torch.save(Malicious(proof), path, _use_new_zipfile_serialization=kind == "zip")
    expected = "not a file of PyTorch weights" if kind == "plain" else "more than tensors: it asks for .*system, and no"
    with pytest.raises(JobError, match=expected) as caught:
        load(f"{QUICK}/{path}", tmp_path)
    assert not proof.exists() and "\n" not in str(caught.value)
    config = tmp_path / "d" / "open_clip_config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"model_cfg": CONFIG}))
    path.rename(config.with_name("open_clip_pytorch_model.bin"))
    with pytest.raises(MissingError, match=expected):
        load(f"local-dir:{config.parent}", tmp_path)
    assert not proof.exists()


def test_a_folder_that_asks_for_its_own_code_is_refused(tmp_path: Path, file: Path) -> None:
    name = local_dir(tmp_path / "d", file)
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "tokenizer_kwargs": {"trust_remote_code": True}}}
    (tmp_path / "d" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UsageError, match="wants to run code of its own"):
        load(name, tmp_path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no file of weights" * 1000)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin", ".pth"])
@pytest.mark.parametrize("damage", [truncated, empty, garbage])
def test_a_damaged_file_is_one_sentence(
    tmp_path: Path, state: dict[str, torch.Tensor], suffix: str, damage: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    damage(path)
    with pytest.raises(JobError, match=r"w\.\w+ .*(copy or download it again)") as caught:
        load(f"{QUICK}/{path}", tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert capfd.readouterr() == ("", "")


def test_the_weights_of_another_model_are_one_sentence(tmp_path: Path, file: Path) -> None:
    save_file({k: v for k, v in load_file(file).items() if "ln_post" not in k}, tmp_path / "other.safetensors")
    with pytest.raises(JobError, match=r"\(Error\(s\) in loading state_dict.*ln_post.*name the model") as caught:
        load(f"{QUICK}/{tmp_path}/other.safetensors", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "error", "message"),
    [
        ("none.safetensors", MissingError, "there is no weights file none.safetensors for the CLIP model"),
        ("no/such/file", MissingError, "there is no weights file no/such/file"),
        ("/nowhere/w.pt", MissingError, "there is no weights file /nowhere/w.pt"),
        ("configs", UsageError, "configs is a folder, .*local-dir:configs"),
        ("readme.txt", UsageError, r"readme.txt has the suffix '.txt', expected one of .safetensors, .pt"),
        ("openai", UsageError, "'Small-B-32/openai' names no weights; choose"),
    ],
)
def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str, error: type[MetaVQAError], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("readme.txt").write_text("hello")
    with pytest.raises(error, match=message):
        load(f"{PLAIN}/{rest}", tmp_path)


def test_the_identity_knows_neither_folder_nor_device(tmp_path: Path, file: Path) -> None:
    encoder = load(f"{QUICK}/{file}", tmp_path)
    assert str(tmp_path) not in json.dumps(encoder.identity)
    assert replace(encoder, notes=()).identity == encoder.identity
