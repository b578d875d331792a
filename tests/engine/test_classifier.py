"""A classifier file holds everything, and nothing that is not intact is ever used."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metavqa_cli.base_network.layout import WeightLayout
from metavqa_cli.engine.classifier import Classifier, check_encoder, judge, load_classifier, save_classifier
from metavqa_cli.schema.errors import JobError, MetaVQAError, MissingError, UsageError
from metavqa_cli.store.sealed import NewerError
from metavqa_cli.store.tensors import load_tensors, save_tensors
from tests import miniature

LAYOUT = WeightLayout(embed=6, hidden=2)
MADE = Classifier(
    weights=torch.linspace(-1, 1, LAYOUT.size),
    layout=LAYOUT,
    question='What is "it"?',
    answers=("red", "{blue}", 'the "big" one', "緑"),
    template="it is {}",
    logit_scale=30.0,
    encoder={"model": "tiny", "weights": "00", "embed": 6, "mean": [0.5, 0.5, 0.5], "open_clip": "3"},
    gamma=1.5,
    seed=4,
    sampler={"sampler": "ddim", "steps": 25, "samples": 1},
    runs={"ldm": "ldm-1", "generator": "hvae-1"},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "car.safetensors"
    save_classifier(MADE, path)
    return path


def test_what_is_read_is_what_was_written(file: Path) -> None:
    read = load_classifier(file)
    assert torch.equal(read.weights, MADE.weights)
    for field in fields(Classifier):
        if field.name != "weights":
            assert getattr(read, field.name) == getattr(MADE, field.name), field.name


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_ends(cut: float, file: Path) -> None:
    whole = file.read_bytes()
    part = file.with_name("part.safetensors")
    part.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(JobError, match=r"truncated|not a safetensors file"):
        load_classifier(part)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_weights_is_found(place: float, bit: int, file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) - 4 * LAYOUT.size + int(place * 4 * LAYOUT.size)] ^= 1 << bit
    flipped = file.with_name("flipped.safetensors")
    flipped.write_bytes(data)
    with pytest.raises(JobError, match=r"is damaged: its contents do not match .*`metavqa generate`"):
        load_classifier(flipped)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_changed_byte_in_the_header_is_found_or_harmless(place: int, byte: int, file: Path) -> None:
    """No change may crash the program: an error of its own, or a classifier that can be used."""
    data = bytearray(file.read_bytes())
    data[place] = byte
    changed = file.with_name("changed.safetensors")
    changed.write_bytes(data)
    try:
        read = load_classifier(changed)
    except MetaVQAError as error:
        assert str(changed) in str(error)
    else:
        assert len(read.statements()) == len(read.answers) >= 2


@pytest.mark.parametrize("content", [b"", b"x", b"not a tensor file at all", b"\x89PNG" + bytes(99), b"\xff" * 64])
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage.safetensors"
    path.write_bytes(content)
    with pytest.raises(JobError, match=r"garbage\.safetensors"):
        load_classifier(path)


def test_a_file_that_is_not_there_or_a_folder_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(MissingError, match=str(path)):
            load_classifier(path)


def test_a_model_of_another_kind_is_refused_by_name() -> None:
    run = miniature.run("ldm", "task")
    with pytest.raises(JobError, match=r"holds a ldm of version .*, not a classifier; generate it again"):
        load_classifier(run.model_path)


CHANGES: list[tuple[str, Any, str]] = [
    ("kind", "cat", "holds a cat"),
    ("answers", ["red"], "at least two different answers"),
    ("answers", "red,blue", "answers is 'red,blue'"),
    ("template", "no slot", "has 0 places"),
    ("template", None, "template is None"),
    ("encoder", "tiny", "encoder is 'tiny'"),
    ("encoder", {}, "'model'"),
    ("logit_scale", "30", "logit_scale is '30'"),
    ("layout", {**LAYOUT.to_dict(), "hidden": 3}, "another version"),
    ("layout", [1], "not a valid classifier"),
    ("layout", WeightLayout(embed=6, hidden=3).to_dict(), "do not fit the layout"),
]


@pytest.mark.parametrize(("name", "value", "words"), CHANGES)
def test_a_header_that_makes_no_sense_is_refused(name: str, value: object, words: str, file: Path) -> None:
    tensors, header = load_tensors(file)
    save_tensors(file, tensors, {**header, name: value})
    with pytest.raises(JobError, match=words) as found:
        load_classifier(file)
    assert str(file) in str(found.value) and "`metavqa generate`" in str(found.value)


def test_a_later_version_is_refused_by_its_number(file: Path) -> None:
    tensors, header = load_tensors(file)
    save_tensors(file, tensors, {**header, "version": 2})
    with pytest.raises(NewerError, match=r"a newer metavqa and has schema version 2.*upgrade") as found:
        load_classifier(file)
    assert str(file) in str(found.value)


@pytest.mark.parametrize("name", ["layout", "question", "answers", "encoder", "gamma", "seed", "sampler", "runs"])
def test_a_header_without_a_part_is_refused(name: str, file: Path) -> None:
    tensors, header = load_tensors(file)
    save_tensors(file, tensors, {key: value for key, value in header.items() if key != name})
    with pytest.raises(JobError, match=f"not a valid classifier .*{name}"):
        load_classifier(file)


def test_weights_under_another_name_are_refused(file: Path) -> None:
    tensors, header = load_tensors(file)
    save_tensors(file, {"W": tensors["weights"]}, header)
    with pytest.raises(JobError, match=r"not a valid classifier .*weights"):
        load_classifier(file)


def test_the_header_is_plain_json_that_another_program_can_read(file: Path) -> None:
    data = file.read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header = json.loads(head["__metadata__"]["metavqa"])
    assert header["question"] == MADE.question and header["answers"] == list(MADE.answers)
    assert head["weights"]["shape"] == [LAYOUT.size]


def test_another_clip_model_is_refused_field_by_field() -> None:
    encoder = miniature.encoder()
    check_encoder({**encoder.identity, "open_clip": "0.0"}, encoder, "it")  # the library's version changes nothing
    with pytest.raises(
        UsageError, match=r"it was made with another CLIP model .*image_size: 224 there, .* here.*--clip"
    ):
        check_encoder({**encoder.identity, "image_size": 224}, encoder, "it")
    with pytest.raises(UsageError, match="weights: '00' there"):
        check_encoder(MADE.encoder, encoder, "it")


def test_zero_weights_judge_as_clip_does() -> None:
    encoder = miniature.encoder()
    layout = WeightLayout(encoder.embed, 2)
    zero = replace(MADE, weights=torch.zeros(layout.size), layout=layout, encoder=encoder.identity)
    x = encoder.encode_text(["a red car", "a blue boat"])  # any unit vectors
    for judgement in judge(zero, encoder, ["one", "two"], x):
        assert judgement.ranked == judgement.clip
