"""One word is both a command with arguments and options of its own, and a group of subcommands."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer

from metavqa_cli.cli.default_group import DEFAULT, DefaultGroup
from tests.cli.terminal import python

RUNS = ["ldm-1", "ldm-2", "table-ish"]


def complete_run(incomplete: str) -> list[str]:
    return [name for name in RUNS if name.startswith(incomplete)]


def measure(
    models: Annotated[list[str] | None, typer.Argument(metavar="RUN", autocompletion=complete_run)] = None,
    gamma: Annotated[list[float] | None, typer.Option("--gamma", help="Guidance scale.")] = None,
    few_shot: Annotated[bool, typer.Option("--few-shot")] = False,
    preset: Annotated[str, typer.Option("--preset", autocompletion=lambda: ["tiny", "paper"])] = "tiny",
) -> None:
    """Measure runs."""
    print("measure", models or [], gamma or [], few_shot, preset)


def table(
    seeds: Annotated[int, typer.Option("--seeds", help="How many.")] = 1,
    form: Annotated[str, typer.Option("--format", autocompletion=lambda: ["json", "csv"])] = "json",
) -> None:
    """The results table."""
    print("table", seeds, form)


def sweep(run: Annotated[str, typer.Argument(autocompletion=complete_run)]) -> None:
    """Accuracy against γ."""
    print("sweep", run)


def wired() -> typer.Typer:
    """As `metavqa eval` is to be wired."""
    group = typer.Typer(cls=DefaultGroup, help="Accuracies.")
    group.command(DEFAULT, hidden=True)(measure)
    group.command("table")(table)
    group.command("sweep")(sweep)
    app = typer.Typer(name="top", pretty_exceptions_enable=False)
    app.add_typer(group, name="eval")
    app.command("other")(table)
    return app


def plain() -> typer.Typer:
    """The same without subcommands: what the default command must go on being."""
    app = typer.Typer(name="top", pretty_exceptions_enable=False)
    app.command("eval")(measure)
    app.command("other")(table)
    return app


Capture = pytest.CaptureFixture[str]


def call(app: typer.Typer, capsys: Capture, *args: str) -> tuple[int, str, str]:
    """The exit code, and what was printed."""
    with pytest.raises(SystemExit) as done:
        app(args, prog_name="top")
    return done.value.code or 0, *capsys.readouterr()  # type: ignore[return-value]


@pytest.mark.parametrize(
    "args",
    [[], ["ldm-1"], ["ldm-1", "ldm-2", "--gamma", "1", "--gamma", "1.5"], ["--few-shot"], ["--few-shot", "ldm-1"],
     ["--preset=paper", "--", "table"], ["--", "table"], ["ldm-1", "table"], ["--few-shot", "table"], ["tabel"],
     ["--gamma"], ["--gamma", "x"], ["--gama", "1"], ["--seeds", "3"], ["--", "--help"], [DEFAULT]],
)  # fmt: skip
def test_what_names_no_subcommand_is_parsed_as_before(args: list[str], capsys: Capture) -> None:
    """Outcome, texts of errors and exit code: the same as without subcommands."""
    expected = call(plain(), capsys, "eval", *args)
    assert call(wired(), capsys, "eval", *args) == expected
    assert expected[1].startswith("measure") or expected[0] == 2


def test_a_first_word_that_names_a_subcommand_is_one(capsys: Capture) -> None:
    assert call(wired(), capsys, "eval", "table", "--seeds", "5") == (0, "table 5 json\n", "")
    assert call(wired(), capsys, "eval", "sweep", "ldm-1") == (0, "sweep ldm-1\n", "")
    code, out, err = call(wired(), capsys, "eval", "sweep")
    assert (code, out) == (2, "") and "top eval sweep" in err


@pytest.mark.parametrize("mode", ["rich", None])
@pytest.mark.parametrize("args", [["--help"], ["ldm-1", "--gamma", "1", "--help"]])
def test_help_shows_the_options_and_the_subcommands(
    args: list[str], mode: str | None, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    app = wired()
    app.rich_markup_mode = mode  # type: ignore[assignment]
    code, out, _ = call(app, capsys, "eval", *args)
    assert code == 0
    assert "Usage: top eval [OPTIONS] [RUN]... | COMMAND [ARGS]..." in out
    for text in ("Accuracies.", "--gamma", "--few-shot", "Guidance scale.", "table", "The results table.", "sweep"):
        assert text in out
    assert DEFAULT not in out and out.count("--help") == 1


def test_help_of_a_subcommand_is_its_own(capsys: Capture) -> None:
    _, out, _ = call(wired(), capsys, "eval", "table", "--help")
    assert "top eval table [OPTIONS]" in out and "--seeds" in out and "--few-shot" not in out


def test_help_of_the_program_names_the_group_once(capsys: Capture) -> None:
    _, out, _ = call(wired(), capsys, "--help")
    assert out.count("eval") == 1 and "Accuracies." in out and DEFAULT not in out


def test_it_works_as_the_whole_program(capsys: Capture) -> None:
    group = wired().registered_groups[0].typer_instance
    assert group is not None
    assert call(group, capsys, "ldm-1", "--few-shot") == (0, "measure ['ldm-1'] [] True tiny\n", "")
    assert call(group, capsys, "table") == (0, "table 1 json\n", "")
    assert call(group, capsys) == (0, "measure [] [] False tiny\n", "")


PROGRAM = "import sys; from tests.cli.test_default_group import wired, plain; {}()(sys.argv[1:], prog_name='top')"


@pytest.fixture
def offered(tmp_path: Path) -> Callable[[str, str], list[str]]:
    def ask(program: str, words: str) -> list[str]:
        asked = {"_TOP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = python("-c", PROGRAM.format(program), cwd=tmp_path, **asked)
        assert done.err == ""
        return done.out.split()

    return ask


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("top eval ", ["table", "sweep", *RUNS]),
        ("top eval ta", ["table", "table-ish"]),
        ("top eval --", ["--gamma", "--few-shot", "--preset", "--help"]),
        ("top eval --g", ["--gamma"]),
        ("top eval --preset=t", ["tiny"]),
        ("top eval table --", ["--seeds", "--format", "--help"]),
        ("top eval table --format c", ["csv"]),
        ("top eval sweep l", ["ldm-1", "ldm-2"]),
    ],
)
def test_completion_knows_both(words: str, expected: list[str], offered: Callable[[str, str], list[str]]) -> None:
    assert offered("wired", words) == expected


@pytest.mark.parametrize(
    "words", ["top eval ldm-1 ", "top eval --few-shot l", "top eval ldm-1 --g", "top eval --preset pa", "top "]
)
def test_after_the_first_word_completion_is_as_before(words: str, offered: Callable[[str, str], list[str]]) -> None:
    expected = offered("plain", words)
    assert expected and sorted(offered("wired", words)) == sorted(expected)


def test_the_group_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = "[name for name in ('torch', 'numpy', 'rich') if name in sys.modules]"
    code = f"import sys, metavqa_cli.cli.default_group; print({heavy})"
    assert python("-c", code, cwd=tmp_path).out == "[]\n"
