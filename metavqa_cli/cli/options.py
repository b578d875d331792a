"""What several commands share: option types, and the global options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from metavqa_cli.cli.console import Format
from metavqa_cli.engine.configuration import preset_names
from metavqa_cli.schema.errors import UsageError
from metavqa_cli.store.workspace import Workspace

# The options of `metavqa` itself may stand anywhere on the line: these take no value, those take one.
GLOBAL_FLAGS = frozenset({"--ascii", "--debug", "--offline", "--quiet", "-q"})
GLOBAL_VALUES = frozenset({"--workspace", "-w", "--color"})
# An empty path would mean the folder one is in; a script with an unset variable gives one.
PATHS = frozenset({"--path", "--to", "--out", "--output", "-o", "--png", "--sheet", "--predictions", "--image-root",
                   "--svg", "--question-file", "--annotation-file", "--config"})  # fmt: skip


@dataclass
class Globals:
    """What the options of ``metavqa`` itself ask for; set by the application before a command runs."""

    root: Path | None = None
    offline: bool = False


chosen = Globals()


def workspace() -> Workspace:
    """The workspace of the running command: ``--workspace``, ``METAVQA_WORKSPACE``, or the platform's folder."""
    return Workspace(from_home(chosen.root).absolute() if chosen.root else Workspace.default_root())


def from_home(path: Path) -> Path:
    """The path with a home folder (``~``) written out. ``UsageError`` when there is no such person."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(f"{path} begins with the home folder of somebody unknown here; write the path out") from None


def hoist(args: Sequence[str]) -> list[str]:
    """``args`` with the global options moved to the front; nothing after ``--`` is touched.

    ``UsageError`` for an empty value, which a script with an unset variable gives and which would mean this folder.
    """
    front: list[str] = []
    rest: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        if arg == "--":
            rest += [arg, *remaining]
        elif arg.endswith("=") and arg[:-1] in GLOBAL_VALUES | PATHS:
            raise UsageError(f"{arg[:-1]} is empty; give it a value")
        elif arg in GLOBAL_FLAGS or (arg.partition("=")[0] in GLOBAL_VALUES and "=" in arg):
            front.append(arg)
        elif arg in GLOBAL_VALUES:
            value = next(remaining, None)
            if value == "":
                raise UsageError(f"{arg} is empty; give it a value")
            front += [arg] if value is None else [arg, value]
        elif arg in PATHS:
            value = next(remaining, None)
            if value == "":
                raise UsageError(f"{arg} is empty; give it a path")
            rest += [arg] if value is None else [arg, value]
        else:
            rest.append(arg)
    return front + rest


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Run ids for the shell's completion."""
    root = ctx.find_root().params.get("workspace")
    chosen.root = Path(root) if root else None
    return [name for name in workspace().run_ids() if name.startswith(incomplete)]


def complete_preset(incomplete: str) -> list[str]:
    """Preset names for the shell's completion."""
    return [name for name in preset_names() if name.startswith(incomplete)]


PresetOption = Annotated[
    str, typer.Option("--preset", envvar="METAVQA_PRESET", autocompletion=complete_preset, help="Set of defaults.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="METAVQA_CONFIG", help="Configuration file in place of ./metavqa.toml."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. ldm.hidden=[512,1024].")
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="auto is human on a terminal and tab-separated elsewhere.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do it again, or do it all the same.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", autocompletion=complete_run, help="Id of a run, or the beginning of one.")
]


def chosen_format(format: Format, json: bool) -> Format:
    """The format that ``--format`` and ``--json`` ask for together."""
    if json and format not in ("auto", "json"):
        raise UsageError(f"--json and --format {format} contradict each other; give one of them")
    return "json" if json else format
