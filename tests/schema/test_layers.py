"""The strongest layer wins, every value knows its origin, and every mistake is named at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.layers import (
    PROGRAM_VARIABLES,
    Layer,
    describe_fields,
    flatten,
    from_env,
    merge,
    parse_set,
    resolve,
    validate,
)


def test_without_layers_everything_is_the_default() -> None:
    resolved = resolve([])
    assert resolved.config == Config()
    assert set(resolved.origins.values()) == {"default"}
    assert resolved.origins.keys() == dict(flatten(Config().model_dump())).keys() == describe_fields().keys()


def test_the_strongest_layer_wins_key_by_key() -> None:
    weak = Layer("preset tiny", {"ldm": {"T": 100, "batch": 8}, "seed": 1})
    strong = Layer("--set", {"ldm": {"T": 200}})
    resolved = resolve([weak, strong])
    assert (resolved.config.ldm.T, resolved.config.ldm.batch, resolved.config.seed) == (200, 8, 1)
    assert resolved.origins["ldm.T"] == "--set"
    assert resolved.origins["ldm.batch"] == resolved.origins["seed"] == "preset tiny"
    assert resolved.origins["ldm.lr"] == "default"


@given(st.lists(st.dictionaries(st.sampled_from(["a.x", "a.y", "b", "c.d.e"]), st.integers()), max_size=4))
def test_merging_equals_reading_the_last_layer_that_has_the_key(raw: list[dict[str, int]]) -> None:
    layers = []
    for number, flat in enumerate(raw):
        nested: dict[str, Any] = {}
        for dotted, value in flat.items():
            section = nested
            *parts, last = dotted.split(".")
            for part in parts:
                section = section.setdefault(part, {})
            section[last] = value
        layers.append(Layer(str(number), nested))
    values, origins = merge(layers)
    expected = {key: (value, str(number)) for number, flat in enumerate(raw) for key, value in flat.items()}
    assert {key: (value, origins[key]) for key, value in flatten(values)} == expected


def test_merging_leaves_the_layers_alone() -> None:
    weak, strong = Layer("weak", {"a": {"x": 1}}), Layer("strong", {"a": {"x": 2}})
    merge([weak, strong])
    assert weak.values == {"a": {"x": 1}}


@pytest.mark.parametrize(("first", "second"), [({"ldm": 3}, {"ldm": {"T": 5}}), ({"ldm": {"T": 5}}, {"ldm": 3})])
def test_a_section_and_a_value_of_the_same_name_replace_each_other(first: dict, second: dict) -> None:
    values, origins = merge([Layer("first", first), Layer("second", second)])
    assert values == second
    assert set(origins.values()) == {"second"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("ldm.hidden=[512,1024,512]", {"ldm": {"hidden": [512, 1024, 512]}}),
        ("seed=3", {"seed": 3}),
        ("ldm.lr = 1e-3", {"ldm": {"lr": 1e-3}}),
        ("ldm.gamma=none", {"ldm": {"gamma": None}}),
        ("hvae.objective=task", {"hvae": {"objective": "task"}}),
        ('hvae.objective="task"', {"hvae": {"objective": "task"}}),
        ("runtime.device=cuda:1", {"runtime": {"device": "cuda:1"}}),
        ("dataset.name=2021", {"dataset": {"name": "2021"}}),
        ("clip.model=local-dir:/a=b", {"clip": {"model": "local-dir:/a=b"}}),
        ("ldm.T=1\nseed = 2", {"ldm": {"T": "1\nseed = 2"}}),
        ("ldm.gamma=", {"ldm": {"gamma": ""}}),
    ],
)
def test_set_reads_toml_and_plain_text(text: str, values: dict[str, Any]) -> None:
    assert parse_set(text) == values


@pytest.mark.parametrize("text", ["", "ldm.hidden", "=3", " =3"])
def test_set_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="needs KEY=VALUE"):
        parse_set(text)


def test_environment_variables_name_sections_with_two_underscores() -> None:
    environ = {
        "METAVQA_LDM__HIDDEN": "[8, 8]", "METAVQA_SEED": "5", "METAVQA_LDM__T": "20", "METAVQA_HVAE__KL_WEIGHT": "2",
        "METAVQA_DATASET__NAME": "7", "PATH": "/bin", "NOT_METAVQA_SEED": "9", **dict.fromkeys(PROGRAM_VARIABLES, "x"),
    }  # fmt: skip
    layer = from_env(environ)
    assert layer.values == {
        "ldm": {"hidden": [8, 8], "T": 20}, "seed": 5, "hvae": {"kl_weight": 2}, "dataset": {"name": "7"},
    }  # fmt: skip
    config = resolve([layer]).config
    assert config.ldm.hidden == (8, 8) and config.hvae.kl_weight == 2.0


def test_every_mistake_is_listed_with_key_value_origin_and_expectation() -> None:
    layers = [
        Layer("preset tiny", {"ldm": {"hiden": [8]}}),
        Layer("environment", {"seed": -1}),
        Layer("--set", {"ldm": {"gamma": float("nan")}, "hvae": {"objective": "weight"}, "zoo": {"steps": "many"}}),
    ]
    with pytest.raises(UsageError) as caught:
        resolve(layers)
    first, *lines = str(caught.value).splitlines()
    assert first == "the configuration has 5 mistakes:"
    text = {line.split()[0]: line.strip() for line in lines}
    assert text["ldm.hiden"] == "ldm.hiden (from preset tiny) is not a known key; did you mean ldm.hidden?"
    assert text["seed"].startswith("seed = -1 (from environment): expected greater than or equal to 0")
    assert text["ldm.gamma"].startswith("ldm.gamma = nan (from --set): expected a finite number")
    assert "expected 'weights' or 'task'" in text["hvae.objective"]
    assert text["zoo.steps"].startswith("zoo.steps = 'many' (from --set): expected a valid integer")
    assert text["zoo.steps"].endswith("(gradient steps on the support set)")


@pytest.mark.parametrize("name", ["con", "NUL", "COM1.old", "lpt9", "mini.", "-x", "a b", "../x", ""])
def test_a_dataset_has_a_name_that_is_a_folder_everywhere(name: str) -> None:
    with pytest.raises(UsageError, match=r"^the configuration has a mistake: dataset\.name = ") as caught:
        validate({"dataset": {"name": name}})
    assert "Value error" not in str(caught.value)


def test_a_dataset_may_be_called_much_like_a_device() -> None:
    for name in ("console", "com", "com12", "a.con", "nul-1", "v1.0"):
        assert validate({"dataset": {"name": name}}).dataset.name == name


def test_a_mistake_inside_a_list_names_its_place() -> None:
    with pytest.raises(UsageError, match=r"ldm\.hidden\[1\] = 0: expected greater than or equal to 1"):
        validate({"ldm": {"hidden": [8, 0]}})


@pytest.mark.parametrize(
    ("values", "nearest"),
    [({"ldm": {"hiden": 1}}, "ldm.hidden"), ({"gama": 1}, "ldm.gamma"), ({"lmd": {"T": 1}}, "ldm"),
     ({"hvae": {"checkpoint_secs": 1}}, "runtime.checkpoint_seconds")],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest_known_one(values: dict[str, Any], nearest: str) -> None:
    with pytest.raises(UsageError, match=rf"not a known key; did you mean {nearest}\?"):
        resolve([Layer("--set", values)])


def test_a_value_where_a_section_belongs_is_one_mistake() -> None:
    with pytest.raises(UsageError, match=r"a mistake: ldm = 3 \(from --set\)"):
        resolve([Layer("--set", {"ldm": 3})])


def test_every_field_has_a_sentence() -> None:
    assert all(describe_fields().values())
