"""`metavqa config`: show every value with its origin, check it, write a file to start from. Without torch."""

from pathlib import Path
from typing import Annotated, Any

import typer

from metavqa_cli.cli import console
from metavqa_cli.cli.options import ConfigOption, FormatOption, JsonOption, PresetOption, SetOption, chosen_format
from metavqa_cli.engine.configuration import DEFAULT_PRESET, PROJECT_FILE, preset_layer, read_toml, resolve_config
from metavqa_cli.schema.errors import BusyError, UsageError
from metavqa_cli.store.atomic import write_text

app = typer.Typer(no_args_is_help=True, help="Show, check and start a configuration.")


@app.command()
def show(
    section: Annotated[str, typer.Argument(metavar="[KEY]", help="A section or a key, e.g. ldm or ldm.hidden.")] = "",
    preset: PresetOption = DEFAULT_PRESET,
    config: ConfigOption = None,
    sets: SetOption = None,
    format: FormatOption = "auto",
    json: JsonOption = False,
) -> None:
    """Show each value and where it comes from."""
    from metavqa_cli.schema.layers import describe_fields, flatten, nearest

    resolved = resolve_config(preset, config, sets)
    sentences = describe_fields()
    rows = [
        {"key": key, "value": value, "origin": resolved.origins[key], "description": sentences[key]}
        for key, value in flatten(resolved.config.model_dump())
        if f"{key}.".startswith(f"{section}." if section else "")
    ]
    if not rows:
        sections = ", ".join(key for key, value in resolved.config.model_dump().items() if isinstance(value, dict))
        raise UsageError(f"{section!r} is not a known section or key{nearest(section)} The sections are {sections}")
    console.emit(rows, chosen_format(format, json), ("key", "value", "origin", "description"))


@app.command()
def validate(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A configuration file.")] = None,
    preset: PresetOption = DEFAULT_PRESET,
    config: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Check FILE alone, or else everything that a command here would use; list every mistake at once."""
    from metavqa_cli.schema.layers import Layer, resolve

    if file is None:
        resolve_config(preset, config, sets)
    else:
        resolve([preset_layer(preset), Layer(str(file), read_toml(file))])
    console.narrate(f"{file or 'the configuration'} is valid")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="Where to write it.")] = PROJECT_FILE,
    preset: PresetOption = DEFAULT_PRESET,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a configuration file with every value of the preset, each explained and commented out."""
    if path.exists() and not force:
        raise BusyError(f"{path} already exists; add --force to replace it, or name another path")
    write_text(path, commented(preset))
    console.narrate(f"wrote {path}; take the # off a line to change its value")


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from metavqa_cli.schema.config import Config

    console.emit(Config.model_json_schema(), "json")


def commented(preset: str) -> str:
    """A TOML file that changes nothing: section headers, and each value of ``preset`` behind a ``#``."""
    from metavqa_cli.schema.layers import describe_fields, flatten, resolve

    sentences = describe_fields()
    values = resolve([preset_layer(preset)]).config.model_dump()
    lines = [f"# Configuration of metavqa; the values shown are those of the preset {preset!r}."]
    section = ""
    for key, value in sorted(flatten(values), key=lambda item: item[0].count(".") > 0):  # what is in no section, first
        above, _, name = key.rpartition(".")
        if above != section or key == next(iter(values)):
            section = above
            lines += ["", f"[{section}]"] if section else [""]
        lines += [f"# {sentences[key]}", f"# {name} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    import tomlkit

    return "(none)" if value is None else tomlkit.item(value).as_string()
