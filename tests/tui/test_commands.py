"""From the form to the command line: what is shown is what runs, and what is wrong is told before it does."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.cli import app as cli
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.tui.commands import CHOICES, Wish, check, resuming, split_overrides, training
from metavqa_cli.tui.jobs import command_line
from tests.tui.made_runs import view

ALL = [(kind, choice) for kind, (_, choices) in CHOICES.items() for choice in choices]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No metavqa.toml lies about."""
    monkeypatch.chdir(tmp_path)


# Training


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        (Wish(), "metavqa train ldm --preset tiny --with-parents"),
        (Wish(gamma=" 1.5 ", seed="3"), "metavqa train ldm --gamma 1.5 --seed 3 --preset tiny --with-parents"),
        (Wish("ldm", "task", "smoke", with_parents=False), "metavqa train ldm --on task --preset smoke"),
        (Wish("hyperclip", "hnet"), "metavqa train hyperclip --on hnet --preset tiny --with-parents"),
        (Wish("regression", "zoo"), "metavqa train regression --on zoo --preset tiny --with-parents"),
        (Wish("hvae", "weights"), "metavqa train hvae --objective weights --preset tiny --with-parents"),
        (Wish("baseline", "film"), "metavqa train baseline --method film --preset tiny --with-parents"),
        (Wish("zoo", dataset="scenes"), "metavqa train zoo --dataset scenes --preset tiny --with-parents"),
        (Wish(overrides="ldm.epochs=20 ldm.hidden=[64,64]"),
         "metavqa train ldm --preset tiny --set ldm.epochs=20 --set 'ldm.hidden=[64,64]' --with-parents"),
        (Wish(overrides="""dataset.name="'my scenes'" """),
         """metavqa train ldm --preset tiny --set 'dataset.name='"'"'my scenes'"'"'' --with-parents"""),
    ],
)  # fmt: skip
def test_a_wish_as_it_is_typed(wish: Wish, line: str) -> None:
    assert command_line(training(wish)) == line
    assert tuple(shlex.split(line)) == ("metavqa", *training(wish))


@pytest.mark.parametrize("kind", CHOICES)
def test_gamma_is_for_ldm_alone(kind: str) -> None:
    args = training(Wish(kind, gamma="2"))
    assert ("--gamma" in args) == (kind == "ldm")
    check(Wish(kind, gamma="2" if kind == "ldm" else "not asked for"))


@pytest.mark.parametrize(("kind", "choice"), ALL)
def test_the_command_line_takes_whatever_the_form_offers(
    kind: str, choice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = Wish(kind, choice, "smoke", gamma="1.5", seed="2", dataset="unbuilt", overrides="eval.bootstrap=200")
    check(wish)
    assert cli.run([*training(wish), "--help"]) == 0
    assert f"metavqa train {kind}" in capsys.readouterr().out
    args = training(Wish(**{**vars(wish), "with_parents": False}))
    assert cli.run(["--workspace", str(tmp_path / "empty"), *args]) == 3, "understood, and then something is missing"
    assert "dataset" in capsys.readouterr().err


def test_the_preset_that_is_shown_holds_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METAVQA_PRESET", "paper")
    assert cli.run(["config", "show", "--preset", "tiny", "--json"]) == 0
    typed = capsys.readouterr().out
    monkeypatch.delenv("METAVQA_PRESET")
    assert cli.run(["config", "show", "--json"]) == 0
    assert capsys.readouterr().out == typed
    assert training(Wish(preset="tiny"))[2:4] == ("--preset", "tiny")


# What is wrong is told before


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(overrides="ldm.epoch=3"), ["ldm.epoch", "did you mean", "epochs"]),
        (Wish(overrides="ldm.epochs=many"), ["ldm.epochs", "many"]),
        (Wish(overrides="ldm.epochs=0 hvae.latent=-1"), ["ldm.epochs", "hvae.latent"]),
        (Wish(overrides="epochs"), ["epochs"]),
        (Wish(overrides="dataset.name='open"), ["overrides", "close the quote"]),
        (Wish(gamma="-0.5"), ["ldm.gamma", "-0.5"]),
        (Wish(gamma="nan"), ["ldm.gamma"]),
        (Wish(gamma="inf"), ["ldm.gamma"]),
        (Wish(gamma="high"), ["ldm.gamma is a number, which 'high' is not"]),
        (Wish(seed="1.5"), ["seed is a whole number, which '1.5' is not"]),
        (Wish(seed="-1"), ["seed"]),
        (Wish(preset="tinny"), ["no preset 'tinny'", "did you mean tiny?"]),
    ],
)
def test_what_is_wrong_is_one_sentence_that_names_it(wish: Wish, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        check(wish)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("wish", [Wish(), Wish(gamma="0"), Wish(gamma=" 2.5 ", seed=" 7 "), Wish(overrides="  ")])
def test_what_is_right_passes(wish: Wish) -> None:
    check(wish)


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=20))
def test_quotes_keep_a_value_together(value: str) -> None:
    assert split_overrides(f"a.b={shlex.quote(value)} seed=1") == [f"a.b={value}", "seed=1"]


# Going on


@pytest.mark.parametrize("state", ["interrupted", "failed", "stale"])
@pytest.mark.parametrize("kind", CHOICES)
def test_an_unfinished_training_goes_on(kind: str, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = resuming(view(f"{kind}-1", kind=kind, state=state))
    assert args == ("train", kind, "--resume", f"{kind}-1")
    assert cli.run([*args, "--help"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("kind", "state", "words"),
    [("ldm", "finished", "is finished"), ("ldm", "running", "is running already"), ("cell", "finished", "is finished"),
     ("cell", "interrupted", "of kind cell, which begins again"), ("eval", "failed", "of kind eval, which begins")],
)  # fmt: skip
def test_what_cannot_go_on_says_why(kind: str, state: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resuming(view("x-1", kind=kind, state=state))
