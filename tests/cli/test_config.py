"""Every value has an origin; every mistake is named; a written file changes nothing until it is edited."""

import json
import re
from pathlib import Path

import pytest
import tomli

from metavqa_cli.cli.config import commented
from metavqa_cli.engine import configuration
from metavqa_cli.schema.config import Config
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.schema.layers import Layer, flatten, resolve
from tests.cli.terminal import Terminal


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two presets of our own: tiny changes nothing, other sets five values."""
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "tiny.toml").write_text("")
    (folder / "other.toml").write_text("seed = 1\n[ldm]\nT = 11\nbatch = 12\nlr = 0.5\nepochs = 13\n")
    monkeypatch.setattr(configuration, "PRESETS_DIR", folder)
    return folder


def write_user_file(text: str) -> Path:
    path = configuration.user_file()
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.usefixtures("presets")
def test_each_layer_overrides_the_weaker_ones(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    user = write_user_file("[ldm]\nT = 21\nbatch = 22\nlr = 0.25\n")
    Path("metavqa.toml").write_text("[ldm]\nT = 31\nbatch = 32\n")
    monkeypatch.setenv("METAVQA_LDM__T", "41")
    shown = metavqa("config", "show", "ldm", "--preset", "other", "--set", "ldm.grad_clip=5", "--json")
    found = {row["key"]: (row["value"], row["origin"]) for row in json.loads(shown.out)}
    assert found["ldm.grad_clip"] == (5.0, "--set")
    assert found["ldm.T"] == (41, "environment")
    assert found["ldm.batch"] == (32, "metavqa.toml")
    assert found["ldm.lr"] == (0.25, str(user))
    assert found["ldm.epochs"] == (13, "preset other")
    assert found["ldm.ema"] == (Config().ldm.ema, "default")


@pytest.mark.usefixtures("presets", "metavqa")
def test_flags_are_strongest_and_a_resumed_run_beats_only_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAVQA_LDM__BATCH", "41")
    resumed = {"seed": 7, "ldm": {"batch": 1, "T": 2, "epochs": 3}}
    flags = {"ldm.T": 99, "ldm.lr": None}
    resolved = configuration.resolve_config("other", None, ["ldm.T=50"], flags, resumed=resumed)
    assert (resolved.config.ldm.T, resolved.origins["ldm.T"]) == (99, "flag")
    assert (resolved.config.ldm.batch, resolved.origins["ldm.batch"]) == (41, "environment")
    assert (resolved.config.seed, resolved.origins["seed"]) == (7, "resumed run")
    assert (resolved.config.ldm.lr, resolved.origins["ldm.lr"]) == (0.5, "preset other")


@pytest.mark.usefixtures("presets")
def test_a_named_file_replaces_the_project_file(metavqa: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("metavqa.toml").write_text("seed = 1\n")
    Path("named.toml").write_text("[ldm]\nT = 5\n")
    done = metavqa("config", "show", "--config", "named.toml", "--json")
    origins = {row["key"]: row["origin"] for row in json.loads(done.out)}
    assert (origins["ldm.T"], origins["seed"]) == ("named.toml", "default")
    monkeypatch.setenv("METAVQA_CONFIG", "named.toml")
    assert metavqa("config", "show", "--json").out == done.out


def test_show_prints_every_key_or_those_of_a_section(metavqa: Terminal) -> None:
    everything = json.loads(metavqa("config", "show", "--json").out)
    section = json.loads(metavqa("config", "show", "ldm", "--json").out)
    one = json.loads(metavqa("config", "show", "ldm.T", "--json").out)
    assert section == [row for row in everything if row["key"].startswith("ldm.")]
    assert [row["key"] for row in one] == ["ldm.T"]
    assert {"key", "value", "origin", "description"} == everything[0].keys()
    assert metavqa("config", "show", "ldm.T").out.splitlines()[1].split("\t")[:3] == ["ldm.T", "350", "default"]


def test_an_unknown_section_names_the_sections(metavqa: Terminal) -> None:
    done = metavqa("config", "show", "lmd")
    assert done.code == 2 and "'lmd' is not a known section or key" in done.err and "hvae, " in done.err


def test_validate_lists_every_mistake_of_a_file(metavqa: Terminal) -> None:
    Path("bad.toml").write_text("sed = 1\n[ldm]\nT = 'many'\nhiden = [3]\n")
    done = metavqa("config", "validate", "bad.toml")
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: the configuration has 3 mistakes:\n")
    assert "sed (from bad.toml) is not a known key; did you mean seed?" in done.err
    assert "ldm.T = 'many' (from bad.toml): expected a valid integer" in done.err
    assert "did you mean ldm.hidden?" in done.err


def test_validate_without_a_file_checks_what_a_command_would_use(
    metavqa: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metavqa("config", "validate").err == "the configuration is valid\n"
    monkeypatch.setenv("METAVQA_LDM__GAMMA", "-1")
    done = metavqa("config", "validate")
    assert done.code == 2 and "ldm.gamma = -1 (from environment): expected greater than or equal to 0" in done.err


@pytest.mark.parametrize("gamma", ["nan", "inf", "-0.5", "'much'"])
def test_a_gamma_that_is_no_scale_is_refused(metavqa: Terminal, gamma: str) -> None:
    done = metavqa("config", "validate", "--set", f"ldm.gamma={gamma}")
    assert done.code == 2 and "ldm.gamma = " in done.err and "expected" in done.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"seed = \n", r"bad\.toml is not valid TOML: .*line 1"),
        (b"a = 1\na = 2\n", r"bad\.toml is not valid TOML"),
        (b"\xff\xfe", r"bad\.toml is not UTF-8 text; save it as UTF-8"),
        (None, r"cannot read bad\.toml: No such file or directory; `metavqa config init` writes a new one"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_what_to_do(
    metavqa: Terminal, content: bytes | None, words: str
) -> None:
    if content is not None:
        Path("bad.toml").write_bytes(content)
    for args in (["config", "validate", "bad.toml"], ["config", "show", "--config", "bad.toml"]):
        done = metavqa(*args)
        assert done.code == 2 and len(done.err.splitlines()) == 1
        assert re.search(words, done.err)


def test_a_folder_is_no_configuration_file(metavqa: Terminal) -> None:
    done = metavqa("config", "validate", ".")
    assert done.code == 2 and "cannot read .: Is a directory" in done.err


@pytest.mark.usefixtures("presets")
def test_an_unknown_preset_names_the_near_one_and_all(metavqa: Terminal) -> None:
    done = metavqa("config", "show", "--preset", "othr")
    assert done.code == 2
    assert done.err == "error: there is no preset 'othr'; did you mean other? The presets are other, tiny\n"
    assert metavqa("config", "show", "--preset", "../tiny").code == 2


def test_a_set_without_a_value_is_a_usage_error(metavqa: Terminal) -> None:
    done = metavqa("config", "show", "--set", "ldm.T")
    assert done.code == 2 and "--set needs KEY=VALUE" in done.err


def test_every_preset_of_the_package_is_valid() -> None:
    assert configuration.DEFAULT_PRESET in configuration.preset_names()
    for name in configuration.preset_names():
        assert isinstance(resolve([configuration.preset_layer(name)]).config, Config)


def test_init_writes_a_file_that_changes_nothing(metavqa: Terminal) -> None:
    done = metavqa("config", "init")
    assert (done.code, done.out) == (0, "") and "wrote metavqa.toml" in done.err
    assert not list(flatten(tomli.loads(Path("metavqa.toml").read_text())))
    assert metavqa("config", "validate").code == 0


@pytest.mark.usefixtures("presets")
def test_the_values_behind_the_comments_are_those_of_the_preset() -> None:
    lines = commented("other").splitlines()
    settings = re.compile(r"# (\w+ = (?!\(none\)).*)")
    text = "\n".join(match[1] if (match := settings.fullmatch(line)) else line for line in lines)
    written = resolve([Layer("file", tomli.loads(text))]).config
    assert written == resolve([configuration.preset_layer("other")]).config


def test_init_keeps_a_file_that_exists_unless_forced(metavqa: Terminal) -> None:
    Path("mine.toml").write_text("seed = 5\n")
    done = metavqa("config", "init", "mine.toml")
    assert done.code == 5 and "mine.toml already exists; add --force" in done.err
    assert Path("mine.toml").read_text() == "seed = 5\n"
    assert metavqa("config", "init", "mine.toml", "--force").code == 0
    assert "# seed = 0" in Path("mine.toml").read_text()


def test_init_where_nothing_can_be_written_is_a_failed_job(metavqa: Terminal) -> None:
    Path("plain").write_text("")
    done = metavqa("config", "init", "plain/metavqa.toml")
    assert done.code == 1 and "cannot write plain/metavqa.toml: a part of the path is a file" in done.err


def test_schema_is_json_schema(metavqa: Terminal) -> None:
    schema = json.loads(metavqa("config", "schema").out)
    assert schema["properties"].keys() == Config.model_fields.keys()


def test_a_bad_preset_layer_is_reported_as_such(presets: Path) -> None:
    (presets / "tiny.toml").write_text("[ldm]\nT = 0\n")
    with pytest.raises(UsageError, match=r"ldm\.T = 0 \(from preset tiny\)"):
        configuration.resolve_config()
